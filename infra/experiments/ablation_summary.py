"""From trainings to `ablation.json`: each change against the recipe, paired by seed, and macro-F1 by difficulty.

A change's difference is “changed − recipe”, seed by seed; its 95 % interval is that of a mean over seeds (Student's t). Corpus
and held-out infants are the same for all seeds, so they are no part of it. By difficulty the corpus itself is what is asked
about: there the interval is the percentile interval of a bootstrap over held-out infants, of the mean over seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.data.synth.config import REASONS
from infra.experiments.ablation import NOISY_DB, AblationPlan, Change, Training
from infra.experiments.summarise import mean_interval
from models import metrics as m
from models.bootstrap import group_bootstrap

Json = dict[str, Any]

SCORES = (
    ("recorded", "macro_f1"),
    ("noisy", "macro_f1"),
    ("recorded", "gate_auroc"),
    ("noisy", "gate_auroc"),
)
BOOTSTRAP_SEED = 0


def summarise_ablation(
    plan: AblationPlan, found: Sequence[tuple[Training, Json]], simple: Mapping[float, Json]
) -> Json:
    """The whole document; `simple` is `ablate.simple_model` by difficulty."""
    base = _by_seed(found, plan.recipe)
    some = next(iter(base.values()))
    return {
        "protocol": " ".join((__doc__ or "").split("\n\n", 1)[1].split()),
        "command": plan.command,
        "quick": plan.quick,
        "noisy_db": NOISY_DB,
        "seeds": list(plan.seeds),
        "difficulty_seeds": list(plan.seeds[: plan.difficulty_seeds]),
        "resamples": plan.resamples,
        "plan": {
            "preset": plan.plan.preset, "sites": plan.plan.sites, "rounds": plan.plan.rounds, "lr": plan.lr,
            "local": asdict(plan.plan.local), "setting": asdict(plan.setting), "world": plan.world.to_dict(),
        },
        "infants": some["infants"],
        "skew": round(float(np.mean([r["skew"] for r in base.values()])), 3),
        "recipe": {"title": plan.recipe.title, "arm": asdict(plan.recipe.arm), **_scores(list(base.values()))},
        "changes": [_change(change, _by_seed(found, change), base) for change in plan.changes],
        "difficulty": [_difficulty(plan, d, found, simple[d]) for d in plan.difficulties],
        "code": sorted({r["code"] for _, r in found}),
    }  # fmt: skip


def _by_seed(
    found: Sequence[tuple[Training, Json]], change: Change, difficulty: float = 1.0
) -> dict[int, Json]:
    return {t.seed: r for t, r in found if t.change == change and t.difficulty == difficulty}


def _scores(results: Sequence[Json]) -> Json:
    return {
        **{f"{view}_{name}": mean_interval([r[view][name] for r in results]) for view, name in SCORES},
        "upload_bytes": results[0]["upload_bytes"],
        "parameters": results[0]["parameters"],
        "diverged": sum(r["diverged"] is not None for r in results),
    }


def _change(change: Change, mine: Mapping[int, Json], base: Mapping[int, Json]) -> Json:
    seeds = [s for s in base if s in mine]
    return {
        "name": change.arm.name,
        "component": change.component,
        "title": change.title,
        "seeds": seeds,
        **_scores([mine[s] for s in seeds]),
        "difference": {
            f"{view}_{name}": mean_interval([mine[s][view][name] - base[s][view][name] for s in seeds])
            for view, name in SCORES
        },
    }


def _difficulty(
    plan: AblationPlan, difficulty: float, found: Sequence[tuple[Training, Json]], simple: Json
) -> Json:
    seeds = plan.seeds[: plan.difficulty_seeds]
    by_seed = _by_seed(found, plan.recipe, difficulty)
    said = [by_seed[s]["predicted"] for s in seeds if s in by_seed]
    constant = {**simple, "said": [simple["majority"]] * len(simple["said"])}
    return {
        "difficulty": difficulty,
        "benchmark": difficulty == plan.world.synth.difficulty,
        "infants": len(set(simple["infant"])),
        "cries": len(simple["reason"]),
        "seeds": len(said),
        "network": f1_of(said, plan.resamples),
        "logistic_regression": f1_of([simple], plan.resamples),
        "majority": f1_of([constant], plan.resamples),
    }


def f1_of(predictions: Sequence[Json], resamples: int) -> Json:
    """Macro-F1, the mean over several systems' predictions of the same cries, with its interval over infants.

    Args:
        predictions: each `infant`, `reason` and `said`, one entry a cry, in one order.
        resamples: of the bootstrap.
    """
    infant = np.asarray(predictions[0]["infant"])
    truth = np.asarray(predictions[0]["reason"], np.int64)
    said = [np.asarray(p["said"], np.int64) for p in predictions]

    def mean(w: npt.NDArray[np.float64] | None) -> npt.NDArray[np.float64]:
        return np.mean([m.macro_f1(m.confusion(truth, one, len(REASONS), w)) for one in said], axis=0)

    return group_bootstrap(mean, infant, seed=BOOTSTRAP_SEED, resamples=resamples).to_dict()
