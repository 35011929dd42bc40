"""Signals of doubt on out-of-fold scores: one table a seed, statistics within a fold, means over folds and seeds.

Every fold was scored by a network of its own, and an energy or a distance of one network is not on the scale of another's. A clip
is therefore ranked against the clips of its own fold only, as the one network of a release would rank it; a statistic is the mean
over the folds that have both sides, and over the seeds. Seeds' *statistics* are averaged, not their scores: the mean score
of three networks is an ensemble's, which ranks better than any network that would be released.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infra.evaluation.protocol import Mask
from models.errors import DataError
from models.metrics import Floats, softmax
from models.predict import ClipScores

SIGNALS = ("energy", "max_softmax", "gate", "mahalanobis")  # in the order of the page

Scores = ClipScores | Mapping[int, ClipScores]
Distances = npt.ArrayLike | Mapping[int, npt.ArrayLike]
Metric = Callable[..., Floats]  # (score, positive, weight) → values


@dataclass(frozen=True)
class SeedScores:
    """One seed's rows with their signals: (R,) each, higher = more like a cry."""

    seed: int
    scores: ClipScores
    signals: Mapping[str, Floats]

    def rows(self, keep: npt.NDArray) -> SeedScores:
        """The rows of a mask or of indices."""
        cut = {name: x[keep] for name, x in self.signals.items()}
        return SeedScores(self.seed, self.scores.select(keep), cut)

    @property
    def cry(self) -> Mask:
        """Rows of cries."""
        return np.asarray(self.scores.gate) == 1


def seeds_of(scores: Scores, distance: Distances | None = None) -> tuple[list[SeedScores], dict[str, str]]:
    """The seeds' tables in one order of rows, and the signals that are left out with the reason.

    Args:
        scores: of one seed, or by seed; `part` holds the fold. Rows that are neither cry nor non-cry are dropped.
        distance: Mahalanobis distances (R,) in the order of `scores`, or those by seed.

    Raises:
        DataError: no seed, seeds of different clips, a clip twice, or distances that do not fit.
    """
    by_seed = dict(scores) if isinstance(scores, Mapping) else {0: scores}
    if isinstance(distance, Mapping):
        far: dict[int, npt.ArrayLike] = dict(distance)
    else:
        far = {} if distance is None else {next(iter(by_seed), 0): distance}
    if not by_seed:
        raise DataError("no scores: give those of one seed at least")
    if far and set(far) != set(by_seed):
        raise DataError(f"distances of seeds {sorted(far)} for scores of seeds {sorted(by_seed)}")
    out: list[SeedScores] = []
    for seed in sorted(by_seed):
        s = by_seed[seed]
        signals = {"energy": -np.asarray(s.energy, np.float64)}
        if np.shape(s.reason_logits)[1]:
            signals["max_softmax"] = softmax(s.reason_logits).max(1)
        signals["gate"] = np.asarray(s.gate_logit, np.float64)
        if seed in far:
            signals["mahalanobis"] = -np.asarray(far[seed], np.float64)
            if signals["mahalanobis"].shape != (len(s),):
                raise DataError(
                    f"seed {seed}: {np.size(far[seed])} distances for {len(s)} rows of scores; give one a row"
                )
        order = np.lexsort((s.view, s.clip_id, s.site))
        out.append(SeedScores(seed, s, signals).rows(order[np.asarray(s.gate)[order] >= 0]))
    _same_clips(out)
    left_out = {}
    for name in SIGNALS:
        have = [table.signals[name] for table in out if name in table.signals]
        if len(have) < len(out):
            left_out[name] = "no distances were given" if name == "mahalanobis" else "there is no reason head"
        elif any(np.isnan(x).any() for x in have):
            left_out[name] = "undefined for some clips"
    kept = [name for name in SIGNALS if name not in left_out]
    return [SeedScores(t.seed, t.scores, {n: t.signals[n] for n in kept}) for t in out], left_out


def _same_clips(tables: Sequence[SeedScores]) -> None:
    first = tables[0].scores
    names = np.stack([first.site, first.clip_id, first.view.astype(str)])
    if len(first) and np.unique(names, axis=1).shape[1] < len(first):
        raise DataError("a clip is scored twice by one seed; out-of-fold scores hold each clip once")
    for table in tables[1:]:
        same = len(table.scores) == len(first) and all(
            np.array_equal(getattr(table.scores, f), getattr(first, f))
            for f in ("site", "clip_id", "view", "group", "gate", "reason")
        )
        if not same:
            raise DataError(
                f"seeds {tables[0].seed} and {table.seed} hold different clips; score the same clips with every seed"
            )


def within_folds(
    metric: Metric,
    score: Floats,
    positive: Mask,
    fold: npt.NDArray,
    weight: Floats | None,
    *,
    both_sides: bool = True,
) -> Floats:
    """Mean over the folds of a metric of their own clips: shape of `weight` without its last axis, 0-d without weights.

    Folds that say nothing are left out: without a clip, and for a metric that compares `both_sides` also without a positive or
    without a negative. NaN where that leaves none.
    """
    w = np.ones(score.size) if weight is None else weight
    total, folds = np.zeros(w.shape[:-1]), np.zeros(w.shape[:-1])
    for f in np.unique(fold):
        at = fold == f
        inside, y = w[..., at], positive[at]
        value = metric(score[at], y, inside)
        yes, no = inside[..., y].sum(-1) > 0, inside[..., ~y].sum(-1) > 0
        defined = ((yes & no) if both_sides else (yes | no)) & ~np.isnan(value)
        total += np.where(defined, value, 0.0)
        folds += defined
    return np.divide(total, folds, out=np.full(total.shape, np.nan), where=folds > 0)


def mean_curve(
    curve: Callable[[Floats, Mask], tuple[Floats, Floats]],
    tables: Sequence[tuple[Floats, Mask, npt.NDArray]],
    grid: Floats,
    *,
    stepped: bool,
) -> list[list[float]]:
    """Vertical mean over folds and seeds of a curve y(x) on a grid of x (Fawcett 2006); empty where no fold has one.

    `tables` holds (score, positive, fold) of every seed. Stepped curves take the first point at or beyond x (precision over
    recall, risk over coverage); others are linear between points (ROC).
    """
    drawn = []
    for score, positive, fold in tables:
        for f in np.unique(fold):
            at = fold == f
            x, y = curve(score[at], positive[at])
            if x.size == 0 or np.isnan(x).any() or np.isnan(y).any():
                continue
            if stepped:
                drawn.append(y[np.minimum(np.searchsorted(x, grid - 1e-12), x.size - 1)])
            else:
                drawn.append(np.interp(grid, x, y))
    if not drawn:
        return [[], []]
    return [[round(float(v), 5) for v in column] for column in (grid, np.mean(drawn, axis=0))]
