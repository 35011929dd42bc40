"""The ablation: one thing changed at a time, paired by seed; worlds where a change needs one; numbers by hand."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from infra.data.synth.config import REASONS
from infra.experiments import ablate
from infra.experiments.ablation import AblationPlan, Base, Training
from infra.experiments.ablation_page import answer, render_ablation, told
from infra.experiments.ablation_summary import f1_of, summarise_ablation
from infra.experiments.cells import Cell, Plan
from infra.experiments.plans import ABLATION, ABLATION_QUICK, FULL, RECIPE
from infra.experiments.results import open_results
from models.adapters import adapter_schema
from models.config import preset
from models.network import CryNet
from tests.infra.experiments.world import write_world

PLAN = replace(ABLATION_QUICK, plan=replace(ABLATION_QUICK.plan, sites=4, rounds=2))


def test_every_change_differs_from_the_recipe_in_one_thing() -> None:
    for change in ABLATION.changes:
        mine, theirs = asdict(change.arm), asdict(RECIPE.arm)
        differs = {k for k in mine if mine[k] != theirs[k]} - {"name", "title"}
        base = {k for k, v in asdict(change.base).items() if v != asdict(RECIPE.base)[k]}
        assert len(differs | base) == 1, change.title


def test_a_rank_changes_the_adapters_and_keeps_their_scale() -> None:
    """Scale α / r is 2 in the preset; a rank r adapter of a (d, k) product has r (d + k) numbers: 8 has twice those of 4."""
    plain, eight = FULL.model(RECIPE.arm), FULL.model(replace(RECIPE.arm, rank=8))
    assert (plain.lora_rank, eight.lora_rank) == (4, 8)
    assert eight.lora_alpha / eight.lora_rank == plain.lora_alpha / plain.lora_rank == 2.0
    sizes = [
        sum(p.numel() for n, p in CryNet(cfg, ("a", "b")).named_parameters() if "lora_" in n)
        for cfg in (plain, eight)
    ]
    assert sizes[1] == 2 * sizes[0]


def test_what_was_filed_before_ranks_is_found_again() -> None:
    """A key is of the arm's fields without `rank` where it is none: the digest that such a cell always had."""
    cell = Cell("measure", FULL.arms[0], FULL.settings[0], 0.1, 1)
    assert FULL.key(cell, "w") == "395c7caba524b9cbebae7fdee56107d5"
    ranked = replace(cell, arm=replace(cell.arm, rank=8))
    assert FULL.key(ranked, "w") != FULL.key(cell, "w")


def test_bases_make_worlds_of_their_own() -> None:
    wide = Base(channels=2.0).network("tiny")
    assert wide.tokenizer_channels == tuple(2 * c for c in preset("tiny").tokenizer_channels)
    assert Base(n_mels=128).network("tiny").n_tokens == 2 * preset("tiny").n_tokens
    plain = PLAN.world_of(Training(RECIPE, 1.0, 2))
    assert plain.denoiser is not None
    assert (plain.denoiser.seed, plain.backbone.seed) == (2, 2)
    without = next(c for c in PLAN.changes if not c.base.denoiser)
    assert PLAN.world_of(Training(without, 1.0, 2)).denoiser is None
    assert PLAN.world_of(Training(RECIPE, 2.0, 2)).synth.difficulty == 2.0
    keys = {PLAN.key(t) for t in PLAN.trainings()}
    assert len(keys) == len(list(PLAN.trainings()))


