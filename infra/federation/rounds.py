"""The round loop: our own, over any transport, resumable, and bit-identical over all of them.

    hello      every site names its features by digest; the job's digest follows, and the journal is opened under it per round
    `open` is journalled → θ and c go out → the sites' updates and tallies come back as sums, in the open or under masks →
               the sites' votes on the θ they got → norm check → server step → state and `closed` are journalled
    end        a closing exchange tallies the last θ; theta.safetensors, history.json (deterministic), timings.json

A site that refuses, or whose update is malformed, is left out of the round and named in the history; one whose process died is
asked again, and answers the same. Of losses and tallies the server sees sums over sites only. A round that more than half of the
sites vote against is taken back, and a site that has lost its control variate begins a new epoch for all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from infra.digest import digest_bytes
from infra.federation.alarms import find_alarms
from infra.federation.base import load_base
from infra.federation.collect import Collected, Collector, Layout, OpenCollector, Request
from infra.federation.exchange import Exchange
from infra.federation.hello import introduce
from infra.federation.job import FederationJob
from infra.federation.journal import ClosedRound, Journal
from infra.federation.messages import HELLO, Header
from infra.federation.results import FederationResult, write_results
from infra.federation.secure_collect import SecureCollector
from infra.federation.tally import rejected_by_vote
from infra.federation.training import RoundOrder
from infra.federation.transport import Transport
from models.adapters import AdapterSchema, Vector, adapter_schema, get_vector
from models.codec import Float32Codec
from models.control_variates import as_sent
from models.errors import FederationError, RoundSkipped, VariatesOutOfStep
from models.quantise import Quantiser, next_clip, norm_bound
from models.seeds import local_seed, participants, rotation_seed
from models.server_step import RoundSum, ServerState, server_step

Emit = Callable[[Mapping[str, Any]], None]

_MAX_FRUITLESS = 3  # rounds in a row that bring nothing: skipped, or taken back


def federate(job: FederationJob, transport: Transport, emit: Emit = lambda _event: None) -> FederationResult:
    """Run (or resume) a job to its end.

    Args:
        job: the job; its checkpoint folder decides where it resumes.
        transport: reaches every site of the job.
        emit: told about the start, every round, and the end, as JSON-ready maps.

    Raises:
        FederationError: a site cannot take part, a round has too few accepted updates, or several rounds in a row bring nothing.
        IntegrityError: the checkpoint is not what the journal recorded.
        OutputError: checkpoints or results cannot be written.
    """
    net, base = load_base(job.base_model, job.model(), job.reasons)
    plan = job.plan()
    schema, theta = adapter_schema(net, plan.trained), get_vector(net, plan.trained)
    del net
    header = Header(HELLO, "", "", 0, 0, schema.digest, base, plan.digest)
    introduced = introduce(job, transport, header, schema.size)
    digest = job.content_digest(base, introduced.features)
    layout = Layout(schema, plan, len(job.reasons))
    with Journal(job.checkpoint_dir, digest) as journal:
        # the sites' keys, variates and promises belong to one run: the same job from the start is another
        exchange = Exchange(
            transport, replace(header, run=journal.run), job.retries, job.timeout_s, max_payload=0
        )
        collector: Collector = OpenCollector(exchange, layout)
        if plan.secure:
            collector = SecureCollector(exchange, layout, introduced.identities, job.threshold, journal)
        first = ServerState.initial(theta, plan.codec.clip if plan.codec else 1.0)
        loop = _Loop(job, schema, collector, journal, first)
        done = len(journal.closed)
        emit(
            {
                "event": "start",
                "job": digest,
                "sites": len(job.sites),
                "rounds": job.rounds,
                "resumed_at": done,
                "secure": plan.secure,
            }
        )
        for number in range(done + 1, job.rounds + 1):
            emit(_event(journal, job, loop.run(number)))
        if job.evaluates(job.rounds) and journal.closing is None:
            loop.close()
            emit({"event": "closing", **(journal.closing or {})})
        result = write_results(job, digest, schema.digest, loop.state.theta, loop.before_last(), journal)
    emit({"event": "done", **result.to_dict()})
    return result


@dataclass(frozen=True)
class _Taken:
    """What became of a round's sums: the state after it, whose updates are in it, and what the record says of it."""

    state: ServerState
    counted: tuple[str, ...]
    record: dict[str, Any]


