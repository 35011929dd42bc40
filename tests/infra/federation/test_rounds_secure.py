"""Rounds under masks, with sites that drop out, lie, forget, or vote."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.federation.job import FederationJob
from infra.federation.messages import CONFIRM, KEYS, SHARE, TRAIN, UNMASK, Envelope
from infra.federation.results import FederationResult
from infra.federation.rounds import federate
from infra.federation.site import open_site
from infra.federation.site_state import SiteStore
from infra.federation.transport import Handler, LocalTransport
from models.errors import FederationError
from models.seeds import derive_seed
from tests.infra.federation.world import local_transport, make_job


def handlers_of(job: FederationJob, folder: Path) -> dict[str, Handler]:
    path = folder / "local-job.json"
    job.save(path)
    return {name: open_site(str(path), name).handle for name in job.site_names}


def rounds_of(result: FederationResult) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(result.history.read_text())["rounds"]
    return found


def silent(handler: Handler, when: Callable[[Envelope], bool]) -> Handler:
    """A site that refuses some messages, as one that went away would."""

    def answer(request: Envelope) -> Envelope:
        return handler(replace(request, payload=b"\x00") if when(request) else request)

    return answer


@pytest.mark.parametrize("stage", [KEYS, SHARE, TRAIN, CONFIRM, UNMASK])
def test_a_site_that_leaves_at_any_stage_costs_its_update_at_most(tmp_path: Path, stage: str) -> None:
    """Of 5 sites one leaves. Before its masked vector arrived it is not counted, later it is; the sum is exact in both cases."""
    job = make_job(tmp_path / "a", sites=5, rounds=1, threshold=4)
    handlers = handlers_of(job, tmp_path / "a")
    handlers["site3"] = silent(handlers["site3"], lambda r: r.header.action == stage and r.header.round == 1)
    result = federate(job, LocalTransport(handlers))
    (record,) = rounds_of(result)
    counted = (
        [n for n in job.site_names if n != "site3"] if stage in (KEYS, SHARE, TRAIN) else list(job.site_names)
    )
    assert record["counted"] == counted
    assert record["failures"]["site3"]["stage"] == stage
    plain = make_job(tmp_path / "b", sites=5, rounds=1, secure=False, min_sites=4)
    others = handlers_of(plain, tmp_path / "b")
    others["site3"] = silent(others["site3"], lambda r: r.header.action == TRAIN and len(counted) == 4)
    assert federate(plain, LocalTransport(others)).theta_digest == result.theta_digest


def test_too_few_before_anything_was_masked_stop_the_job_and_it_resumes_with_fresh_keys(
    tmp_path: Path,
) -> None:
    job = make_job(tmp_path, sites=5, rounds=2, threshold=4, retries=0)
    handlers = handlers_of(job, tmp_path)
    gone = {
        n: silent(handlers[n], lambda r: r.header.round == 2 and r.header.action == SHARE)
        for n in ("site1", "site4")
    }
    with pytest.raises(FederationError, match=r"4 are needed[\s\S]*fresh keys[\s\S]*site1, share: refused"):
        federate(job, LocalTransport({**handlers, **gone}))
    events: list[dict] = []
    result = federate(job, LocalTransport(handlers), lambda e: events.append(dict(e)))
    assert events[0]["resumed_at"] == 1
    assert len(rounds_of(result)[1]["counted"]) == 5


@pytest.mark.parametrize("stage", [TRAIN, CONFIRM, UNMASK])
def test_too_few_after_vectors_were_masked_skip_the_round(tmp_path: Path, stage: str) -> None:
    """A second sum of the round could reveal an update: its θ stays what it was, and the next round is as good as ever."""
    job = make_job(tmp_path, sites=5, rounds=2, threshold=4, retries=0)
    handlers = handlers_of(job, tmp_path)
    for name in ("site1", "site4"):
        handlers[name] = silent(handlers[name], lambda r: r.header.round == 1 and r.header.action == stage)
    first, second = rounds_of(federate(job, LocalTransport(handlers)))
    assert "skip the round" in first["skipped"]
    assert first["counted"] == []
    assert second["skipped"] is None
    assert len(second["counted"]) == 5
    assert first["theta"] != second["theta"]


def test_rounds_that_bring_nothing_end_in_an_error(tmp_path: Path) -> None:
    job = make_job(tmp_path, sites=3, rounds=9, retries=0)
    handlers = handlers_of(job, tmp_path)
    handlers["site1"] = silent(handlers["site1"], lambda r: r.header.action == CONFIRM)
    with pytest.raises(FederationError, match="3 rounds in a row brought nothing"):
        federate(job, LocalTransport(handlers))


def test_c_is_the_mean_of_all_variates_over_30_rounds_of_drop_outs(tmp_path: Path) -> None:
    """Sites vanish at random stages; c of the server's state stays the mean of what the sites have committed or will."""
    job = make_job(
        tmp_path,
        sites=5,
        rounds=30,
        threshold=4,
        retries=0,
        eval_every=0,
        local={"steps": 1, "batch_size": 4},
    )
    handlers = handlers_of(job, tmp_path)
    stages = (KEYS, SHARE, TRAIN, CONFIRM, UNMASK)

    def drops(name: str) -> Callable[[Envelope], bool]:
        def when(request: Envelope) -> bool:
            number = request.header.round
            victim = derive_seed("drop", number) % 7  # two numbers of seven spare everybody
            stage = stages[derive_seed("stage", number) % 5]
            return name == f"site{victim}" and request.header.action == stage

        return when

    wrapped = {n: silent(h, drops(n)) for n, h in handlers.items()}
    result = federate(job, LocalTransport(wrapped))
    records = rounds_of(result)
    assert sum(len(r["counted"]) < 5 for r in records) > 5
    state = load_state(job, 30)
    size = state["theta"].size
    own = []
    for spec in job.sites:
        (folder,) = (spec.folder / "runs").iterdir()
        found = SiteStore(spec.folder, folder.name).load(size)
        last = max((r["round"] for r in records if spec.name in r["counted"]), default=0)
        own.append(found.settle(0, last, spec.name).own)
    np.testing.assert_allclose(state["control"], np.mean(own, axis=0), atol=1e-12, rtol=0)
    assert np.linalg.norm(state["control"]) > 1e-3


