"""A site's own stages: from its recordings to its calibration, with nothing else leaving it."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from infra.data.features import extract_site, load_frames, load_noise_bank, save_frames
from infra.data.manifest import load_manifest
from infra.data.mfcc import read_statistics
from infra.data.splits import assign_folds, parts
from infra.digest import digest_json
from infra.federation.base import load_base
from infra.federation.local import steps
from infra.federation.local.steps import SiteData, check, extract, own_verdict
from infra.federation.local.travel import CalibrationReply, FeaturesReply, GateReply
from infra.federation.messages import (
    CALIBRATE,
    FEATURES,
    GATE,
    HELLO,
    SITE_LOG,
    TRAIN,
    Envelope,
    encode_body,
    encode_header,
)
from infra.federation.own_features import current
from infra.federation.results import FederationResult, load_theta
from infra.federation.transport import LocalTransport
from infra.federation.whole_job import CALIBRATIONS, prepare, run_job
from models.adapters import adapter_schema, set_vector
from models.calibration import SiteCalibration, calibrate_site
from models.errors import DataError, FederationError, GateError, ManifestError
from models.frames import TEST, VAL
from models.predict import predict
from models.probe import ProbeCounts, grouped_probe, judge_probe
from models.threads import one_thread
from tests.infra.federation.recordings import (
    CANARIES,
    PLAN,
    SITES,
    corpus,
    local_job,
    open_sites,
    read_rows,
    sha256,
    spoil,
    write_rows,
)
from validation.gate import site_verdict
from validation.measure import measure_site

Message = tuple[Envelope, Envelope]  # request, reply


@dataclass
class World:
    """A finished job with every message that travelled."""

    root: Path
    manifest: Path
    job: Any
    result: FederationResult
    seen: list[Message]
    events: list[dict[str, Any]]

    def of(self, action: str) -> list[Message]:
        return [m for m in self.seen if m[0].header.action == action]

    def data(self, site: str, folder: Path | None = None, **changes: Any) -> SiteData:
        own = self.job.site(site)
        return replace(
            SiteData(
                site, self.manifest, folder or own.folder, PLAN, self.job.model().log_mel, self.job.reasons
            ),
            **changes,
        )


def spying(job: Any, folder: Path) -> tuple[LocalTransport, list[Message]]:
    """A transport to the job's sites that remembers what travelled."""
    seen: list[Message] = []

    def spy(site: Any) -> Any:
        def handle(request: Envelope) -> Envelope:
            reply = site.handle(request)
            seen.append((request, reply))
            return reply

        return handle

    return LocalTransport({name: spy(site) for name, site in open_sites(job, folder).items()}), seen


@pytest.fixture
def fresh(world: World, tmp_path: Path) -> Path:
    """The manifest of a copy of the recordings, to be spoilt."""
    return shutil.copytree(world.manifest.parent, tmp_path / CANARIES[0]) / world.manifest.name


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("local")
    manifest = corpus(root)
    job = local_job(root / "job", manifest)
    transport, seen = spying(job, root)
    events: list[dict[str, Any]] = []
    result = run_job(job, transport, lambda e: events.append(dict(e)))
    return World(root, manifest, job, result, seen, events)


def text(envelope: Envelope) -> str:
    """Everything that travels of a message."""
    raw = encode_header(envelope.header).encode() + encode_body(envelope.body).encode() + envelope.payload
    return raw.decode("latin-1").lower()


