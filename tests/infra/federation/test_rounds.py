"""The round loop over sites in this process, honest and hostile."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from infra.digest import digest_bytes
from infra.federation.base import load_base
from infra.federation.identity import load_identity, verification_key
from infra.federation.job import FederationJob
from infra.federation.messages import HELLO, SITE_LOG, TRAIN, Envelope
from infra.federation.results import FederationResult, load_theta
from infra.federation.rounds import federate
from infra.federation.site import Site, open_site
from infra.federation.tokens import features_digest, load_site_tokens
from infra.federation.transport import Handler, LocalTransport, Lost, Outcome
from models.adapters import adapter_schema, set_vector
from models.errors import ConfigError, FederationError, UpdateRejected
from models.plain_loop import Algorithm, run_rounds
from models.ring import packed_bytes, ring_bits
from models.rotation import padded_size
from tests.infra.federation.world import REASONS, local_transport, make_job


def _handlers(job: FederationJob, folder: Path) -> dict[str, Handler]:
    path = folder / "local-job.json"
    job.save(path)
    return {name: open_site(str(path), name).handle for name in job.site_names}


def _history(result: FederationResult) -> dict:
    return json.loads(result.history.read_text())


PLAIN: dict[str, object] = {"codec": None, "control_variates": False, "secure": False}
OPEN: dict[str, object] = {"secure": False}


@pytest.mark.parametrize(
    "how", [PLAIN, OPEN, {}, {"codec": {"bits": 4}}], ids=["float32", "open", "masked", "4 bits"]
)
def test_equals_the_plain_loop_bit_for_bit(tmp_path: Path, how: dict) -> None:
    job = make_job(tmp_path, sites=4, participation=0.75, **how)
    job = job.model_copy(update={"sites": (*job.sites[:3], job.sites[3].model_copy(update={"steps": 3}))})
    result = federate(job, local_transport(job, tmp_path))
    net, base = load_base(job.base_model, job.model(), job.reasons)
    tokens = {
        s.name: load_site_tokens(s.features, s.folder, net, base, features_digest(s.features)).train
        for s in job.sites
    }
    theta = run_rounds(
        net,
        tokens,
        rounds=job.rounds,
        local=job.local_config(),
        server=job.server_config(),
        algorithm=Algorithm(job.control_variates, job.plan().codec, 0.75, {"site3": 3}),
        seed=job.seed,
    )
    assert result.theta_digest == digest_bytes(theta.tobytes())
    np.testing.assert_array_equal(load_theta(result.theta, adapter_schema(net)), theta)


def test_history_holds_every_round_and_its_bytes(tmp_path: Path) -> None:
    job = make_job(tmp_path, rounds=3, eval_every=2)
    events: list[dict] = []
    result = federate(job, local_transport(job, tmp_path), lambda e: events.append(dict(e)))
    history = _history(result)
    net, _ = load_base(job.base_model, job.model(), job.reasons)
    size = adapter_schema(net).size
    ring = packed_bytes(padded_size(size), ring_bits(254, 3))
    assert [r["round"] for r in history["rounds"]] == [1, 2, 3]
    assert [r["validation"] is not None for r in history["rounds"]] == [False, True, True]
    for record in history["rounds"]:
        assert record["survivors"] == record["counted"] == ["site0", "site1", "site2"]
        assert record["failures"] == {}
        assert record["alarms"] == []
        assert set(record["stages"]) == {"keys", "share", "train", "confirm", "unmask"}
        assert all(ring < n < ring + 6000 for n in record["bytes_up"].values())
        assert all(8 * size < n < 8 * size + 12000 for n in record["bytes_down"].values())
        for direction in ("up", "down"):
            total = sum(stage[direction] for stage in record["stages"].values())
            assert total == sum(record[f"bytes_{direction}"].values())
        assert set(record["losses"]) == {"total", "gate", "reason", "energy"}
    # 12 clips a site, 4 of them validation (2 cries, 2 not), 3 sites
    assert np.sum(history["rounds"][1]["validation"]["gate_confusion"]) == 12
    assert np.sum(history["rounds"][1]["validation"]["reason_confusion"]) == 6
    assert history["rounds"][-1]["theta"] == history["theta"] == result.theta_digest
    assert [e["event"] for e in events] == ["start", "round", "round", "round", "closing", "done"]
    assert len(json.loads(result.timings.read_text())["rounds"]) == 3


def test_the_same_job_elsewhere_gives_the_same_files(tmp_path: Path) -> None:
    results = []
    for name in ("one", "two"):
        job = make_job(tmp_path / name, participation=0.67, server={"optimiser": "adam", "lr": 0.01})
        results.append(federate(job, local_transport(job, tmp_path / name)))
    assert results[0].theta.read_bytes() == results[1].theta.read_bytes()
    assert results[0].history.read_bytes() == results[1].history.read_bytes()


CUT: dict[str, object] = {"rounds": 3, "server": {"optimiser": "momentum"}}
STOPS = [
    (2, "keys", "site2"), (2, "share", "site2"), (2, "train", "site0"), (2, "train", "site2"),
    (2, "confirm", "site2"), (2, "unmask", "site0"), (2, "unmask", "site2"), (4, "keys", "site2"), (4, "unmask", "site2"),
]  # fmt: skip


@pytest.fixture(scope="module")
def uncut(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes]:
    """Digest and history of a run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("uncut")
    job = make_job(folder, **CUT)
    result = federate(job, local_transport(job, folder))
    return result.theta_digest, result.history.read_bytes()