def load_state(job: FederationJob, number: int) -> dict[str, np.ndarray]:
    from infra.federation.files import decode_arrays

    path = job.checkpoint_dir / f"state-{number:06d}.safetensors"
    return decode_arrays(path.read_bytes(), str(path))


def test_a_lost_variate_begins_a_new_epoch(tmp_path: Path) -> None:
    job = make_job(tmp_path, sites=3, rounds=4)
    handlers = handlers_of(job, tmp_path)
    folder = job.sites[1].folder / "runs"

    def forgets(request: Envelope) -> Envelope:
        if request.header.round == 3 and request.header.action == KEYS and request.header.cv_epoch == 0:
            shutil.rmtree(folder)
        return handlers["site1"](request)

    records = rounds_of(federate(job, LocalTransport({**handlers, "site1": forgets})))
    assert [r["epoch"] for r in records] == [0, 0, 1, 1]
    (alarm,) = records[2]["alarms"]
    assert alarm["kind"] == "variates"
    assert "site1" in alarm["what"]
    assert all(len(r["counted"]) == 3 for r in records)


def test_a_round_that_breaks_the_model_is_voted_down_and_taken_back(tmp_path: Path) -> None:
    """A server step 400 times too large in round 2: the sites' validation losses rise, and round 3 goes back to θ of round 1."""
    job = make_job(tmp_path, sites=3, rounds=4)
    handlers = handlers_of(job, tmp_path)
    broken = make_job(tmp_path, sites=3, rounds=4)
    import infra.federation.rounds as module

    honest = module.server_step

    def breaks(state: Any, total: Any, cfg: Any, **how: Any) -> Any:
        after = honest(state, total, cfg, **how)
        if state.rounds == 1:
            return replace(after, theta=(after.theta + 400 * (after.theta - state.theta)).astype(np.float32))
        return after

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "server_step", breaks)
        records = rounds_of(federate(broken, LocalTransport(handlers)))
    assert records[2]["rolled_back"] == 2
    assert records[2]["theta"] == records[0]["theta"]
    assert records[2]["counted"] == []
    assert [r["epoch"] for r in records] == [0, 0, 1, 1]
    assert [a["kind"] for a in records[2]["alarms"]] == ["votes"]
    assert records[3]["skipped"] is None


