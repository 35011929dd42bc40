"""What every site learns from that is no cry: frames of public noise, and of synthetic calls, in one file."""

from __future__ import annotations

from infra.data.calls import call_frames
from infra.data.features import load_frames, save_frames
from infra.stages import StageResult
from models.config import LogMelConfig
from models.frames import concat_frames
from models.segmentation import VadConfig
from tasks.features import FRAMES
from tasks.federation_jobs import frames_file
from tasks.sites import PUBLIC
from tasks.stage import Job, stage


@stage("negatives", code=("infra.data.calls", "infra.data.features"), timeout_seconds=3600)
def negatives(job: Job) -> StageResult:
    """File the frames; a corpus without public noise has the calls alone."""
    config, features = job.config, job.local["features"]
    calls = call_frames(
        tuple(config["reasons"]),
        LogMelConfig(**config["log_mel"]),
        VadConfig(**config["vad"]),
        config["calls"],
    )
    public = [load_frames(frames_file(PUBLIC, features[PUBLIC]))] if PUBLIC in features else []
    joined = concat_frames([*public, calls])
    save_frames(joined, job.out / FRAMES)
    return StageResult(
        values={"clips": len(joined.gate), "calls": len(calls.gate)},
        info={"note": f"{len(joined.gate)} clips, {len(calls.gate)} of them synthetic calls"},
    )
