"""A job whose sites bring recordings, from their gates to their calibrations; the server's side of `local.routes`.

    gate         every site judges its own recordings; one that fails keeps the job from starting
    features     every site extracts its frames and names them by digest
    hello …      `rounds.federate`
    calibrate    every site fits its temperatures and thresholds to θ; out_dir/calibrations.json

A job without a data plan is `federate` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from infra.digest import canonical_json, digest_json
from infra.federation.base import load_base
from infra.federation.exchange import Answers, Exchange, accepted
from infra.federation.files import write_atomic
from infra.federation.job import FederationJob
from infra.federation.local.travel import CalibrationReply, FeaturesReply, GateReply
from infra.federation.messages import CALIBRATE, FEATURES, GATE, Envelope, Header, check_reply
from infra.federation.results import FederationResult, load_theta
from infra.federation.rounds import Emit, federate
from infra.federation.transport import Transport
from models.adapters import AdapterSchema, adapter_schema
from models.codec import Float32Codec
from models.errors import FederationError, UpdateRejected

CALIBRATIONS = "calibrations.json"


def run_job(job: FederationJob, transport: Transport, emit: Emit = lambda _event: None) -> FederationResult:
    """Run (or resume) a job with everything that its sites do themselves.

    Args:
        job: the job.
        transport: reaches every site.
        emit: told as by `federate`, and of `gate`, `features` and `calibrate`; `done` stays the last event.

    Raises:
        ConfigError: the data plan is not one.
        FederationError: a site's gate fails, a site cannot extract, or as `federate`.
        IntegrityError, OutputError: as `federate`.
    """
    if job.data is None:
        return federate(job, transport, emit)
    prepare(job, transport, emit)
    end: list[Mapping[str, Any]] = []

    def hold(event: Mapping[str, Any]) -> None:
        if event["event"] == "done":
            end.append(event)
        else:
            emit(event)

    result = federate(job, transport, hold)
    if job.gate is None:  # the gate's own phase makes a base model; what is calibrated is trained on it
        calibrate(job, transport, result, emit)
    for event in end:
        emit(event)
    return result


def prepare(
    job: FederationJob, transport: Transport, emit: Emit = lambda _event: None
) -> dict[str, FeaturesReply]:
    """Gate and features at every site; errors as in `run_job`."""
    from infra.federation.local.plan import DataPlan  # brings pandas

    plan = {"data": DataPlan.from_dict(job.data or {}).to_dict()}
    header, _ = _header(job, GATE, plan["data"])
    outcomes = transport.connect(Envelope(header, plan), job.site_names, timeout_s=job.timeout_s)
    verdicts: dict[str, GateReply] = {}
    failures: dict[str, str] = {}
    for site in job.site_names:
        outcome = outcomes[site]
        try:
            if not isinstance(outcome, Envelope):
                raise FederationError(str(outcome) if isinstance(outcome, UpdateRejected) else outcome.reason)
            check_reply(header, outcome)
            verdicts[site] = GateReply.from_body(accepted(outcome).body, site)
            if not verdicts[site].released:
                broken = ", ".join(verdicts[site].criticals)
                failures[site] = f"its gate found critical failures ({broken}); its own report names the rows"
        except FederationError as err:
            failures[site] = str(err)
    emit({"event": "gate", "sites": {site: verdict.to_body() for site, verdict in verdicts.items()}})
    _stop("cannot start", failures)

    bodies: dict[str, dict[str, Any]] = dict.fromkeys(job.site_names, plan)
    answers = _exchange(job, transport, header).ask(
        FEATURES, 0, bodies, b"", lambda site, reply: FeaturesReply.from_body(reply.body, site)
    )
    emit({"event": "features", "sites": {site: r.features for site, r in answers.accepted.items()}})
    _stop("cannot start", _words(answers))
    return answers.accepted


def calibrate(
    job: FederationJob, transport: Transport, result: FederationResult, emit: Emit = lambda _event: None
) -> dict[str, CalibrationReply]:
    """Every site's calibration to the trained θ, into `calibrations.json`; sites that fail are named there.

    Raises:
        OutputError: the output folder cannot be written.
    """
    header, schema = _header(job, CALIBRATE, job.local)
    header = replace(header, run=result.job_digest)
    codec = Float32Codec(schema)
    bodies: dict[str, dict[str, Any]] = {site: {} for site in job.site_names}
    answers = _exchange(job, transport, header).ask(
        CALIBRATE,
        job.rounds,
        bodies,
        codec.encode(load_theta(result.theta, schema)),
        lambda site, reply: CalibrationReply.from_body(reply.body, site),
    )
    document = {
        "theta": result.theta_digest,
        "sites": {site: reply.to_body() for site, reply in answers.accepted.items()},
        "failures": answers.failures,
    }
    write_atomic(job.out_dir / CALIBRATIONS, canonical_json(document) + b"\n")
    emit({"event": "calibrate", "sites": len(answers.accepted), "failures": answers.failures})
    return answers.accepted


def _header(job: FederationJob, action: str, config: Mapping[str, Any]) -> tuple[Header, AdapterSchema]:
    net, base = load_base(job.base_model, job.model(), job.reasons)
    schema = adapter_schema(net, job.plan().trained)
    return Header(action, "", "", 0, 0, schema.digest, base, digest_json(dict(config))), schema


def _exchange(job: FederationJob, transport: Transport, header: Header) -> Exchange:
    return Exchange(
        transport, header, job.retries, job.timeout_s, max_payload=0
    )  # what comes back is all in the body


def _words(answers: Answers[Any]) -> dict[str, str]:
    return {site: f"{why['kind']}: {why['reason']}" for site, why in answers.failures.items()}


def _stop(what: str, failures: Mapping[str, str]) -> None:
    if failures:
        raise FederationError(
            f"the federation {what}; mend these sites or take them out of the job:\n"
            + "\n".join(f"  {site}: {why}" for site, why in failures.items())
        )