def numbers(value: Any) -> Iterator[float]:
    """Every number anywhere in a JSON value."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from numbers(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def test_the_order_is_gate_features_training_calibration(world: World) -> None:
    actions = [request.header.action for request, _ in world.seen]
    assert actions == [a for a in (GATE, FEATURES, HELLO, TRAIN, CALIBRATE) for _ in SITES]
    assert [e["event"] for e in world.events] == ["gate", "features", "start", "round", "calibrate", "done"]
    assert not any(reply.refused for _, reply in world.seen)
    document = json.loads((world.job.out_dir / CALIBRATIONS).read_text())
    assert document["theta"] == world.result.theta_digest
    assert set(document["sites"]) == set(SITES)
    assert not document["failures"]


def test_no_reply_says_more_than_it_may(world: World) -> None:
    allowed = {
        GATE: set(GateReply.__dataclass_fields__),
        FEATURES: {"site", "features"},
        HELLO: {"site", "features", "identity"},
        TRAIN: set(),
        CALIBRATE: set(CalibrationReply.__dataclass_fields__),
    }
    rows = [r for r in read_rows(world.manifest) if r["site"]]
    counts = {len(rows)}
    for columns in (
        ("site",),
        ("site", "role"),
        ("site", "label"),
        ("site", "group"),
        ("label",),
        ("group",),
    ):
        counts |= set(Counter(tuple(r[c] for c in columns) for r in rows).values())
    for action, fields in allowed.items():
        for _, reply in world.of(action):
            assert set(reply.body) == fields
            assert not [c for c in (*CANARIES, str(world.root), ".wav") if c.lower() in text(reply)]
            if action != TRAIN:  # its payload holds the update
                assert not counts & set(numbers(dict(reply.body)))
                assert reply.payload == b""


def test_what_stays_at_the_site_is_there(world: World) -> None:
    for site in SITES:
        folder = world.job.site(site).folder
        verdict = own_verdict(folder)
        assert verdict.passed
        assert verdict.clips == 65
        assert (folder / "gate" / "data_docs" / "index.html").is_file()
        own = SiteCalibration.from_dict(json.loads((folder / "calibration.json").read_text()))
        assert (own.n_cries, own.n_noncries) == (6, 7)


def test_the_same_digests_as_by_the_functions_alone(world: World, tmp_path: Path) -> None:
    """What the sites answered, computed anew without stages, messages or folders."""
    manifest = load_manifest(world.manifest)
    table = manifest.table
    codes = parts(assign_folds(table, n_folds=5), test_fold=0, val_fold=1)
    public = table["site"] == ""
    noise = load_noise_bank(table[public], manifest.root, codes[public])
    net, base = load_base(world.job.base_model, world.job.model(), world.job.reasons)
    set_vector(net, load_theta(world.result.theta, adapter_schema(net)))
    answers = {
        action: {reply.body.get("site"): reply.body for _, reply in world.of(action)}
        for action in (GATE, FEATURES, HELLO, CALIBRATE)
    }
    for site in SITES:
        own = table["site"] == site
        rows, part = table[own], codes[own]
        probed = judge_probe(counts_of(rows, part, manifest.root, world.job.reasons))
        verdict = site_verdict(site, rows, measure_site(rows, manifest.root), part, probe=probed)
        assert answers[GATE][site] == {
            "site": site,
            "passed": True,
            "overridden": False,
            "criticals": [],
            "warnings": [f.rule for f in verdict.warnings],
        }
        assert own_verdict(world.job.site(site).folder) == verdict
        frames = extract_site(
            rows, manifest.root, noise, part, world.job.reasons, net.cfg.log_mel, PLAN.vad, PLAN.features
        )
        save_frames(frames, tmp_path / site)
        assert answers[FEATURES][site] == {"site": site, "features": sha256(tmp_path / site)}
        assert answers[HELLO][site]["features"] == answers[FEATURES][site]["features"]
        with one_thread():
            scores = predict(net, frames.select(np.isin(frames.part[frames.clip], (VAL, TEST))))
        fitted = calibrate_site(scores.of_part(VAL), site=site)
        assert fitted.gate_fitted
        assert not fitted.reason_fitted  # 6 cries in validation are too few
        assert answers[CALIBRATE][site] == CalibrationReply.of(fitted).to_body()
        assert CalibrationReply.of(fitted).calibration() == replace(fitted, n_cries=0, n_noncries=0, notes=())
    assert base == world.seen[0][0].header.base


def test_the_pipelines_stages_have_the_sites_keys(world: World) -> None:
    """A site's folder filled by the pipeline is a cache hit for the site's own process, and the other way round."""
    from infra.federation.local.frames import Rendering
    from infra.settings import LimitSettings
    from infra.stages import lookup
    from tasks.corpus import Corpus
    from tasks.features import extractions

    manifest = load_manifest(world.manifest)
    folds = assign_folds(manifest.table, n_folds=5)
    whole = Corpus(manifest, folds, parts(folds, test_fold=0, val_fold=1), synthetic=True)
    config = {
        "log_mel": asdict(world.job.model().log_mel),
        "vad": PLAN.to_dict()["vad"],
        "features": PLAN.to_dict()["features"],
        "reasons": list(world.job.reasons),
    }
    work = extractions(whole, Rendering.from_dict(config), LimitSettings())
    assert set(work) == {*SITES, "public"}
    for site in SITES:
        folder = world.job.site(site).folder
        found = lookup(steps.site_store(folder), "features", work[site].key.digest)
        assert found is not None
        assert found.uri == current(folder).uri


def counts_of(
    rows: pd.DataFrame, part: npt.NDArray[np.int8], root: Path, reasons: tuple[str, ...]
) -> ProbeCounts:
    """The probe on a site's cries outside the test part, from its files."""
    own = rows[(rows["role"] == "cry").to_numpy() & (part != TEST)]
    x = read_statistics([root / p for p in own["path"]], max_seconds=60, max_bytes=10**7)
    y = [reasons.index(label) for label in own["label"]]
    return grouped_probe(x, y, own["group"].to_numpy(str), len(reasons))


