"""The round loop: our own, over any transport, resumable, and bit-identical over all of them.

    hello      every site names its features by digest; the job's digest follows, and the journal is opened under it
    per round  `open` is journalled → θ goes out → updates come back and are checked one by one → uniform average in site
               order, float64 → validation tallies are summed → state and `closed` are journalled
    end        theta.safetensors, history.json (deterministic), timings.json

A site that refuses, or whose update is malformed, is left out of the round and named in the history; one whose process died is
asked again, and computes the same. What the server keeps of losses and tallies are sums over sites only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.digest import derive_seed, digest_bytes, digest_json
from infra.federation.base import load_base
from infra.federation.exchange import Answers, Exchange, accepted
from infra.federation.job import FederationJob
from infra.federation.journal import Journal
from infra.federation.messages import (
    EVALUATE,
    HELLO,
    TRAIN,
    Envelope,
    Header,
    check_reply,
    counts,
    finite,
    finite_map,
)
from infra.federation.results import FederationResult, write_results
from infra.federation.transport import Transport
from models.adapters import adapter_schema, get_vector
from models.codec import Codec, Float32Codec
from models.errors import FederationError, UpdateRejected
from models.local_step import local_seed
from models.metrics import macro_f1
from models.server_step import ServerState, server_step

Emit = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Update:
    """One site's accepted update: Δ = θ − y (P,) float32, its losses, and the normaliser A of its local steps."""

    delta: npt.NDArray[np.float32]
    losses: Mapping[str, float]
    normaliser: float


def federate(job: FederationJob, transport: Transport, emit: Emit = lambda _event: None) -> FederationResult:
    """Run (or resume) a job to its end.

    Args:
        job: the job; its checkpoint folder decides where it resumes.
        transport: reaches every site of the job.
        emit: told about the start, every round, and the end, as JSON-ready maps.

    Raises:
        FederationError: a site cannot take part, or a round has fewer accepted updates than `min_sites`.
        IntegrityError: the checkpoint is not what the journal recorded.
        OutputError: checkpoints or results cannot be written.
    """
    net, base = load_base(job.base_model, job.model(), job.reasons)
    schema, theta = adapter_schema(net), get_vector(net)
    del net
    codec = Float32Codec(schema)
    header = Header(HELLO, "", "", 0, 0, schema.digest, base, digest_json(job.local))
    features = _hello(job, transport, header, schema.size)
    digest = job.content_digest(base, features)
    exchange = Exchange(transport, replace(header, run=digest), job.retries, job.timeout_s, codec.max_bytes)
    with Journal(job.checkpoint_dir, digest) as journal:
        arrays = journal.last_state()
        state = ServerState.initial(theta) if arrays is None else ServerState.from_arrays(arrays)
        done = len(journal.closed)
        emit(
            {
                "event": "start",
                "job": digest,
                "sites": len(job.sites),
                "rounds": job.rounds,
                "resumed_at": done,
            }
        )
        uploaded = sum(sum(r.record["bytes_up"].values()) for r in journal.closed)
        for number in range(done + 1, job.rounds + 1):
            state, record, timing = _round(job, exchange, codec, journal, state, number)
            journal.close_round(number, state.to_arrays(), record, timing)
            uploaded += sum(record["bytes_up"].values())
            emit(
                {
                    "event": "round",
                    "round": number,
                    "rounds": job.rounds,
                    "losses": record["losses"],
                    "survivors": len(record["survivors"]),
                    "failures": record["failures"],
                    "validation": record["validation"],
                    "uploaded_mb": round(uploaded / 1e6, 3),
                    "seconds": timing["seconds"],
                }
            )
        result = write_results(job, digest, schema.digest, state.theta, journal.closed)
    emit({"event": "done", **result.to_dict()})
    return result


def _hello(job: FederationJob, transport: Transport, header: Header, size: int) -> dict[str, str]:
    """Digest of every site's features, once all of them run the same network."""
    request = Envelope(header, {"protocol": header.protocol, "parameters": size})
    outcomes = transport.connect(request, job.site_names, timeout_s=job.timeout_s)
    features, absent = {}, []
    for site in job.site_names:
        outcome = outcomes[site]
        try:
            if not isinstance(outcome, Envelope):
                raise FederationError(str(outcome) if isinstance(outcome, UpdateRejected) else outcome.reason)
            check_reply(header, outcome)
            value = accepted(outcome).body.get("features")
            if not isinstance(value, str) or len(value) != 64:
                raise UpdateRejected(f"the site names its features as {value!r}, not by a SHA-256")
            features[site] = value
        except FederationError as err:
            absent.append(f"  {site}: {err}")
    if absent:
        raise FederationError(
            "the federation cannot start; mend these sites or take them out of the job:\n" + "\n".join(absent)
        )
    return features


