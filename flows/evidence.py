"""Evidence for the gate on real recordings: grouped folds × seeds × arms, and the pages made from them.

    data → cells → sounds → pages

Every finished training is a file; a run that was killed resumes where it stopped.
"""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from infra.data.synth.config import SynthConfig
from infra.evidence import arms
from infra.evidence.world import WorldConfig
from models.pretrain import BackboneConfig, DenoiserConfig
from tasks.evidence import play, prepare, present, train


@flow(name="evidence", persist_result=False)
def evidence(manifest: Path, out: Path, quick: bool = False) -> str:
    """Run the plan, or a quick look at the machinery whose scores mean nothing; returns the first page's path.

    Raises:
        ManifestError, AudioError: the data cannot be used.
        OutputError: the folder cannot be written.
    """
    plan, config = (arms.QUICK, _quick_world()) if quick else (arms.FULL, WorldConfig())
    world = prepare(manifest, config, out)
    train(world, plan, out)
    heard = play(manifest, world, plan, out)
    return str(present(world, config, plan, heard, out))


def _quick_world() -> WorldConfig:
    pool = SynthConfig(
        sites=2, infants_per_site=4, cries_per_infant=2, noncries_per_site=6, public_noise=24, clip_seconds=1.5, seed=77,
    )  # fmt: skip
    return WorldConfig(
        preset="tiny", folds=arms.QUICK.folds, pool=pool, denoiser=DenoiserConfig(steps=4), backbone=BackboneConfig(steps=4),
        calls=14,
    )  # fmt: skip
