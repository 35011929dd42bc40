"""The evidence's tasks: the world that all cells share, the trainings, what networks are played, and the pages."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from infra.evidence.arms import Plan
from infra.evidence.cells import Cell
from infra.evidence.hearing import Heard, fold_networks, hear
from infra.evidence.run import run_cells
from infra.evidence.world import WorldConfig, build_world, load_world
from infra.evidence.write import write_evidence
from tasks.progress import Board, StageProgress

CELLS, HEARD = "cells", "heard"


@task(name="evidence: data", persist_result=False)
def prepare(manifest: Path, config: WorldConfig, folder: Path) -> Path:
    """Read, render and pretrain, unless it is there; returns the world's folder."""
    with StageProgress(Board(), "data") as progress:
        return build_world(manifest, config, folder, progress.update)


@task(name="evidence: cells", persist_result=False)
def train(world: Path, plan: Plan, folder: Path) -> None:
    """Train what is not there yet, the first seed of every arm before the next seed."""
    loaded = load_world(world)
    cells = plan.everything(loaded.noise_classes)
    with StageProgress(Board(), "cells") as progress:

        def tell(done: int, of: int, cell: Cell, seconds: float) -> None:
            what = f"without {cell.without}" if cell.without else f"fold {cell.fold}"
            progress.update(
                done / of, f"{done} of {of}: {cell.arm.name}, {what}, seed {cell.seed}: {seconds:.0f} s"
            )

        run_cells(world, cells, folder / CELLS, tell, keep=plan.kept)


@task(name="evidence: sounds", persist_result=False)
def play(manifest: Path, world: Path, plan: Plan, folder: Path) -> Heard:
    """Play altered cries, probes and long recordings to the networks that were kept."""
    networks = fold_networks(load_world(world), manifest, plan.kept, folder / CELLS)
    with StageProgress(Board(), "sounds") as progress:
        return hear(
            networks, plan.hearing, folder / HEARD, plan.command,
            lambda done, of, what: progress.update(done / of, f"{done} of {of}: {what}"),
        )  # fmt: skip


@task(name="evidence: pages", persist_result=False)
def present(world: Path, config: WorldConfig, plan: Plan, heard: Heard, folder: Path) -> Path:
    """Write evidence.json and the pages; returns the first page."""
    with StageProgress(Board(), "pages") as progress:
        return write_evidence(
            world, config, plan, folder / CELLS, heard, folder, lambda what: progress.update(0.5, what)
        )
