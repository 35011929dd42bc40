"""From cells to documents: what is not trained yet is named, and a page that cannot be made is not left over from before."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from infra.evidence import write
from infra.evidence.arms import QUICK, Plan
from infra.evidence.cell_files import CellFiles
from infra.evidence.hearing import Heard
from infra.evidence.world import World, load_world
from infra.report.pages import EVIDENCE, navigation
from models.errors import DataError
from models.predict import ClipScores
from tests.infra.evidence.corpora import CONFIG

PLAN = replace(QUICK, seeds=(1, 2))


def put(
    world: World, plan: Plan, folder: Path, scores: ClipScores, *, arm: int, seed: int, fold: int
) -> None:
    cell = plan.cells(plan.arms[arm], seed)[fold]
    CellFiles.of(cell, world.digest, folder).save(scores.select(scores.part == fold), None)


@pytest.fixture
def cells(world: Path, out_of_fold, tmp_path: Path) -> Path:
    """Scores of the central arm, seed 1 whole and seed 2 of one fold, and of one fold of the federated arm."""
    loaded, scores = load_world(world), out_of_fold()
    scores = replace(scores, part=(scores.part % 2).astype(scores.part.dtype))
    for arm, seed, fold in ((0, 1, 0), (0, 1, 1), (0, 2, 1), (1, 1, 0)):
        put(loaded, PLAN, tmp_path, scores, arm=arm, seed=seed, fold=fold)
    return tmp_path


def test_arms_with_all_folds_are_read_and_the_others_named(world: Path, cells: Path) -> None:
    arms, missing = write.read_arms(load_world(world), PLAN, cells)
    assert {name: sorted(seeds) for name, seeds in arms.items()} == {"central": [1]}
    assert set(arms["central"][1].part.tolist()) == {0, 1}
    assert missing == [
        "central, seed 2", "federated, seed 1", "federated, seed 2", "no-denoiser, seed 1", "no-denoiser, seed 2",
    ]  # fmt: skip


def test_without_one_whole_arm_there_is_nothing_to_show(world: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train first"):
        write.write_evidence(world, CONFIG, PLAN, tmp_path, Heard({}, {}), tmp_path / "out")


def test_what_is_missing_is_on_the_page_and_no_page_is_left_over(
    world: Path, cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # not what is tested here, and it takes its time
    for name in ("abstention_evidence", "suspects_document"):
        monkeypatch.setattr(write, name, lambda *_, **__: {})
    for name in ("render_abstention", "render_suspects"):
        monkeypatch.setattr(write, name, lambda *_: "")
    real = write.gate_document
    monkeypatch.setattr(write, "gate_document", lambda arms, _resamples: real(arms, 20))
    monkeypatch.setattr(write, "upload_bytes", lambda *_: 1_000_000)
    out = tmp_path / "out"
    out.mkdir()
    (out / "behaviour.html").write_text("of an earlier run")
    heard = Heard({}, {"behaviour": "there is <no> cry"})
    page = write.write_evidence(world, CONFIG, PLAN, cells, heard, out)
    said = page.read_text()
    assert "Not trained yet: central, seed 2; federated, seed 1;" in said
    assert "No page on behaviour: there is &lt;no&gt; cry." in said
    assert not (out / "behaviour.html").exists()
    assert 'href="behaviour.html"' not in said
    assert 'href="abstention.html"' in said
    assert "quick look" in said
    document = json.loads((out / "evidence.json").read_text())
    assert document["command"] == "cryfed evidence --quick"
    assert "without rain" in document["missing"]


def test_navigation_links_what_there_is_and_marks_where_one_is() -> None:
    nav = navigation("abstention", ["abstention", "evidence"])
    assert [(p.href, p.here) for p in nav] == [("evidence.html", False), ("abstention.html", True)]
    assert [p.title for p in navigation("evidence", EVIDENCE)] == list(EVIDENCE.values())
