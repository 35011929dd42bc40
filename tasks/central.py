"""The centrally trained twin: what the network reaches with all sites' data in one place. A yardstick, never released."""

from __future__ import annotations

from pathlib import Path

import torch

from infra.federation.base import load_base
from infra.federation.files import encode_arrays
from infra.federation.tokens import features_digest, load_site_tokens
from infra.stages import StageResult, resolve
from models.config import ModelConfig
from models.local_step import LocalConfig
from models.plain_loop import Round, train_central
from models.server_step import ServerConfig
from tasks.features import FRAMES
from tasks.runtime import runtime
from tasks.sites import PUBLIC
from tasks.stage import Job, stage


@stage("central", code=("models.plain_loop", "infra.federation.tokens"), timeout_seconds=4 * 3600)
def central(job: Job) -> StageResult:
    """Train adapters and heads on all sites' frames together, with the federation's recipe."""
    rt = runtime()
    net, base = load_base(
        job.file("pretrain", "base.safetensors"),
        ModelConfig.from_dict(dict(job.config["network"])),
        tuple(job.config["reasons"]),
    )
    sites = {}
    for site, uri in job.local["features"].items():
        if site == PUBLIC:
            continue
        content = rt.site_content(site)
        frames: Path = content.fetch(resolve(content, uri).files[FRAMES])
        folder = rt.site_folder(site) / "federation"  # the token cache that the federation filled
        sites[site] = load_site_tokens(frames, folder, net, base, features_digest(frames)).train
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
