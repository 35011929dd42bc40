"""Pretraining on public and synthetic audio: the denoiser, then tokenizer, backbone and gate head."""

from __future__ import annotations

from infra.federation.files import decode_arrays, encode_arrays
from infra.stages import StageResult
from models.config import ModelConfig
from models.network import CryNet
from models.pretrain import (
    BackboneConfig,
    DenoiserConfig,
    PretrainSet,
    Progress,
    pretrain_backbone,
    pretrain_denoiser,
)
from models.state import count_parameters, to_arrays
from tasks.features import POOL
from tasks.stage import Job, stage


@stage(
    "pretrain", code=("models.pretrain", "models.state", "infra.federation.files"), timeout_seconds=4 * 3600
)
def pretrain(job: Job) -> StageResult:
    """Train what is frozen afterwards; file all weights, adapters and heads in their starting state included."""
    path = job.file("pool", POOL)
    data = PretrainSet(**decode_arrays(path.read_bytes(), str(path)))
    net = CryNet(
        ModelConfig.from_dict(dict(job.config["network"])), tuple(job.config["reasons"]), seed=job.seed
    )
    denoiser, backbone = DenoiserConfig(**job.config["denoiser"]), BackboneConfig(**job.config["backbone"])
    # by work: a backbone step costs about four denoiser steps
    share = denoiser.steps / (denoiser.steps + 4 * backbone.steps)

    def show(progress: Progress) -> None:
        part = progress.step / progress.steps
        whole = share * part if progress.stage == "denoiser" else share + (1 - share) * part
        losses = "  ".join(f"{name} {value:.3f}" for name, value in progress.losses.items())
        job.progress.update(whole, f"{progress.stage} {progress.step}/{progress.steps}  {losses}")

    losses = {
        "denoiser": pretrain_denoiser(net, data, denoiser, show),
        "backbone": pretrain_backbone(net, data, backbone, show),
    }
    (job.out / "base.safetensors").write_bytes(encode_arrays(dict(to_arrays(net))))
    counts = count_parameters(net)
    return StageResult(
        values={
            "losses": {part: {k: round(v, 6) for k, v in values.items()} for part, values in losses.items()},
            "parameters": {"total": counts.total, "trained": counts.trained, "denoiser": counts.denoiser},
        },
        info={"note": f"{counts.total:,} parameters, {counts.trained:,} of them adapters and heads"},
    )