@pytest.mark.parametrize(("number", "action", "site"), STOPS)
def test_a_stopped_run_resumes_to_the_same_files(
    tmp_path: Path, uncut: tuple[str, bytes], number: int, action: str, site: str
) -> None:
    """Stopped while the sites before `site` have answered a stage and the others have not; round 4 is the closing of 3."""
    job = make_job(tmp_path, **CUT)
    handlers = _handlers(job, tmp_path)

    def dies(request: Envelope) -> Envelope:
        if (request.header.round, request.header.action) == (number, action):
            raise KeyboardInterrupt
        return handlers[site](request)

    with pytest.raises(KeyboardInterrupt):
        federate(job, LocalTransport({**handlers, site: dies}))
    events: list[dict] = []
    result = federate(job, LocalTransport(handlers), lambda e: events.append(dict(e)))
    assert events[0]["resumed_at"] == number - 1
    assert (result.theta_digest, result.history.read_bytes()) == uncut
    assert list(job.checkpoint_dir.glob("*.bin")) == []
    # a finished job computes nothing again
    events.clear()
    federate(job, LocalTransport(handlers), lambda e: events.append(dict(e)))
    assert [e["event"] for e in events] == ["start", "done"]


def _poke(data: bytes, value: float) -> bytes:
    return data[:48] + struct.pack("<f", value) + data[52:]


