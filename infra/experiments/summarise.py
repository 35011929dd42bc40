"""From cells to `experiments.json`: curves with bands, rounds to a target, and differences paired by seed.

Intervals are 95 % intervals of a mean over seeds (Student's t). A seed redraws the partition, the adapters, the reason head, the
batches and the sites asked; corpus, held-out infants and backbone are the same for all, so they are no part of an interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.experiments.cells import Arm, Cell, Plan, Setting
from infra.experiments.run import tuning_score

Json = dict[str, Any]
Floats = npt.NDArray[np.float64]

TARGET = 0.95
"""Of the best arm's final macro-F1 in the same setting."""
LAST = 5
"""Rounds that a final score is the mean of."""
WINDOW = 3
"""Rounds over which a curve must hold the target on average: one lucky round does not count."""
CLAIM = 0.25
"""The paper's: control variates take 25 % fewer rounds (arXiv 2512.13880)."""


def mean_interval(values: Sequence[float]) -> Json:
    """Mean and the ends of its 95 % interval; no ends for a single value."""
    from scipy import stats

    x = np.asarray(values, np.float64)
    mean = float(x.mean())
    if len(x) < 2:
        return {"value": mean, "low": None, "high": None}
    half = float(stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x)))
    return {"value": mean, "low": mean - half, "high": mean + half}


def rounds_to(curve: Sequence[float], target: float) -> int | None:
    """The first round from which WINDOW rounds reach the target on average; None if there is none."""
    if len(curve) < WINDOW:
        return None
    means = np.convolve(curve, np.full(WINDOW, 1.0 / WINDOW), mode="valid")
    reached = np.flatnonzero(means >= target - 1e-12)
    return int(reached[0]) + 1 if len(reached) else None


def saving(with_it: Sequence[int | None], without: Sequence[int | None], rounds: int) -> Json:
    """1 − (rounds with ÷ rounds without), geometric mean over paired seeds, and its interval; negative where it costs rounds.

    A run that never reaches the target counts as rounds + 1, the least it can have needed; `censored` says how many did on
    either side.
    """
    log_ratio = [
        math.log((a or rounds + 1) / (b or rounds + 1)) for a, b in zip(with_it, without, strict=True)
    ]
    m = mean_interval(log_ratio)
    ends: dict[str, float | None] = {"low": None, "high": None}
    if m["low"] is not None:
        ends = {"low": 1 - math.exp(m["high"]), "high": 1 - math.exp(m["low"])}
    return {
        "value": 1 - math.exp(m["value"]),
        **ends,
        "by_seed": [round(1 - math.exp(r), 4) for r in log_ratio],
        "censored": {"with": sum(a is None for a in with_it), "without": sum(b is None for b in without)},
    }


def summarise(
    plan: Plan,
    world: Json,
    tuning: Sequence[tuple[Cell, Json]],
    measured: Sequence[tuple[Cell, Json]],
) -> Json:
    """The whole document."""
    settings = {*plan.settings, *plan.ablation_settings}
    ordered = sorted(settings, key=lambda s: (-s.participation, -s.alpha))
    by_setting = {s: [(c, r) for c, r in measured if c.setting == s] for s in ordered}
    return {
        "plan": {**asdict(plan), "world": world},
        "definitions": {"target": TARGET, "last": LAST, "window": WINDOW, "claim": CLAIM},
        "tuning": _tuning(tuning, plan),
        "settings": [_setting(plan, s, cells) for s, cells in by_setting.items() if cells],
        "comparisons": compare(plan, by_setting),
        "code": sorted({r["code"] for _, r in (*tuning, *measured)}),
        "cells": [r for _, r in measured],
    }


def _tuning(cells: Sequence[tuple[Cell, Json]], plan: Plan) -> list[Json]:
    rows: dict[tuple[str, Setting], dict[float, Json]] = {}
    for cell, result in cells:
        rows.setdefault((cell.arm.name, cell.setting), {})[cell.lr] = result
    made = []
    for (arm, setting), found in rows.items():
        scores = {lr: tuning_score(result) for lr, result in found.items()}
        best = max(scores, key=lambda lr: (scores[lr], -lr))
        made.append(
            {
                "arm": arm, **asdict(setting), "chosen": best,
                "at_the_edge": best in (min(plan.rates), max(plan.rates)),
                "scores": {f"{lr:g}": None if math.isinf(s) else round(s, 4) for lr, s in sorted(scores.items())},
            }
        )  # fmt: skip
    return made


def _setting(plan: Plan, setting: Setting, cells: Sequence[tuple[Cell, Json]]) -> Json:
    target = target_of(plan, cells)
    arms = []
    for arm in (*plan.arms, *plan.ablations):
        found = sorted(
            ((c, r) for c, r in cells if c.arm == arm), key=lambda item: plan.seeds.index(item[0].seed)
        )
        if found:
            arms.append(_arm(arm, found, target, plan.rounds))
    return {
        **asdict(setting),
        "target": target,
        "skew": round(float(np.mean([r["skew"] for _, r in cells])), 3),
        "arms": arms,
    }


