"""Train the cells, each in a process of its own; their scores are files, and what is there is not trained again."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch

from infra import quiet
from infra.evaluation.storage import load_scores, save_scores
from infra.evidence.cells import Cell, run_cell
from infra.evidence.world import World, load_world
from models.predict import ClipScores

OnDone = Callable[[int, int, Cell, float], None]
"""Told how many are done, of how many, which one, and the seconds it took."""


def run_cells(
    world: Path,
    cells: Sequence[Cell],
    folder: Path,
    on_done: OnDone = lambda _done, _of, _cell, _seconds: None,
) -> list[ClipScores]:
    """The scores of `cells` in their order.

    As many processes as this one may use cores, one thread each; results do not depend on their number.
    """
    digest = load_world(world).digest
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{cell.key(digest)}.safetensors" for cell in cells]
    todo = [(cell, path) for cell, path in zip(cells, paths, strict=True) if not path.is_file()]
    for done, (cell, took) in enumerate(_in_processes(world, todo), start=1):
        on_done(done, len(todo), cell, took)
    return [load_scores(path) for path in paths]


def _in_processes(world: Path, todo: Sequence[tuple[Cell, Path]]) -> Iterator[tuple[Cell, float]]:
    if not todo:
        return
    workers = min(len(os.sched_getaffinity(0)), len(todo))
    # spawned, not forked: a fork of a process with threads (Prefect's, torch's) can deadlock
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, _begin, (world,)) as pool:
        cells = {pool.submit(_run, cell, path): cell for cell, path in todo}
        try:
            for future in as_completed(cells):
                yield cells[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_here: World | None = None


def _begin(world: Path) -> None:
    """In a worker, once."""
    global _here  # noqa: PLW0603 - what a worker works on
    quiet.apply()
    torch.set_num_threads(1)
    _here = load_world(world)


def _run(cell: Cell, path: Path) -> float:
    assert _here is not None
    began = time.monotonic()
    scores = run_cell(cell, _here.network(cell.arm.base), _here.frames, _here.rows, _here.folds)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    save_scores(scores, part)
    part.replace(path)
    return time.monotonic() - began
