"""The cry gate learns from the sites' recordings, federated: tokenizer, backbone and heads, on top of the pretraining.

What comes out is a base model like the pretrained one, which adapters and heads then learn on.
"""

from __future__ import annotations

import json

from infra.federation.base import load_base
from infra.federation.files import encode_arrays
from infra.federation.fold import fold
from infra.federation.results import load_theta
from infra.stages import StageResult
from models.adapters import adapter_schema
from models.config import ModelConfig
from models.gate_step import GateConfig
from tasks.federation_jobs import run_job
from tasks.stage import Job, stage


@stage(
    "cry-gate",
    code=("infra.federation.rounds", "infra.federation.site", "infra.federation.fold"),
    retries=2,
    timeout_seconds=6 * 3600,
)
def cry_gate(job: Job) -> StageResult:
    """Train the gate over the sites; file the whole network's weights, and the history of rounds."""
    settings = {k: v for k, v in job.config.items() if k != "features"}
    base = job.file("base", "base.safetensors")
    result = run_job(job, base_model=base, control_variates=False, **settings)
    net, _ = load_base(base, ModelConfig.from_dict(dict(settings["network"])), tuple(settings["reasons"]))
    trained = GateConfig(**settings["gate"]).trained
    theta = load_theta(result.theta, adapter_schema(net, trained))
    (job.out / "base.safetensors").write_bytes(encode_arrays(fold(net, theta, trained)))
    rounds = int(settings["rounds"])
    return StageResult(
        values={"theta": result.theta_digest, "job": result.job_digest, "rounds": rounds},
        info={"timings": json.loads(result.timings.read_text()), "note": f"{rounds} rounds"},
    )
