"""Numbers by hand: intervals, rounds to a target, paired savings."""

from __future__ import annotations

import math
from typing import Any

import pytest

from infra.experiments.cells import Cell, Setting
from infra.experiments.summarise import mean_interval, rounds_to, saving, summarise
from tests.infra.experiments.world import PLAN

SETTING = PLAN.settings[0]


def test_interval_by_hand() -> None:
    """1, 2, 3: mean 2, s = 1, t(0.975; 2) = 4.302653, half-width 4.302653 / √3 = 2.484138."""
    found = mean_interval([1.0, 2.0, 3.0])
    assert found["value"] == 2.0
    assert found["low"] == pytest.approx(2 - 2.484138, abs=1e-6)
    assert found["high"] == pytest.approx(2 + 2.484138, abs=1e-6)
    assert mean_interval([0.4]) == {"value": 0.4, "low": None, "high": None}


def test_a_lucky_round_does_not_reach_the_target() -> None:
    assert rounds_to([0.0, 0.9, 0.0, 0.5, 0.5, 0.5], 0.5) == 4
    assert rounds_to([0.5, 0.5, 0.5], 0.5) == 1
    assert rounds_to([0.1, 0.2, 0.3], 0.5) is None
    assert rounds_to([0.9, 0.9], 0.5) is None


def test_saving_by_hand() -> None:
    """Halving and quartering the rounds saves 1 − √(1/8) of them in geometric mean; never reaching counts as rounds + 1."""
    found = saving([10, 5], [20, 20], 50)
    assert found["value"] == pytest.approx(1 - math.sqrt(1 / 8))
    assert found["by_seed"] == [0.5, 0.75]
    assert found["low"] < found["value"] < found["high"]
    censored = saving([10, None], [None, 17], 50)
    assert censored["by_seed"] == [round(1 - 10 / 51, 4), -2.0]
    assert censored["censored"] == {"with": 1, "without": 1}
    assert saving([7], [7], 50)["value"] == 0.0


def result(curve: list[float], **more: Any) -> dict:
    return {
        "macro_f1": curve, "gate_auroc": curve, "loss": curve, "update_norm": curve, "diverged": None,
        "code": "c0de", "skew": 0.5, "upload_bytes": 1000, "sites_asked": 2, "parameters": 250, **more,
    }  # fmt: skip


def document(curves: dict[str, list[list[float]]]) -> dict:
    """Arms with a curve for each seed; every other arm stays at 0."""
    tuning = [(c, result([c.lr])) for c in PLAN.tuning()]
    chosen: dict[tuple[str, Setting], float] = {(c.arm.name, c.setting): 0.2 for c in PLAN.tuning()}
    measured = []
    for cell in PLAN.measured(chosen):
        at = PLAN.seeds.index(cell.seed)
        found = curves.get(cell.arm.name, [[0.0] * 5] * 2)[at]
        measured.append((cell, result(found)))
    return summarise(
        PLAN, {"infants": {"train": 40, "val": 10, "test": 10}, "parameters": 250}, tuning, measured
    )


CURVES = {
    "average": [[0.1, 0.2, 0.5, 0.5, 0.5], [0.1, 0.5, 0.5, 0.5, 0.5]],
    "cv": [[0.5, 0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5, 0.5]],
}


def test_document_by_hand() -> None:
    """The best arm's final score is 0.5, so the target is 0.475: reached at once with, in rounds 3 and 2 without."""
    found = document(CURVES)
    (setting,) = found["settings"]
    assert setting["target"] == pytest.approx(0.475)
    arms = {arm["arm"]: arm for arm in setting["arms"]}
    assert arms["cv"]["rounds_to_target"]["by_seed"] == [1, 1]
    assert arms["average"]["rounds_to_target"]["by_seed"] == [3, 2]
    assert arms["average"]["rounds_to_target"]["mb"] == pytest.approx(2.5 * 2 * 1000 / 1e6)
    assert arms["prox"]["rounds_to_target"] == {
        "by_seed": [None, None],
        "reached": 0,
        "median": 6.0,
        "mb": None,
    }
    assert arms["cv"]["macro_f1"]["mean"] == [0.5] * 5
    comparison = next(c for c in found["comparisons"] if c["with"] == "cv")
    assert comparison["settings"][0]["saving"]["value"] == pytest.approx(1 - math.sqrt(1 / 6))
    assert comparison["overall"]["value"] == pytest.approx(1 - math.sqrt(1 / 6), abs=1e-4)
    assert comparison["settings"][0]["mean_difference"]["value"] == pytest.approx((0.14 + 0.08) / 2)


def test_tuning_says_what_was_tried_and_whether_the_best_is_at_an_edge() -> None:
    rows = document(CURVES)["tuning"]
    assert [r["chosen"] for r in rows] == [0.2] * len(rows)
    assert all(r["at_the_edge"] for r in rows)
    assert rows[0]["scores"] == {"0.05": 0.05, "0.2": 0.2}


def test_a_diverged_training_counts_as_nothing_from_there_on() -> None:
    cells = {"cv": [[0.5] * 5, [0.5, 0.5]]}
    found = document({**CURVES, **cells})
    arm = next(a for a in found["settings"][0]["arms"] if a["arm"] == "cv")
    assert arm["macro_f1"]["mean"] == [0.5, 0.5, 0.25, 0.25, 0.25]
    assert arm["rounds_to_target"]["by_seed"] == [1, None]


def test_ablations_are_compared_over_the_seeds_that_they_have() -> None:
    found = document(CURVES)
    row = next(c for c in found["comparisons"] if c["with"] == "cv_8bit")
    assert row["settings"][0]["seeds"] == [1]
    assert row["overall"]["low"] is None
    assert isinstance(PLAN.measured({(c.arm.name, c.setting): 0.2 for c in PLAN.tuning()})[0], Cell)