def target_of(plan: Plan, cells: Sequence[tuple[Cell, Json]]) -> float:
    """TARGET of the best final macro-F1 among the arms of the comparison proper (of all, where none of them ran)."""
    names = {arm.name for arm in plan.arms}
    main = [(c, r) for c, r in cells if c.arm.name in names] or list(cells)
    finals: dict[str, list[float]] = {}
    for cell, result in main:
        finals.setdefault(cell.arm.name, []).append(_final(_curve(result, "macro_f1", plan.rounds)))
    return TARGET * max(float(np.mean(values)) for values in finals.values())


def _arm(arm: Arm, found: Sequence[tuple[Cell, Json]], target: float, rounds: int) -> Json:
    results = [r for _, r in found]
    f1 = np.stack([_curve(r, "macro_f1", rounds) for r in results])
    gate = np.stack([_curve(r, "gate_auroc", rounds) for r in results])
    per_round = results[0]["upload_bytes"] * results[0]["sites_asked"] / 1e6
    reached = [rounds_to(list(curve), target) for curve in f1]
    hit = [r for r in reached if r is not None]
    return {
        "arm": arm.name,
        "title": arm.title,
        "lr": found[0][0].lr,
        "seeds": [c.seed for c, _ in found],
        "diverged": sum(r["diverged"] is not None for r in results),
        "upload_kb_per_site_and_round": results[0]["upload_bytes"] / 1e3,
        "mb_per_round": per_round,
        "macro_f1": _band(f1),
        "gate_auroc": _band(gate),
        "final": mean_interval([_final(c) for c in f1]),
        "mean_over_rounds": mean_interval([float(c.mean()) for c in f1]),
        "final_gate": mean_interval([_final(c) for c in gate]),
        "rounds_to_target": {
            "by_seed": reached,
            "reached": len(hit),
            "median": float(np.median([r or rounds + 1 for r in reached])),
            "mb": None if len(hit) < len(reached) else float(np.mean(hit)) * per_round,
        },
    }


def _curve(result: Json, name: str, rounds: int) -> Floats:
    """A curve at full length: a diverged training is worth 0 from then on."""
    curve = np.zeros(rounds)
    curve[: len(result[name])] = result[name]
    return curve


def _final(curve: Floats) -> float:
    return float(curve[-LAST:].mean())


def _band(curves: Floats) -> Json:
    """Mean by round, and its interval."""
    bands = [mean_interval(list(column)) for column in curves.T]
    return {
        "mean": [round(b["value"], 5) for b in bands],
        "low": [None if b["low"] is None else round(b["low"], 5) for b in bands],
        "high": [None if b["high"] is None else round(b["high"], 5) for b in bands],
    }


def compare(plan: Plan, by_setting: Mapping[Setting, Sequence[tuple[Cell, Json]]]) -> list[Json]:
    """Every arm against the one it is read against, setting by setting and over all settings, paired by seed."""
    rows = []
    for with_it, without, question in plan.questions:
        savings, per_seed = [], dict[int, list[float]]()
        for setting, cells in by_setting.items():
            a, b = (_by_seed(cells, name) for name in (with_it, without))
            seeds = [s for s in plan.seeds if s in a and s in b]
            if not seeds:
                continue
            target = target_of(plan, cells)
            curves = [
                [_curve(side[s], "macro_f1", plan.rounds) for s in seeds] for side in (a, b)
            ]  # fmt: skip
            reached = [[rounds_to(list(c), target) for c in side] for side in curves]
            saved = saving(reached[0], reached[1], plan.rounds)
            for seed, value in zip(seeds, saved["by_seed"], strict=True):
                per_seed.setdefault(seed, []).append(math.log(1 - value))
            savings.append(
                {
                    **asdict(setting),
                    "seeds": seeds,
                    "rounds_with": reached[0],
                    "rounds_without": reached[1],
                    "saving": saved,
                    "final_difference": _difference(curves, _final),
                    "mean_difference": _difference(curves, lambda c: float(c.mean())),
                }
            )
        if savings:
            full = [values for values in per_seed.values() if len(values) == len(savings)]
            m = mean_interval([float(np.mean(values)) for values in full])
            overall = {k: None if m[v] is None else 1 - math.exp(m[v]) for k, v in
                       (("value", "value"), ("low", "high"), ("high", "low"))}  # fmt: skip
            rows.append(
                {
                    "with": with_it,
                    "without": without,
                    "question": question,
                    "overall": overall,
                    "settings": savings,
                }
            )
    return rows


def _by_seed(cells: Sequence[tuple[Cell, Json]], arm: str) -> dict[int, Json]:
    return {c.seed: r for c, r in cells if c.arm.name == arm}


def _difference(curves: Sequence[Sequence[Floats]], value: Any) -> Json:
    return mean_interval([value(a) - value(b) for a, b in zip(*curves, strict=True)])
