"""The leaky protocol, as a warning: oversample first, split afterwards, and any labels score near 1.

Published scores near 1 on small cry corpora come of it: minority classes are repeated until all are equally frequent, and the
copies are then dealt out to training and test at random. Nearly every test clip of a rare class has its twin in training. The
score is no result: it stands beside the results, with that of shuffled labels, to show what such a number is worth.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from infra.baselines import ClipTable, Fit, fit_logistic, fit_svm
from models.frames import UNKNOWN
from models.metrics import Floats, Ints, confusion, macro_f1

TEST_SHARE = 0.2
SPLITS = 5
MIN_CLIPS = 10  # of the most frequent reason: fewer leave a class out of the training share
WARNING = (
    "not a result: minority reasons were oversampled before a random split of clips, so that copies of test clips were "
    "trained on"
)


def leaky_protocol(table: ClipTable, seed: int = 0) -> dict[str, Any] | None:
    """Macro-F1 of the baselines under the leaky protocol, on all cries with a reason, whatever their part.

    Returns:
        By baseline the mean over random splits with the least and the most, the same on shuffled labels, which say nothing by
        construction, what was done, and the warning; None where the cries have fewer than two reasons or are a handful.
    """
    cries = (table.gate == 1) & (table.reason != UNKNOWN)
    x, y = table.x[cries].astype(np.float64), table.reason[cries].astype(np.int64)
    if np.unique(y).size < 2 or np.bincount(y).max() < MIN_CLIPS:
        return None
    rng = np.random.Generator(np.random.PCG64(seed))
    shuffled = rng.permutation(y)
    fits: dict[str, Fit] = {
        "logistic_regression": partial(fit_logistic, seed=seed),
        "support_vector_machine": fit_svm,
    }
    return {
        "warning": WARNING,
        "systems": {
            name: {"macro_f1": _splits(x, y, fit, seed), "shuffled_labels": _splits(x, shuffled, fit, seed)}
            for name, fit in fits.items()
        },
        "splits": SPLITS,
        "test_share": TEST_SHARE,
        "clips": int(y.size),
        "clips_after_oversampling": int(oversampled(y, rng).size),
    }


def oversampled(y: Ints, rng: np.random.Generator) -> Ints:
    """Indices into y (n,): every clip once, and clips of rarer classes again until all classes are equally frequent."""
    classes, counts = np.unique(y, return_counts=True)
    more = [
        rng.choice(np.flatnonzero(y == c), counts.max() - n, replace=True)
        for c, n in zip(classes, counts, strict=True)
    ]
    return np.concatenate([np.arange(y.size), *more])


def _splits(x: Floats, y: Ints, fit: Fit, seed: int) -> dict[str, float]:
    scores = [_one_split(x, y, fit, seed + k) for k in range(SPLITS)]
    return {"value": float(np.mean(scores)), "least": min(scores), "most": max(scores)}


def _one_split(x: Floats, y: Ints, fit: Fit, seed: int) -> float:
    rng = np.random.Generator(np.random.PCG64(seed))
    rows = rng.permutation(oversampled(y, rng))
    cut = round(TEST_SHARE * rows.size)
    test, train = rows[:cut], rows[cut:]
    present = np.unique(y[train])
    predicted = present[fit(x[train], y[train])(x[test]).argmax(1)]
    return float(macro_f1(confusion(y[test], predicted, int(y.max()) + 1)))
