"""Has the data moved away from what the model learned from? PSI and KL by feature, with what chance alone would give.

    none    the PSI is what two samples of one distribution give at these sizes
    watch   above the 95 % quantile of that: one feature in twenty is, without any drift
    drift   above what chance gives in any of the features (Bonferroni), and by at least 0.1 more than chance gives on average

The last condition keeps large samples from alarming at differences that mean nothing; the first two keep small ones from alarming
at noise. The folklore's limits (0.1 moderate, 0.25 large) stand beside, and decide nothing by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from models.bootstrap import group_bootstrap
from models.errors import DataError
from models.permutation import permutation_p
from models.seeds import derive_seed
from validation import divergence
from validation.reference import (
    MEASURED,
    NAMED,
    MeasuredFeature,
    NamedFeature,
    Reference,
)

Outcome = Literal["none", "watch", "drift"]

ALPHA: Final = 0.05
MATERIAL: Final = 0.1  # PSI beyond what chance gives on average, without which nothing is called drift
FOLKLORE: Final = ((0.25, "large"), (0.1, "moderate"))
LEAST_NEW: Final = 10  # clips, below which nothing can be said

Json = dict[str, Any]


@dataclass(frozen=True)
class DriftConfig:
    """How often things are drawn, and from which seed."""

    resamples: int = 1000  # of the new groups, for the interval
    draws: int = 9999  # of pairs without drift, for threshold and p-value
    seed: int = 0


def compare(reference: Reference, clips: pd.DataFrame, config: DriftConfig | None = None) -> Json:
    """Hold new clips against a reference.

    Args:
        reference: of the training part.
        clips: what `validation.reference.observe` returned for the new data.
        config: draws and seed; equal inputs give equal documents.

    Returns:
        `verdict`, the worst of the features'; `features`, by falling PSI, each with `psi` and its interval over new groups, `kl`
        (new from reference, nats), `expected` and `threshold` of PSI without drift, `p`, `folklore`, `verdict` and `cells`
        (label, shares and counts); `left_out`: why a feature is not judged; `reference`, `new` and `protocol`.

    Raises:
        DataError: too few clips.
    """
    config = config or DriftConfig()
    if len(clips) < LEAST_NEW:
        raise DataError(
            f"{len(clips)} clips recorded at sites are too few to look for drift: at least {LEAST_NEW} are needed; "
            "wait for more, or choose other rows"
        )
    left_out = {
        name: "too few clips in the reference" for name in (*NAMED, *MEASURED) if name not in _names(reference)
    }  # fmt: skip
    judged: list[Json] = []
    for feature in reference.features:
        cell = feature.place(clips[feature.name])
        if int(np.sum(cell >= 0)) < LEAST_NEW:
            left_out[feature.name] = f"fewer than {LEAST_NEW} new clips"
            continue
        judged.append(_measure(feature, cell[cell >= 0], clips["group"].to_numpy()[cell >= 0], config))
    for row in judged:
        row["verdict"] = _verdict(row, len(judged))
    judged.sort(key=lambda row: (-row["psi"]["value"], row["name"]))
    return {
        "schema": 1,
        "verdict": worst([row["verdict"] for row in judged]),
        "features": judged,
        "left_out": left_out,
        "reference": {
            "clips": reference.clips,
            "groups": reference.groups,
            "manifest": reference.manifest,
        },
        "new": {"clips": len(clips), "groups": int(clips["group"].nunique())},
        "protocol": {
            "alpha": ALPHA,
            "material": MATERIAL,
            "smoothing": divergence.SMOOTHING,
            "resamples": config.resamples,
            "draws": config.draws,
            "seed": config.seed,
        },
    }


def worst(verdicts: list[Outcome]) -> Outcome:
    """The gravest of some verdicts."""
    order: tuple[Outcome, ...] = ("drift", "watch", "none")
    return next((v for v in order if v in verdicts), "none")


def folklore(value: float) -> str:
    """What the customary limits would call a PSI."""
    return next((name for limit, name in FOLKLORE if value >= limit), "small")


def summary(document: Json) -> str:
    """A drift document in one line."""
    if document["verdict"] == "none":
        return f"no drift in {len(document['features'])} features"
    named = {
        v: [row["name"] for row in document["features"] if row["verdict"] == v] for v in ("drift", "watch")
    }
    return "; ".join(f"{verdict}: {', '.join(names)}" for verdict, names in named.items() if names)


def _names(reference: Reference) -> set[str]:
    return {feature.name for feature in reference.features}


def _measure(
    feature: MeasuredFeature | NamedFeature,
    cell: npt.NDArray[np.int64],
    group: npt.NDArray[Any],
    config: DriftConfig,
) -> Json:
    """Everything about one feature but its verdict, which depends on how many there are."""
    known = np.array(feature.counts)
    found = np.bincount(cell, minlength=len(known))
    used = np.flatnonzero(known + found)
    before, after = known[used], found[used]
    seed = derive_seed("drift", config.seed, feature.name)
    effective = divergence.effective_size(cell, group)
    null = divergence.null_psi(
        after, before, effective_new=effective, effective_reference=feature.effective, draws=config.draws, seed=seed
    )  # fmt: skip
    value = float(divergence.psi(after, before))
    member = (cell[:, None] == used).astype(np.float64)  # (clips, cells)
    # a resample of the new groups adds their chance once more; that is taken off again
    bias = (len(used) - 1) / effective

    def psi(weight: npt.NDArray[np.float64] | None) -> npt.NDArray[np.float64]:
        if weight is None:
            return np.asarray(value)
        return np.maximum(divergence.psi(weight @ member, before) - bias, 0.0)

    interval = group_bootstrap(psi, group, seed=seed, resamples=config.resamples)
    labels = feature.labels()
    title, unit = MEASURED.get(feature.name, (NAMED.get(feature.name, ""), ""))
    return {
        "name": feature.name,
        "title": title,
        "unit": unit,
        "kind": feature.kind,
        "clips": len(cell),
        "effective": round(effective, 1),
        "psi": interval.to_dict(),
        "kl": float(
            divergence.kl_of_shares(divergence.smoothed_shares(after), divergence.smoothed_shares(before))
        ),
        "expected": divergence.expected_psi(len(used), feature.effective, effective),
        "threshold": float(np.quantile(null, 1 - ALPHA)),
        "p": permutation_p(value, null),
        "folklore": folklore(value),
        "cells": [
            {
                "label": labels[k],
                "reference": int(known[k]),
                "new": int(found[k]),
                "reference_share": float(known[k] / known.sum()),
                "new_share": float(found[k] / found.sum()),
            }
            for k in used
        ],
    }


def _verdict(row: Json, features: int) -> Outcome:
    material = row["psi"]["value"] - row["expected"] >= MATERIAL
    if row["p"] * features < ALPHA and material:
        return "drift"
    return "watch" if row["p"] < ALPHA else "none"
