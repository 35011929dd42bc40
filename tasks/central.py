"""The centrally trained twin: what the network reaches with all sites' data in one place. A yardstick, never released."""

from __future__ import annotations

import torch

from infra.federation.base import load_base
from infra.federation.files import encode_arrays
from infra.federation.material import frames_of
from infra.federation.tokens import load_site_tokens, material_digest
from infra.stages import StageResult
from models.config import ModelConfig
from models.local_step import LocalConfig
from models.plain_loop import Round, train_central
from models.server_step import ServerConfig
from tasks.features import FRAMES
from tasks.federation_jobs import site_specs
from tasks.stage import Job, stage


@stage("central", code=("models.plain_loop", "infra.federation.tokens"), timeout_seconds=4 * 3600)
def central(job: Job) -> StageResult:
    """Train adapters and heads on all sites' frames together, with the federation's recipe."""
    net, base = load_base(
        job.file("base", "base.safetensors"),
        ModelConfig.from_dict(dict(job.config["network"])),
        tuple(job.config["reasons"]),
    )
    public = job.file("negatives", FRAMES)
    sites = {}
    for spec in site_specs(
        job.local["features"]
    ):  # their folders hold the token caches that the federation filled
        frames = frames_of(spec)
        digest = material_digest(frames, public)
        sites[spec.name] = load_site_tokens(frames, spec.folder, net, base, digest, public).train
    rounds = int(job.config["rounds"])

    def show(done: Round) -> None:
        job.progress.update(done.number / rounds, f"round {done.number} of {rounds}")

    torch.set_num_threads(1)
    theta = train_central(
        net,
        sites,
        rounds=rounds,
        local=LocalConfig(**job.config["local"]),
        server=ServerConfig(**job.config["server"]),
        seed=job.seed,
        on_round=show,
    )
    (job.out / "theta.safetensors").write_bytes(encode_arrays({"theta": theta}))
    return StageResult(values={"rounds": rounds}, info={"note": "all sites' frames together"})
