"""Federated training of adapters and heads: Flower on Ray, in a process of its own, resumed from its journal after a kill."""

from __future__ import annotations

import json

from infra.stages import StageResult
from tasks.federation_jobs import run_job
from tasks.stage import Job, stage


@stage(
    "federate", code=("infra.federation.rounds", "infra.federation.site"), retries=2, timeout_seconds=6 * 3600
)
def federate(job: Job) -> StageResult:
    """Train θ over the sites; file θ, θ before the last round, the history of rounds and the bytes that travelled."""
    settings = {k: v for k, v in job.config.items() if k != "features"}
    result = run_job(job, base_model=job.file("base", "base.safetensors"), **settings)
    rounds = int(job.config["rounds"])
    return StageResult(
        values={"theta": result.theta_digest, "job": result.job_digest, "rounds": rounds},
        info={"timings": json.loads(result.timings.read_text()), "note": f"{rounds} rounds"},
    )
