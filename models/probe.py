"""A probe that asks of features and labels, before anything is trained: is there a signal at all?

Ridge regression of class indicators on standardised features, cross-validated by group, each class's score in deviations of
its indicator, so that a rare class can win and none wins by noise alone. It is linear in the labels: each fold has one matrix
from training labels to test scores, so the null distribution, with the probe fitted anew to every relabelling, costs a product of
matrices instead of hundreds of fits.

A site answers with counts alone (confusion matrices: as labelled, relabelled, of resampled groups). Counts of several sites add
up, draw by draw, to the same test over all of them, stratified by site: `pool_probes`, then `judge_probe`.

Legend: n clips · D features · C classes · R draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.bootstrap import group_draws
from models.metrics import Floats, Ints, confusion, macro_f1
from models.permutation import permutation_p, relabellings

FOLDS = 5
DRAWS = 499
RIDGE = 0.1  # of the mean kernel diagonal; from 0.03 to 1 the synthetic corpus scores alike
MIN_GROUPS = 10
ALPHA = 0.05


@dataclass(frozen=True)
class ProbeCounts:
    """What a site tells of its probe: `observed` (C, C), `null` and `resampled` (R, C, C), rows the truth."""

    clips: int
    groups: int
    observed: Floats
    null: Floats
    resampled: Floats

    def to_dict(self) -> dict[str, Any]:
        """JSON types: counts are whole numbers."""
        return {
            "clips": self.clips,
            "groups": self.groups,
            **{k: getattr(self, k).astype(int).tolist() for k in ("observed", "null", "resampled")},
        }

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> ProbeCounts:
        """Inverse of `to_dict`."""
        counts = {k: np.asarray(raw[k], np.float64) for k in ("observed", "null", "resampled")}
        return cls(int(raw["clips"]), int(raw["groups"]), **counts)


@dataclass(frozen=True)
class ProbeResult:
    """The probe's macro-F1 with its 95 % group-bootstrap interval, and what relabelled clips score.

    `judged` is False where there are too few groups or reasons to say anything; then there is no statement either way.
    """

    judged: bool
    signal: bool  # p < ALPHA
    macro_f1: float | None
    low: float | None
    high: float | None
    chance: float | None  # mean over the relabellings
    needed: (
        float | None
    )  # macro-F1 above which labels would count as a signal: the 95 % quantile of the relabellings
    p: float | None
    clips: int
    groups: int
    draws: int


def grouped_probe(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    group: npt.ArrayLike,
    n_classes: int,
    *,
    stratum: npt.ArrayLike | None = None,
    seed: int = 0,
    draws: int = DRAWS,
) -> ProbeCounts:
    """Cross-validate the probe by group on clips of one place.

    Args:
        x: (n, D) features.
        y: (n,) classes.
        group: (n,) infant or device: in one fold as a whole.
        n_classes: C.
        stratum: (n,) what labels never leave when permuted; by default there is one.
        seed: of folds, relabellings and resamples.
        draws: R.
    """
    x, y, group = np.asarray(x, np.float64), np.asarray(y, np.int64), np.asarray(group).astype(str)
    names, member = np.unique(group, return_inverse=True)
    empty = np.zeros((draws, n_classes, n_classes))
    if len(names) < 2:
        return ProbeCounts(0, 0, empty[0], empty, empty)  # nothing was tested
    rng = np.random.Generator(np.random.PCG64(seed))
    fold = rng.permutation(np.arange(len(names)) % min(FOLDS, len(names)))[member]
    stratum = np.zeros(len(y), np.int64) if stratum is None else np.asarray(stratum)
    labels = np.concatenate(
        [y[None], y[relabellings(group, stratum, draws, seed)]]
    )  # (1 + R, n), the first as it is
    predicted = _out_of_fold(x, labels, fold, n_classes)
    counts = np.stack([confusion(t, p, n_classes) for t, p in zip(labels, predicted, strict=True)])
    weight = group_draws(len(names), draws, rng)[:, member]
    resampled = confusion(y, predicted[0], n_classes, weight)
    return ProbeCounts(len(y), len(names), counts[0], counts[1:], resampled)


def pool_probes(parts: Sequence[ProbeCounts]) -> ProbeCounts | None:
    """The probe of several places together, from counts alone; None if there is none.

    Draw r of one place is as independent of draw r of another as of any other, so the sums are draws of the whole.
    """
    if not parts:
        return None
    return ProbeCounts(
        sum(p.clips for p in parts),
        sum(p.groups for p in parts),
        *(np.sum([getattr(p, k) for p in parts], axis=0) for k in ("observed", "null", "resampled")),
    )


def judge_probe(counts: ProbeCounts, *, level: float = 0.95) -> ProbeResult:
    """Does the probe beat relabelled clips? Nothing is said of fewer than `MIN_GROUPS` groups or one reason alone."""
    draws = len(counts.null)
    if counts.groups < MIN_GROUPS or (counts.observed.sum(1) > 0).sum() < 2:
        nothing = dict.fromkeys(("macro_f1", "low", "high", "chance", "needed", "p"))
        return ProbeResult(False, False, **nothing, clips=counts.clips, groups=counts.groups, draws=draws)
    observed, null = float(macro_f1(counts.observed)), macro_f1(counts.null)
    needed = float(np.quantile(null, 1 - ALPHA))
    low, high = np.quantile(macro_f1(counts.resampled), [(1 - level) / 2, (1 + level) / 2])
    p = permutation_p(observed, null)
    return ProbeResult(
        judged=True,
        signal=p < ALPHA,
        macro_f1=observed,
        low=float(low),
        high=float(high),
        chance=float(null.mean()),
        needed=needed,
        p=p,
        clips=counts.clips,
        groups=counts.groups,
        draws=draws,
    )


def _out_of_fold(x: Floats, labels: Ints, fold: Ints, n_classes: int) -> Ints:
    """Classes (R, n) of every clip from a probe that was fitted without its fold, for each row of labels (R, n)."""
    out = np.zeros_like(labels)
    for k in np.unique(fold):
        test, train = np.flatnonzero(fold == k), np.flatnonzero(fold != k)
        spread = x[train].std(0)
        z = (x - x[train].mean(0)) / np.where(spread > 0, spread, 1.0)
        kernel = z[train] @ z[train].T / x.shape[1]
        shrunk = kernel + RIDGE * max(np.trace(kernel) / train.size, 1e-12) * np.eye(train.size)
        weights = np.linalg.solve(shrunk, z[train] @ z[test].T / x.shape[1]).T  # (test, train)
        indicator = labels[:, train, None] == np.arange(n_classes)  # (R, train, C)
        share = indicator.mean(1, keepdims=True)
        deviation = np.sqrt(share * (1 - share))
        score = np.matmul(weights, indicator - share) / np.where(deviation > 0, deviation, 1.0)
        out[:, test] = np.where(share > 0, score, -np.inf).argmax(-1)
    return out
