"""Evidence for the gate on real recordings: grouped folds × seeds × arms, and the pages made from them.

    data → cells → pages

Every finished training is a file; a run that was killed resumes where it stopped.
"""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from infra.evidence import arms
from infra.evidence.world import WorldConfig
from models.pretrain import BackboneConfig, DenoiserConfig
from tasks.evidence import prepare, present, train


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
    return str(present(world, config, plan, out))


def _quick_world() -> WorldConfig:
    return WorldConfig(
        preset="tiny", folds=arms.QUICK.folds, denoiser=DenoiserConfig(steps=4), backbone=BackboneConfig(steps=4),
    )  # fmt: skip