def test_a_sum_that_no_clipped_updates_give_is_left_out(tmp_path: Path) -> None:
    """A site that does not clip sends the largest levels there are: in range, invisible singly, and 4.5 times too long."""
    job = make_job(tmp_path, sites=3, rounds=1, secure=False)
    handlers = handlers_of(job, tmp_path)

    def greedy(handler: Handler) -> Handler:
        def answer(request: Envelope) -> Envelope:
            reply = handler(request)
            if request.header.action != TRAIN or request.header.round != 1:
                return reply
            words = 4 * (3 + 4 + 4 + 9)
            return replace(reply, payload=b"\xfe" * (len(reply.payload) - words) + reply.payload[-words:])

        return answer

    (record,) = rounds_of(federate(job, LocalTransport({n: greedy(h) for n, h in handlers.items()})))
    assert record["counted"] == []
    assert [a["kind"] for a in record["alarms"]] == ["sum too large"]
    assert record["update_norm"] > 2 * record["norm_bound"]


def test_a_pinned_identity_is_the_only_one(tmp_path: Path) -> None:
    job = make_job(tmp_path, sites=3, rounds=1)
    specs = (job.sites[0], job.sites[1].model_copy(update={"identity": "ab" * 32}), job.sites[2])
    with pytest.raises(
        FederationError, match=r"site1: the site's identity key is not the one that the job pins"
    ):
        federate(job.model_copy(update={"sites": specs}), local_transport(job, tmp_path))


def test_a_site_that_wants_masks_sends_nothing_without(tmp_path: Path) -> None:
    job = make_job(tmp_path, sites=3, rounds=1, secure=False, min_sites=3)
    shy = job.model_copy(
        update={"sites": (job.sites[0], job.sites[1].model_copy(update={"secure_only": True}), job.sites[2])}
    )
    with pytest.raises(
        FederationError, match="site1: refused: FederationError: site 'site1' sends nothing unmasked"
    ):
        federate(shy, local_transport(shy, tmp_path))


def test_a_context_for_other_sums_is_refused(tmp_path: Path) -> None:
    """What the server may ask a site to mask is what the plan says: not a wider ring, another clip, another cohort."""
    job = make_job(tmp_path, sites=3, rounds=1)
    handlers = handlers_of(job, tmp_path)
    seen: list[Envelope] = []

    def spy(request: Envelope) -> Envelope:
        seen.append(request)
        return handlers["site0"](request)

    federate(job, LocalTransport({**handlers, "site0": spy}))
    request = next(e for e in seen if e.header.action == KEYS)
    context = json.loads(request.payload)

    def asked(**changed: Any) -> Envelope:
        raw = json.dumps({**context, **changed}, sort_keys=True, separators=(",", ":")).encode()
        return handlers["site0"](replace(request, payload=raw))

    stranger = [*context["cohort"][:2], {"name": "eve", "key": "cd" * 32}]
    for changed, says in (
        ({"sections": [{"length": 10, "bits": 32}]}, "other sums than the plan"),
        ({"clip": 2.0}, "other sums than the plan"),
        ({"round": 7}, "another round or configuration"),
        ({"cohort": stranger}, "'eve'"),
    ):
        answer = asked(**changed)
        assert answer.refused, says
        assert says in answer.body["message"]


def test_the_same_job_from_the_start_is_another_run(tmp_path: Path) -> None:
    """Without its checkpoints a job begins again, and the sites, which remember the first run, take part in the second."""
    job = make_job(tmp_path, sites=3, rounds=2)
    first = federate(job, local_transport(job, tmp_path))
    shutil.rmtree(job.checkpoint_dir)
    again = federate(job, local_transport(job, tmp_path))
    assert again.theta_digest == first.theta_digest
    assert len(list((job.sites[0].folder / "runs").iterdir())) == 2


def test_a_threshold_that_would_let_two_sums_through_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must lie in 4\.\.5"):
        make_job(tmp_path, sites=5, threshold=3)


def test_a_site_masks_for_no_smaller_cohort_than_it_wants(tmp_path: Path) -> None:
    job = make_job(tmp_path, sites=3, rounds=1)
    shy = (job.sites[0], job.sites[1].model_copy(update={"smallest_cohort": 4}), job.sites[2])
    job = job.model_copy(update={"sites": shy})
    with pytest.raises(FederationError, match="takes part from 4 on"):
        federate(job, local_transport(job, tmp_path))
