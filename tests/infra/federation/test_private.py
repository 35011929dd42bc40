"""A site's own privacy inside the federation: noise before anything leaves, paid for once, refused when the budget is spent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infra.federation.files import encode_arrays
from infra.federation.job import FederationJob, SiteSpec
from infra.federation.messages import TRAIN, Envelope
from infra.federation.private import LEDGER, Privacy
from infra.federation.rounds import federate
from infra.federation.site import open_site
from infra.federation.transport import Handler, LocalTransport
from models.errors import ConfigError, FederationError
from models.network import CryNet
from models.state import to_arrays
from tests.infra.federation.world import REASONS, make_job, write_features

PRIVACY: dict[str, Any] = {
    "noise_multiplier": 1.0, "clip": 1.0, "infants_per_step": 6, "frames_per_infant": 4, "delta": 1e-3, "epsilon": 8.0,
}  # fmt: skip


def private_job(root: Path, **changes: Any) -> FederationJob:
    job = make_job(root, sites=3, rounds=2)
    specs = []
    for spec in job.sites:
        write_features(root / spec.name / "many.safetensors", site=spec.name, clips=90, frames_per_clip=2)
        fields = {**spec.model_dump(), "features": root / spec.name / "many.safetensors"}
        specs.append(SiteSpec(**{**fields, "privacy": {**PRIVACY, **changes}}))
    (root / "base.safetensors").write_bytes(encode_arrays(to_arrays(CryNet(job.model(), REASONS, seed=1))))
    return job.model_copy(update={"sites": tuple(specs)})


def handlers_of(job: FederationJob, folder: Path) -> dict[str, Handler]:
    path = folder / "local-job.json"
    job.save(path)
    return {name: open_site(str(path), name).handle for name in job.site_names}


def entries(job: FederationJob, site: int) -> list[dict[str, Any]]:
    text = (job.sites[site].folder / LEDGER).read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_every_round_is_paid_for_before_it_leaves(tmp_path: Path) -> None:
    job = private_job(tmp_path)
    federate(job, LocalTransport(handlers_of(job, tmp_path)))
    found = entries(job, 0)
    assert [(e["entry"], e["round"]) for e in found] == [
        ("charge", 1),
        ("update", 1),
        ("charge", 2),
        ("update", 2),
    ]
    assert {e["steps"] for e in found if e["entry"] == "charge"} == {2}
    assert found[0]["sampling_rate"] == pytest.approx(
        6 / 60
    )  # 60 of the 90 clips, each its own infant, are for training
    privacy = Privacy.from_dict(PRIVACY)
    assert 0 < privacy.ledger(job.sites[0].folder).spent() < 8


def test_the_same_request_again_is_answered_from_disk_and_costs_nothing(tmp_path: Path) -> None:
    job = private_job(tmp_path)
    handlers = handlers_of(job, tmp_path)
    seen: list[tuple[Envelope, Envelope]] = []

    def twice(request: Envelope) -> Envelope:
        answer = handlers["site1"](request)
        if request.header.action == TRAIN and request.header.round == 1:
            seen.append((answer, handlers["site1"](request)))
        return answer

    federate(job, LocalTransport({**handlers, "site1": twice}))
    first, second = seen[0]
    assert first == second
    assert sum(e["entry"] == "charge" for e in entries(job, 1)) == 2


def test_noise_is_fresh_in_every_run(tmp_path: Path) -> None:
    digests = []
    for name in ("one", "two"):
        job = private_job(tmp_path / name)
        digests.append(federate(job, LocalTransport(handlers_of(job, tmp_path / name))).theta_digest)
    assert digests[0] != digests[1]


def test_a_spent_budget_keeps_the_site_out_and_trains_nothing(tmp_path: Path) -> None:
    job = private_job(tmp_path, epsilon=0.05)
    with pytest.raises(FederationError, match=r"its budget is 0\.05"):
        federate(job, LocalTransport(handlers_of(job, tmp_path)))
    assert not (job.sites[0].folder / LEDGER).is_file() or entries(job, 0) == []


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"epsilon": 0}, "epsilon > 0"),
        ({"sigma": 1}, "sigma"),
        ({"delta": 2.0}, "delta"),
        ({"clip": -1.0}, "clip"),
    ],
)
def test_wrong_settings_are_named(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Privacy.from_dict({**PRIVACY, **changed})
    with pytest.raises(ConfigError, match="needs `epsilon`"):
        Privacy.from_dict({k: v for k, v in PRIVACY.items() if k != "epsilon"})