def test_a_second_run_computes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_args: Any, **_kwargs: Any) -> None:
        raise AssertionError("computed again")

    for module, name in (
        ("measure", "measure_site"),
        ("probe", "grouped_probe"),
        ("verdict", "site_verdict"),
        ("frames", "extract_site"),
    ):
        monkeypatch.setattr(f"infra.federation.local.{module}.{name}", never)
    monkeypatch.setattr("infra.federation.local.score.predict", never)
    sites = open_sites(world.job, world.root)
    for action in (GATE, FEATURES, CALIBRATE):
        for request, reply in world.of(action):
            name = request.header.site or str(reply.body["site"])
            assert sites[name].handle(request) == reply


def test_a_failing_gate_stops_the_features_and_names_nothing(
    world: World, fresh: Path, tmp_path: Path
) -> None:
    cut = spoil(fresh, "site-1")
    job = local_job(tmp_path / "job", fresh)
    transport, seen = spying(job, tmp_path)
    with pytest.raises(
        FederationError, match=r"site-1: its gate found critical failures \(.*clip-readable"
    ) as err:
        prepare(job, transport)
    assert "site-0" not in str(err.value)
    assert [r.header.action for r, _ in seen] == [GATE, GATE]

    # a server that goes on regardless is refused, and told no more
    site = open_sites(job, tmp_path)["site-1"]
    asked = world.of(FEATURES)[1][0]
    asked = replace(asked, header=replace(asked.header, base=seen[0][0].header.base))
    hello = replace(asked, header=replace(asked.header, action=HELLO, site=""))
    refused = {"GateError": site.handle(asked), "DataError": site.handle(hello)}
    for kind, reply in refused.items():
        assert reply.refused
        assert reply.body["type"] == kind
    for reply in (*refused.values(), *(reply for _, reply in seen)):
        assert not [c for c in (*CANARIES, str(tmp_path)) if c.lower() in text(reply)]
    folder = job.site("site-1").folder
    assert cut in (folder / SITE_LOG).read_text()
    assert own_verdict(folder).unusable == (cut,)


def test_a_new_failure_withdraws_the_old_frames_and_a_reason_of_the_site_overrides(
    world: World, fresh: Path, tmp_path: Path
) -> None:
    data = world.data("site-0", tmp_path / "own", manifest=fresh)
    assert extract(data) == FeaturesReply("site-0", current(data.folder).frames)
    assert extract(data).features == current(world.job.site("site-0").folder).frames
    cut = spoil(fresh, "site-0")
    assert check(data).criticals
    with pytest.raises(DataError, match="no current features"):
        current(data.folder)
    with pytest.raises(GateError, match=cut):
        extract(data)
    with pytest.raises(GateError, match="needs a reason"):
        extract(replace(data, override="  "))

    decided = replace(data, override="kanarienreason: half of it is enough")
    reply = check(decided)
    assert (reply.passed, reply.overridden, reply.released) == (False, True, True)
    assert "kanarien" not in json.dumps(reply.to_body())
    extract(decided)
    assert own_verdict(data.folder).override_reason == decided.override
    frames = load_frames(current(data.folder).file(data.folder))
    assert len(frames.gate) == 64


def test_a_manifest_without_the_site_or_a_plan_without_values_is_refused(
    world: World, tmp_path: Path
) -> None:
    with pytest.raises(ManifestError, match="no clip of site 'site-9', only of site-0, site-1"):
        check(replace(world.data("site-0", tmp_path / "own"), site="site-9"))
    assert not (tmp_path / "own").exists()
    site = open_sites(world.job, world.root)["site-0"]
    request = world.of(GATE)[0][0]
    plan = dict(request.body["data"])
    for says, body in {
        "header names": {"data": {**plan, "split": {"folds": 4, "test_fold": 0, "val_fold": 1}}},
        "every value": {"data": {"split": plan["split"]}},
        "unknown fields: manifest": {"data": {**plan, "manifest": "/etc/passwd"}},
        "out of bounds": {"data": {**plan, "features": {**plan["features"], "train_views": 10**6}}},
        "is not one": {"data": {**plan, "features": {**plan["features"], "train_views": "3"}}},
    }.items():
        pinned = request.header.config if says == "header names" else digest_json(body["data"])
        answer = site.handle(Envelope(replace(request.header, config=pinned), body))
        assert answer.refused
        assert answer.body["type"] == "UpdateRejected"
        assert says in answer.body["message"]


def test_another_sites_rows_have_no_say(world: World, tmp_path: Path) -> None:
    """A manifest with the site's own rows and public noise gives what the federation's gives."""
    own = tmp_path / "manifest.csv"
    rows = [r for r in read_rows(world.manifest) if r["site"] in ("site-0", "")]
    for row in rows:
        target = tmp_path / row["path"]
        target.parent.mkdir(exist_ok=True)
        target.write_bytes((world.manifest.parent / row["path"]).read_bytes())
    write_rows(own, rows)
    reply = extract(world.data("site-0", tmp_path / "own", manifest=own))
    assert reply.features == world.of(FEATURES)[0][1].body["features"]
