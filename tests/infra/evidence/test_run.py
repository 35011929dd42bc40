"""Running cells: what is there is not trained again, a killed run goes on, and networks are kept where they are asked for."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from infra.evidence.arms import QUICK
from infra.evidence.cell_files import CellFiles
from infra.evidence.cells import Cell
from infra.evidence.folds import fold_parts
from infra.evidence.run import run_cells
from infra.evidence.world import load_world
from models.errors import DataError
from models.frames import TEST
from models.predict import ClipScores, predict

CENTRAL, FEDERATED, _ = QUICK.arms
CELLS = [Cell(CENTRAL, 0, 1), Cell(FEDERATED, 0, 1), Cell(FEDERATED, 1, 1)]


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0})


@pytest.fixture(scope="module")
def whole(world: Path, tmp_path_factory: pytest.TempPathFactory) -> list[ClipScores]:
    """The cells' scores of an undisturbed run on one core."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda _pid: {0})
        return run_cells(world, CELLS, tmp_path_factory.mktemp("whole"))


def same(a: list[ClipScores], b: list[ClipScores]) -> bool:
    return all(
        np.array_equal(getattr(x, f.name), getattr(y, f.name), equal_nan=f.name == "snr_db")
        for x, y in zip(a, b, strict=True)
        for f in fields(ClipScores)
    )


@pytest.mark.usefixtures("one_core")
def test_a_killed_run_goes_on_with_what_is_missing(
    world: Path, whole: list[ClipScores], tmp_path: Path
) -> None:
    def die(done: int, _of: int, _cell: Cell, _seconds: float) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_cells(world, CELLS, tmp_path, die)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    (tmp_path / ".half.safetensors.123").write_bytes(b"of a process that was killed while it wrote")
    told: list[tuple[int, int, Cell]] = []
    again = run_cells(world, CELLS, tmp_path, lambda done, of, cell, _s: told.append((done, of, cell)))
    assert told == [(1, 1, CELLS[2])]
    assert same(again, whole)
    run_cells(world, CELLS, tmp_path, lambda *_: pytest.fail("trained twice"))


@pytest.mark.slow
def test_results_do_not_depend_on_the_number_of_processes(
    world: Path, whole: list[ClipScores], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})
    assert same(run_cells(world, CELLS, tmp_path), whole)


@pytest.mark.usefixtures("one_core")
def test_a_network_is_kept_where_it_is_asked_for_and_is_the_one_that_was_scored(
    world: Path, whole: list[ClipScores], tmp_path: Path
) -> None:
    loaded, kept = load_world(world), CELLS[1]
    run_cells(world, CELLS[:2], tmp_path)
    told: list[Cell] = []
    again = run_cells(world, CELLS[:2], tmp_path, lambda _d, _o, cell, _s: told.append(cell), keep=[kept])
    assert told == [kept]  # scores without the network that is asked for are not enough
    assert same(again, whole[:2])
    files = CellFiles.of(kept, loaded.digest, tmp_path)
    assert [p.name for p in tmp_path.glob("*-network.safetensors")] == [files.network.name]
    net = files.load_network(loaded.model, loaded.reasons)
    parts = fold_parts(loaded.rows, loaded.folds, kept.fold)
    name = sorted(loaded.frames.judge)[1]
    site = replace(loaded.frames.judge[name], part=parts[(loaded.rows["site"] == name).to_numpy()])
    scored = predict(net, site.select(site.part[site.clip] == TEST))
    filed = again[1].select(again[1].site == name)
    np.testing.assert_allclose(scored.gate_logit, filed.gate_logit, atol=1e-5)


@pytest.mark.usefixtures("one_core")
def test_scores_are_of_the_clips_that_were_left_out(world: Path, whole: list[ClipScores]) -> None:
    loaded = load_world(world)
    for cell, scores in zip(CELLS, whole, strict=True):
        expected = set(loaded.rows["sha256"].str[:16][loaded.folds == cell.fold])
        assert set(scores.clip_id.tolist()) == expected
        assert set(scores.part.tolist()) == {cell.fold}
        assert set(scores.view.tolist()) == set(range(11))


def test_a_network_that_is_none_is_refused(world: Path, tmp_path: Path) -> None:
    loaded = load_world(world)
    files = CellFiles.of(CELLS[1], loaded.digest, tmp_path)
    with pytest.raises(DataError, match="delete it and run again"):
        files.load_network(loaded.model, loaded.reasons)
    files.network.write_bytes(b"no weights")
    with pytest.raises(DataError, match="delete it and run again"):
        files.load_network(loaded.model, loaded.reasons)


def test_a_world_that_is_not_complete_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no complete evidence world"):
        run_cells(tmp_path, CELLS, tmp_path / "cells")