class _Loop:
    """The rounds of one job: the server's state, moved on by what the collector brings."""

    def __init__(
        self,
        job: FederationJob,
        schema: AdapterSchema,
        collector: Collector,
        journal: Journal,
        first: ServerState,
    ) -> None:
        self._job, self._plan, self._schema = job, job.plan(), schema
        self._codec = Float32Codec(schema)  # of θ and c on their way down
        self._collector, self._journal, self._first = collector, journal, first
        arrays = journal.last_state()
        self.state = first if arrays is None else ServerState.from_arrays(arrays)

    def run(self, number: int) -> ClosedRound:
        """One round, from `open` to its closed record."""
        started = time.monotonic()
        closed = self._journal.closed
        before = int(closed[-1].record["epoch"]) if closed else 0
        epoch, attempt = self._journal.epoch, self._next_attempt(number)
        lost: list[str] = []
        while True:
            state = self.state if epoch == before else self.state.without_control()
            request = self._request(state, number, epoch, attempt)
            self._open(request, state)
            try:
                collected = self._collector.collect(request)
                taken = self._take(state, request, collected)
                break
            except VariatesOutOfStep as err:
                if lost:
                    raise
                lost.append(str(err))
                epoch, attempt = epoch + 1, attempt + 1
            except RoundSkipped as err:
                collected = Collected.nothing(len(self._job.reasons), str(err))
                taken = _Taken(state, (), {"skipped": str(err)})
                break
        record: dict[str, Any] = {
            "round": number,
            "epoch": epoch,
            "participants": list(request.orders),
            "survivors": list(collected.counted),
            "counted": list(taken.counted),
            "failures": collected.failures,
            "losses": collected.tally.mean_losses(len(collected.counted)) if collected.counted else {},
            "theta": digest_bytes(taken.state.theta.tobytes()),
            "clip": taken.state.clip,
            "inside": collected.tally.inside,
            "voters": collected.tally.voters,
            "objections": collected.tally.objections,
            "validation_before": collected.tally.scores(),
            "bytes_down": collected.wire.down,
            "bytes_up": collected.wire.up,
            "stages": collected.wire.stages,
            "lost_variates": lost,
            "skipped": None,
            **taken.record,
        }
        record["alarms"] = find_alarms([c.record for c in closed], record, self._job.upload_budget_mb)
        timing = {
            "round": number,
            "attempt": attempt,
            "seconds": round(time.monotonic() - started, 3),
            "repeats": collected.wire.repeats,
        }
        done = self._journal.close_round(number, taken.state.to_arrays(), record, timing)
        self.state = taken.state
        self._stop_if_stuck()
        return done

    def _request(self, state: ServerState, number: int, epoch: int, attempt: int) -> Request:
        job, plan = self._job, self._plan
        asked = participants(job.site_names, job.sites_per_round, job.seed, number)
        rotation = rotation_seed(job.seed, number)
        tally = number - 1 if number > 1 and job.evaluates(number - 1) else 0
        orders = {
            site: RoundOrder(
                seed=local_seed(job.seed, site, number),
                rotation=rotation,
                clip=state.clip,
                included=self._included(site, epoch),
                tally=tally,
            )
            for site in asked
        }
        quantiser = Quantiser(self._schema.size, plan.codec, rotation, state.clip) if plan.codec else None
        return Request(number, attempt, epoch, orders, self._down(state), quantiser)

    def _down(self, state: ServerState) -> bytes:
        """θ, and c behind it."""
        theta = self._codec.encode(state.theta)
        return theta + self._codec.encode(as_sent(state.control)) if self._plan.control_variates else theta

    def _included(self, site: str, epoch: int) -> int:
        """The last round of this epoch whose θ holds the site's update; 0 for none."""
        for done in reversed(self._journal.closed):
            if done.record["epoch"] != epoch:
                return 0
            if site in done.record["counted"]:
                return done.round
        return 0

    def _open(self, request: Request, state: ServerState) -> None:
        if self._journal.begun(request.number).stage is None:
            self._journal.append(
                request.number, "open", attempt=request.attempt, epoch=request.epoch,
                theta=digest_bytes(state.theta.tobytes()), sites=list(request.orders),
            )  # fmt: skip

    def _take(self, state: ServerState, request: Request, collected: Collected) -> _Taken:
        """Let the sums move the state, unless the sites or the norm speak against it.

        Raises:
            FederationError: fewer sites than the job wants delivered; the job resumes at this round.
        """
        number, counted = request.number, collected.counted
        if len(counted) < self._job.min_sites:
            raise _too_few(self._job, number, collected)
        if number > 1 and rejected_by_vote(collected.tally):
            return self._roll_back(number, request.epoch)
        update = collected.update
        assert update is not None
        if request.quantiser is not None:
            update = request.quantiser.decode_sum(update, len(counted))
        total = RoundSum(update, len(counted), collected.tally.inside)
        record: dict[str, Any] = {"update_norm": float(np.linalg.norm(total.mean))}
        if request.quantiser is not None:
            bound = norm_bound(request.quantiser)
            if record["update_norm"] > bound:
                why = f"the mean update has norm {record['update_norm']:.3g}, above {bound:.3g}"
                return _Taken(state, (), {**record, "norm_bound": bound, "too_large": True, "skipped": why})
        record["turn"] = self._turn(state, total)
        control = self._plan.control_variates
        registered = len(self._job.sites) if control else 0
        after = server_step(
            state, total, self._job.server_config(), registered=registered, reference=self._plan.reference
        )
        if self._plan.codec is not None:
            after = replace(after, clip=next_clip(state.clip, total.inside, total.counted, self._plan.codec))
        return _Taken(after, counted, record)

    def _roll_back(self, number: int, epoch: int) -> _Taken:
        """Back to the state before the round that was voted down; its variates went into the sites, so a new epoch begins."""
        state = self._first
        if number > 2:
            state = ServerState.from_arrays(self._journal.state_of(number - 2))
        record = {
            "rolled_back": number - 1,
            "skipped": f"the sites voted round {number - 1} down",
            "epoch": epoch + 1,
        }
        return _Taken(state.without_control(), (), record)

    def _turn(self, state: ServerState, total: RoundSum) -> float | None:
        """Cosine between this round's mean update and the last round's movement; None in the first round."""
        closed = self._journal.closed
        if not closed:
            return None
        last = self.before_last().astype(np.float64) - state.theta
        size = float(np.linalg.norm(last) * np.linalg.norm(total.mean))
        return float(last @ total.mean) / size if size > 0 else None

    def before_last(self) -> Vector:
        """θ before the last closed round, (P,) float32."""
        done = len(self._journal.closed)
        return self._journal.state_of(done - 1)["theta"] if done > 1 else self._first.theta

    def close(self) -> None:
        """Tally the last θ at every site; nobody trains, and whoever cannot answer is left out."""
        number, epoch = self._job.rounds, self._journal.epoch
        attempt = self._next_attempt(number + 1)
        rotation = rotation_seed(self._job.seed, number + 1)
        orders = {
            site: RoundOrder(
                0, rotation, self.state.clip, self._included(site, epoch), tally=number, train=False
            )
            for site in self._job.site_names
        }
        request = Request(number + 1, attempt, epoch, orders, self._down(self.state), None, train=False)
        self._open(request, self.state)
        try:
            found = self._collector.collect(request)
        except (RoundSkipped, VariatesOutOfStep) as err:
            found = Collected.nothing(len(self._job.reasons), f"{type(err).__name__}: {err}")
        self._journal.close(
            {
                "validation": found.tally.scores(),
                "survivors": list(found.counted),
                "failures": found.failures,
                "bytes_down": found.wire.down,
                "bytes_up": found.wire.up,
            }
        )

    def _next_attempt(self, number: int) -> int:
        """The attempt to make; the one that was begun, where a stage of it was filed."""
        begun = self._journal.begun(number)
        return begun.attempts if begun.stage is None else begun.attempts - 1

    def _stop_if_stuck(self) -> None:
        last = self._journal.closed[-_MAX_FRUITLESS:]
        if len(last) == _MAX_FRUITLESS and all(done.record["skipped"] for done in last):
            lines = "\n".join(f"  round {done.round}: {done.record['skipped']}" for done in last)
            raise FederationError(
                f"{_MAX_FRUITLESS} rounds in a row brought nothing; mend the cause and run again, it resumes after them:\n{lines}"
            )


def _too_few(job: FederationJob, number: int, collected: Collected) -> FederationError:
    lines = [f"  {site}: {why['kind']}: {why['reason']}" for site, why in collected.failures.items()]
    return FederationError(
        f"round {number}: {len(collected.counted)} of {job.sites_per_round} sites delivered, at least {job.min_sites} are "
        "needed; mend these sites and run again, it resumes at this round:\n" + "\n".join(lines)
    )


def _event(journal: Journal, job: FederationJob, done: ClosedRound) -> dict[str, Any]:
    """What is told of a round. The validation is of the θ that the sites got: what a round made of it comes with the next one."""
    record = done.record
    uploaded = sum(sum(c.record["bytes_up"].values()) for c in journal.closed)
    return {
        "event": "round",
        "round": done.round,
        "rounds": job.rounds,
        "losses": record["losses"],
        "survivors": len(record["counted"]),
        "failures": record["failures"],
        "validation": record["validation_before"],
        "uploaded_mb": round(uploaded / 1e6, 3),
        "skipped": record["skipped"],
        "alarms": record["alarms"],
        "seconds": done.timing["seconds"],
    }