HOSTILE: dict[str, tuple[Callable[[Envelope], Envelope], str]] = {
    "nan": (lambda e: replace(e, payload=_poke(e.payload, float("nan"))), "not finite"),
    "inf": (lambda e: replace(e, payload=_poke(e.payload, float("inf"))), "not finite"),
    "short": (lambda e: replace(e, payload=e.payload[:-4]), "bytes instead of"),
    "empty": (lambda e: replace(e, payload=b""), "bytes instead of"),
    "long": (lambda e: replace(e, payload=e.payload + bytes(4)), "more than"),
    "schema": (lambda e: replace(e, payload=e.payload[:8] + bytes(32) + e.payload[40:]), "schema"),
    "stale": (lambda e: replace(e, header=replace(e.header, round=e.header.round - 1)), "round"),
    "impostor": (lambda e: replace(e, header=replace(e.header, site="site0")), "site"),
    "other base": (lambda e: replace(e, header=replace(e.header, base="0" * 64)), "base"),
    "counts": (lambda e: replace(e, payload=e.payload[:-4] + b"\xff" * 4), "more than 1 sites can"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_malformed_update_is_left_out_and_named(tmp_path: Path, kind: str) -> None:
    change, says = HOSTILE[kind]
    job = make_job(tmp_path, rounds=1, min_sites=2, **PLAIN)
    handlers = _handlers(job, tmp_path)

    def hostile(request: Envelope) -> Envelope:
        answer = handlers["site1"](request)
        return change(answer) if request.header.action == TRAIN else answer

    result = federate(job, LocalTransport({**handlers, "site1": hostile}))
    record = _history(result)["rounds"][0]
    assert record["survivors"] == ["site0", "site2"]
    assert record["failures"]["site1"]["kind"] == "rejected"
    assert says in record["failures"]["site1"]["reason"]
    # what is left is the honest average of the two others
    honest = make_job(tmp_path / "honest", rounds=1, **PLAIN)
    honest = honest.model_copy(update={"sites": (honest.sites[0], honest.sites[2])})
    expected = federate(honest, local_transport(honest, tmp_path / "honest"))
    assert result.theta_digest == expected.theta_digest


def test_too_few_updates_stop_the_job_and_it_resumes(tmp_path: Path) -> None:
    job = make_job(tmp_path, rounds=2, min_sites=3, retries=0, **OPEN)
    handlers = _handlers(job, tmp_path)

    def refuses(request: Envelope) -> Envelope:
        if request.header.action == TRAIN and request.header.round == 2:
            return handlers["site2"](replace(request, payload=b""))
        return handlers["site2"](request)

    with pytest.raises(
        FederationError, match=r"round 2: 2 of 3 sites delivered[\s\S]*site2: refused: UpdateRejected"
    ):
        federate(job, LocalTransport({**handlers, "site2": refuses}))
    assert not job.out_dir.exists()
    events: list[dict] = []
    federate(job, LocalTransport(handlers), lambda e: events.append(dict(e)))
    assert events[0]["resumed_at"] == 1


class _Flaky(LocalTransport):
    """Loses a site's answers a given number of times a round."""

    def __init__(self, handlers: dict[str, Handler], site: str, times: int) -> None:
        super().__init__(handlers)
        self._site, self._times = site, times
        self._lost: Counter[tuple[int, str]] = Counter()

    def exchange(self, requests, *, max_payload, timeout_s):  # type: ignore[no-untyped-def]
        outcomes: dict[str, Outcome] = dict(
            super().exchange(requests, max_payload=max_payload, timeout_s=timeout_s)
        )
        for request in requests:
            exchange = (request.header.round, request.header.action)
            if request.header.site == self._site and self._lost[exchange] < self._times:
                self._lost[exchange] += 1
                outcomes[self._site] = Lost("its process died")
        return outcomes


def test_a_lost_site_is_asked_again_and_changes_nothing(tmp_path: Path) -> None:
    steady = make_job(tmp_path / "steady")
    expected = federate(steady, local_transport(steady, tmp_path / "steady"))
    job = make_job(tmp_path / "flaky", retries=2)
    result = federate(job, _Flaky(_handlers(job, tmp_path / "flaky"), "site1", 2))
    assert result.theta_digest == expected.theta_digest
    assert result.history.read_bytes() == expected.history.read_bytes()
    assert all(r["repeats"] == 2 * 5 for r in json.loads(result.timings.read_text())["rounds"])


def test_a_site_that_stays_lost_is_left_out(tmp_path: Path) -> None:
    job = make_job(tmp_path, rounds=1, retries=1, **OPEN)
    result = federate(job, _Flaky(_handlers(job, tmp_path), "site1", 9))
    record = _history(result)["rounds"][0]
    assert record["survivors"] == ["site0", "site2"]
    assert record["failures"] == {"site1": {"kind": "lost", "reason": "its process died"}}
    assert record["validation"]["sites"] == 2


def test_a_site_with_another_base_model_keeps_the_federation_from_starting(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    handlers = _handlers(job, tmp_path)
    net, _ = load_base(job.base_model, job.model(), job.reasons)
    handlers["site2"] = Site(job.site("site2"), net, "0" * 64).handle
    with pytest.raises(
        FederationError, match=r"cannot start[\s\S]*site2: UpdateRejected: .*another base model"
    ):
        federate(job, LocalTransport(handlers))
    assert not job.checkpoint_dir.exists()


def test_a_broken_site_is_named_and_keeps_its_reason_to_itself(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    job.sites[1].features.write_bytes(b"half a file")
    with pytest.raises(FederationError, match=r"site1: DataError: the reason stays at the site") as err:
        federate(job, local_transport(job, tmp_path))
    assert str(tmp_path) not in str(err.value)
    assert "cannot read the site's features" in (job.sites[1].folder / SITE_LOG).read_text()
    assert not job.checkpoint_dir.exists()
    assert not job.out_dir.exists()


def test_changed_features_do_not_resume_another_jobs_rounds(tmp_path: Path) -> None:
    job = make_job(tmp_path, rounds=1)
    federate(job, local_transport(job, tmp_path))
    path = job.sites[0].features
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(FederationError, match="rounds of another job"):
        federate(job, local_transport(job, tmp_path))


def test_a_site_refuses_what_is_not_for_it(tmp_path: Path) -> None:
    job = make_job(tmp_path, sites=1, rounds=1)
    seen: list[Envelope] = []
    handler = _handlers(job, tmp_path)["site0"]

    def spy(request: Envelope) -> Envelope:
        seen.append(request)
        return handler(request)

    federate(job, LocalTransport({"site0": spy}))
    train = next(e for e in seen if e.header.action == TRAIN)
    assert handler(train) == handler(train)  # equal requests, equal bytes
    wrong = {
        "reached site": replace(train, header=replace(train.header, site="site9")),
        "layout": replace(train, header=replace(train.header, schema="0" * 64)),
        "base model": replace(train, header=replace(train.header, base="0" * 64)),
        "protocol": replace(train, header=replace(train.header, protocol=3)),
        "action": replace(train, header=replace(train.header, action="erase")),
        "not entered": replace(train, header=replace(train.header, action="unmask")),
        "not by a SHA-256": replace(train, header=replace(train.header, run="../../etc")),
        "configuration": replace(train, body={**train.body, "plan": {"steps": 99}}),
        "seed": replace(train, body={"plan": train.body["plan"]}),
        "not finite": replace(train, payload=_poke(train.payload, float("nan"))),
        "shorter": replace(train, payload=b"x"),
    }
    for says, request in wrong.items():
        answer = handler(request)
        assert answer.refused, says
        assert says in answer.body["message"]
        assert answer.header == request.header


def test_base_model_of_another_shape_is_a_clear_error(tmp_path: Path) -> None:
    job = make_job(tmp_path).model_copy(update={"reasons": (*REASONS, "discomfort")})
    with pytest.raises(ConfigError, match="weights do not fit"):
        federate(job, LocalTransport({}))


def test_theta_file_of_another_network_is_refused(tmp_path: Path) -> None:
    job = make_job(tmp_path, rounds=1)
    result = federate(job, local_transport(job, tmp_path))
    net, _ = load_base(job.base_model, job.model(), job.reasons)
    set_vector(net, load_theta(result.theta, adapter_schema(net)))
    net.cfg = replace(net.cfg, freeze_a=True)
    with pytest.raises(FederationError, match="schema"):
        load_theta(result.theta, adapter_schema(net))


def test_hello_names_the_features(tmp_path: Path) -> None:
    job = make_job(tmp_path, sites=1)
    seen: list[Envelope] = []
    handler = _handlers(job, tmp_path)["site0"]

    def spy(request: Envelope) -> Envelope:
        seen.append(handler(request))
        return seen[-1]

    federate(job, LocalTransport({"site0": spy}))
    hello = next(e for e in seen if e.header.action == HELLO)
    key = verification_key(load_identity(job.sites[0].folder)).hex()
    assert hello.body == {
        "site": "site0",
        "features": features_digest(job.sites[0].features),
        "identity": key,
    }
    assert issubclass(UpdateRejected, FederationError)