def _round(
    job: FederationJob, exchange: Exchange, codec: Codec, journal: Journal, state: ServerState, number: int
) -> tuple[ServerState, dict[str, Any], dict[str, Any]]:
    started = time.monotonic()
    asked = participants(job, number)
    journal.append(number, "open", theta=digest_bytes(state.theta.tobytes()), sites=list(asked))

    def read_update(site: str, reply: Envelope) -> Update:
        delta = codec.decode(reply.payload)
        normaliser = finite(reply.body, "normaliser")
        if normaliser <= 0:
            raise UpdateRejected(
                f"site {site!r}, round {number}: the normaliser is {normaliser}, it must be positive"
            )
        return Update(delta, finite_map(reply.body, "losses"), normaliser)

    bodies = {site: {"local": job.local, "seed": local_seed(job.seed, site, number)} for site in asked}
    answers = exchange.ask(TRAIN, number, bodies, codec.encode(state.theta), read_update)
    if len(answers.accepted) < job.min_sites:
        lines = [f"  {site}: {why['kind']}: {why['reason']}" for site, why in answers.failures.items()]
        raise FederationError(
            f"round {number}: {len(answers.accepted)} of {len(asked)} sites delivered, at least {job.min_sites} are needed; "
            "mend these sites and run again, it resumes at this round:\n" + "\n".join(lines)
        )
    updates = list(answers.accepted.values())
    journal.append(number, "received", survivors=list(answers.accepted))
    state = server_step(state, [u.delta for u in updates], job.server_config())
    trained = time.monotonic()
    validation, tallies = (
        _validate(job, exchange, codec, state, number) if job.evaluates(number) else (None, None)
    )
    record: dict[str, Any] = {
        "round": number,
        "participants": list(asked),
        "survivors": list(answers.accepted),
        "failures": answers.failures,
        "losses": _mean_losses(updates),
        "theta": digest_bytes(state.theta.tobytes()),
        "bytes_down": answers.bytes_down,
        "bytes_up": answers.bytes_up,
        "validation": validation,
    }
    ended = time.monotonic()
    timing = {
        "round": number,
        "seconds": round(ended - started, 3),
        "train_seconds": round(trained - started, 3),
        "validation_seconds": round(ended - trained, 3),
        "repeats": answers.repeats + (tallies.repeats if tallies else 0),
    }
    return state, record, timing


def _validate(
    job: FederationJob, exchange: Exchange, codec: Codec, state: ServerState, number: int
) -> tuple[dict[str, Any], Answers[Any]]:
    """Sums of the sites' validation tallies, and the scores they give; no site's own numbers are kept."""
    n = len(job.reasons)

    def read_tally(_site: str, reply: Envelope) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        gate, reason = counts(reply.body, "gate", (2, 2)), counts(reply.body, "reason", (n, n))
        return np.array(gate, np.int64), np.array(reason, np.int64)

    bodies: dict[str, dict[str, Any]] = {site: {} for site in job.site_names}
    answers = exchange.ask(EVALUATE, number, bodies, codec.encode(state.theta), read_tally)
    gate = sum((g for g, _ in answers.accepted.values()), np.zeros((2, 2), np.int64))
    reason = sum((r for _, r in answers.accepted.values()), np.zeros((n, n), np.int64))
    summary = {
        "sites": len(answers.accepted),
        "failures": answers.failures,
        "gate_confusion": gate.tolist(),
        "reason_confusion": reason.tolist(),
        "gate_macro_f1": _score(gate),
        "reason_macro_f1": _score(reason),
    }
    return summary, answers


def participants(job: FederationJob, number: int) -> tuple[str, ...]:
    """The sites asked in a round, in aggregation order: all of them, or a draw that depends on the seed and the round alone."""
    names = job.site_names
    if job.sites_per_round == len(names):
        return names
    rng = np.random.Generator(np.random.PCG64(derive_seed(job.seed, "participation", number)))
    chosen = rng.choice(len(names), size=job.sites_per_round, replace=False)
    return tuple(names[i] for i in sorted(chosen.tolist()))


def _mean_losses(updates: list[Update]) -> dict[str, float]:
    names = sorted(set.intersection(*(set(u.losses) for u in updates)))
    return {name: float(np.mean([u.losses[name] for u in updates], dtype=np.float64)) for name in names}


def _score(matrix: npt.NDArray[np.int64]) -> float | None:
    return float(macro_f1(matrix)) if matrix.sum() else None