@pytest.fixture
def worlds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Worlds without audio, that differ in nothing; how many were asked for."""
    made: list[Any] = []

    def build(cfg: Any, _folder: Path) -> Path:
        made.append(cfg)
        return write_world(tmp_path / f"world-{len(made)}", 30, noisy=True)

    monkeypatch.setattr(ablate, "build_world", build)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0})
    return lambda: len(made)


def test_trainings_share_worlds_are_filed_and_not_made_twice(
    tmp_path: Path, worlds: Callable[[], int]
) -> None:
    with open_results(tmp_path / "a.jsonl") as results:
        found = ablate.run_ablation(PLAN, tmp_path, results)
    # seeds × (recipe's base, without denoiser), and the other difficulty
    assert worlds() == 2 * 2 + 1
    assert not list(tmp_path.glob("world-*"))
    assert [t for t, _ in found] == list(PLAN.trainings())
    for _, result in found:
        assert 0 <= result["noisy"]["macro_f1"] <= 1
        assert (
            len(result["predicted"]["said"])
            == len(result["predicted"]["reason"])
            == result["infants"]["test"]
        )
    eight = next(r for t, r in found if t.change.arm.rank == 8)
    net = CryNet(PLAN.plan.model(replace(RECIPE.arm, rank=8)), REASONS)
    assert eight["parameters"] == adapter_schema(net).size
    with open_results(tmp_path / "a.jsonl") as results:
        again = ablate.run_ablation(PLAN, tmp_path, results, lambda *_: pytest.fail("trained twice"))
    assert again == found


def result(f1: float, noisy: float) -> dict[str, Any]:
    said = {"infant": [0, 1, 2, 3], "reason": [0, 1, 0, 1], "said": [0, 1, 0, 0]}
    return {
        "recorded": {"macro_f1": f1, "gate_auroc": 0.9}, "noisy": {"macro_f1": noisy, "gate_auroc": 0.8}, "predicted": said,
        "diverged": None, "parameters": 10, "upload_bytes": 1000, "skew": 0.4,
        "infants": {"train": 12, "test": 4}, "code": "c0de",
    }  # fmt: skip


def summary(plan: AblationPlan = PLAN) -> dict[str, Any]:
    """The recipe has 0.5 and 0.6 by seed, 0.3 less in noise; without the denoiser 0.4 and 0.5, 0.5 less in noise."""
    found = []
    for t in plan.trainings():
        f1 = 0.4 + 0.1 * t.seed
        plain = t.change.base.denoiser
        found.append((t, result(f1 if plain else f1 - 0.1, f1 - 0.3 if plain else f1 - 0.5)))
    simple = {"infant": ["a", "b", "c"], "reason": [0, 1, 1], "said": [0, 1, 0], "majority": 1}
    return summarise_ablation(plan, found, dict.fromkeys(plan.difficulties, simple))


def test_differences_are_paired_by_seed() -> None:
    """Both seeds lose 0.1 and 0.2 exactly: the interval has no width, though the scores scatter by 0.1."""
    row = next(c for c in summary()["changes"] if c["name"] == "no_denoiser")
    for view, value in (("recorded", -0.1), ("noisy", -0.2)):
        d = row["difference"][f"{view}_macro_f1"]
        assert d["value"] == pytest.approx(value)
        assert d["low"] == pytest.approx(value)
        assert d["high"] == pytest.approx(value)
    assert row["recorded_macro_f1"]["value"] == pytest.approx(0.45)
    assert told(row["difference"]["noisy_macro_f1"]) == "worse"


def test_macro_f1_of_predictions_by_hand() -> None:
    """Truth 0 1 1, said 0 1 0: F1 of both classes 2/3; another that says all right makes the mean (2/3 + 1) / 2."""
    one = {"infant": [1, 2, 3], "reason": [0, 1, 1], "said": [0, 1, 0]}
    right = {**one, "said": [0, 1, 1]}
    assert f1_of([one], 50)["value"] == pytest.approx(2 / 3)
    assert f1_of([one, right], 50)["value"] == pytest.approx((2 / 3 + 1) / 2)
    found = f1_of([one], 50)
    assert found["low"] <= found["value"] <= found["high"]
    assert found["groups"] == 3


def test_the_page_says_what_differs_and_what_it_is_made_of() -> None:
    document = summary()
    assert "no denoiser (worse as recorded), no denoiser (worse at 0 dB)" in answer(document)
    page = render_ablation(document)
    assert "<script" not in page
    assert "synthetic data" in page
    assert "quick look" in page
    assert "cryfed experiments --plan ablation --quick" in page
    assert page == render_ablation(summary())
    calm = {**document, "changes": [c for c in document["changes"] if c["name"] != "no_denoiser"]}
    assert "none shows a difference" in answer(calm)
    assert told({"value": 1.0, "low": None, "high": None}) == "one seed says nothing"


def test_a_plan_needs_distinct_names() -> None:
    from models.errors import ConfigError

    with pytest.raises(ConfigError, match="distinct"):
        replace(PLAN, changes=(RECIPE,))


def test_the_plan_is_one_of_plain_numbers() -> None:
    assert isinstance(PLAN.plan, Plan)
    assert PLAN.command == "cryfed experiments --plan ablation --quick"
    assert ABLATION.command == "cryfed experiments --plan ablation"
