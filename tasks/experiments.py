"""The experiments' tasks: the data, the learning rates, the comparison, and the page."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from infra.experiments.cells import Cell, Plan
from infra.experiments.results import open_results
from infra.experiments.run import Json, rates_of, run_cells
from infra.experiments.world import WorldConfig, build_world
from infra.experiments.write import write_document
from tasks.progress import Board, StageProgress

CELLS = "cells.jsonl"


@task(name="experiments: data", persist_result=False)
def prepare(world: WorldConfig, folder: Path) -> Path:
    """Synthesise, pretrain and tokenise, unless it is there; returns the file."""
    with StageProgress(Board(), "data") as progress:
        return build_world(world, folder / "work", lambda text: progress.update(0.0, text))


@task(name="experiments: learning rates", persist_result=False)
def tune(world: Path, plan: Plan, folder: Path) -> list[Json]:
    """The tuning cells' results, in the plan's order."""
    return _run("rates", world, plan, plan.tuning(), folder)


@task(name="experiments: comparison", persist_result=False)
def measure(world: Path, plan: Plan, tuned: list[Json], folder: Path) -> list[Json]:
    """The measured cells' results, in the plan's order."""
    return _run("comparison", world, plan, plan.measured(rates_of(plan.tuning(), tuned)), folder)


@task(name="experiments: page", persist_result=False)
def present(
    world: Path, config: WorldConfig, plan: Plan, tuned: list[Json], measured: list[Json], folder: Path
) -> Path:
    """Write experiments.json, experiments.html and summary.md; returns the page."""
    return write_document(world, config, plan, tuned, measured, folder)


def _run(stage: str, world: Path, plan: Plan, cells: list[Cell], folder: Path) -> list[Json]:
    with open_results(folder / CELLS) as results, StageProgress(Board(), stage) as progress:

        def tell(done: int, of: int, cell: Cell, result: Json) -> None:
            end = f"{result['macro_f1'][-1]:.3f}" if result["macro_f1"] else "diverged"
            progress.update(
                done / of, f"{done} of {of}: {cell.arm.name}, {cell.setting}, seed {cell.seed}: {end}"
            )

        return run_cells(world, plan, cells, results, tell)
