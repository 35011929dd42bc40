"""Train the cells, each in a process of its own; their results are files, and what is there is not trained again."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path

from infra.evidence.cell_files import CellFiles
from infra.evidence.cells import Cell, run_cell
from infra.evidence.world import World, load_world
from infra.processes import in_processes
from models.predict import ClipScores
from models.threads import one_thread

OnDone = Callable[[int, int, Cell, float], None]
"""Told how many are done, of how many, which one, and the seconds it took."""

_Work = tuple[Cell, CellFiles, bool]


def run_cells(
    world: Path,
    cells: Sequence[Cell],
    folder: Path,
    on_done: OnDone = lambda _done, _of, _cell, _seconds: None,
    keep: Collection[Cell] = (),
) -> list[ClipScores]:
    """The scores of `cells` in their order.

    As many processes as this one may use cores, one thread each; results do not depend on their number.

    Args:
        world: the folder of a built world.
        cells: what to train, in this order.
        folder: for the results.
        on_done: told of every training.
        keep: cells whose network is wanted, too.

    Raises:
        DataError: the world is not complete.
        OutputError: `folder` cannot be written.
    """
    digest = load_world(world).digest
    folder.mkdir(parents=True, exist_ok=True)
    files = [CellFiles.of(cell, digest, folder) for cell in cells]
    work: list[_Work] = [(cell, at, cell in keep) for cell, at in zip(cells, files, strict=True)]
    todo = [item for item in work if not item[1].complete(network=item[2])]
    for done, ((cell, _, _), took) in enumerate(
        in_processes(partial(load_world, world), _run, todo), start=1
    ):
        on_done(done, len(todo), cell, took)
    return [at.load_scores() for at in files]


def _run(world: World, item: _Work) -> float:
    """In a worker: one training; its seconds."""
    cell, files, keep = item
    began = time.monotonic()
    net = world.network(cell.arm.base)
    with one_thread():
        scores = run_cell(cell, net, world.frames, world.rows, world.folds)
    files.save(scores, net if keep else None)
    return time.monotonic() - began
