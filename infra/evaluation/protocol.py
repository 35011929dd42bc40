"""How numbers are made: which clips count, which calibration applies to them, and what an interval is.

clip     the unit of every metric; its score the soft maximum (reasons: mean) of the logits of its VAD-kept one-second frames
as recorded / at an SNR   views of the same clips; headline numbers are on the clips as recorded
all / site / public       negatives: every non-cry, the sites' own non-cries, public noise (site "")
ranking                   by the logits as they are; decisions and calibration with the temperature of the clip's site
interval                  percentile interval of a bootstrap over groups (infants, devices, noise classes)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from models.bootstrap import Interval, Statistic, group_bootstrap
from models.calibration import SiteCalibration, pool_calibrations, with_fallback
from models.frames import UNKNOWN
from models.metrics import Floats, sigmoid, softmax
from models.predict import ClipScores

Mask = npt.NDArray[np.bool_]
Json = dict[str, Any]

NEGATIVES = ("all", "site", "public")


@dataclass(frozen=True)
class EvaluationConfig:
    """Settings of the protocol; they are part of the result."""

    resamples: int = 1000
    level: float = 0.95
    bins: int = 10
    seed: int = 0
    min_groups: int = 10  # fewer infants in the test part cannot carry a release decision
    permutations: int = 999
    alpha: float = 0.05  # the reason head ships only with a permutation p below


@dataclass(frozen=True)
class Bench:
    """Scores of one system with the calibration of each clip's site applied.

    Attributes:
        scores: rows of one view or several; see `models.predict.ClipScores`.
        gate_raw, gate_p: (n,) p(cry) before and after temperature.
        reason_raw, reason_p: (n, C) before and after.
        called: (n,) p(cry) ≥ the site's threshold.
        abstained: (n,) energy above the site's threshold.
        config: the protocol's settings.
    """

    scores: ClipScores
    gate_raw: Floats
    gate_p: Floats
    reason_raw: Floats
    reason_p: Floats
    called: Mask
    abstained: Mask
    config: EvaluationConfig

    @property
    def reasons(self) -> tuple[str, ...]:
        """The label set, columns of the reason logits; empty without a reason head."""
        return self.scores.reasons[: self.reason_p.shape[1]]

    @property
    def cries(self) -> Mask:
        """Cries with a known reason."""
        return (self.scores.gate == 1) & (self.scores.reason != UNKNOWN)

    @property
    def sided(self) -> Mask:
        """Clips known to be a cry or known not to be."""
        return self.scores.gate >= 0

    def negatives(self, which: str) -> Mask:
        """Rows of `negatives`."""
        return negatives(self.scores, which)

    def rows(self, keep: npt.NDArray[Any]) -> Bench:
        """The same for some rows: a mask or indices."""
        return replace(
            self,
            scores=self.scores.select(keep),
            gate_raw=self.gate_raw[keep],
            gate_p=self.gate_p[keep],
            reason_raw=self.reason_raw[keep],
            reason_p=self.reason_p[keep],
            called=self.called[keep],
            abstained=self.abstained[keep],
        )

    def interval(self, statistic: Statistic, keep: Mask | None = None) -> Interval:
        """Group-bootstrap interval over the rows (those in `keep`, to which the statistic must be restricted too)."""
        c = self.config
        group = np.asarray(self.scores.group)
        return group_bootstrap(
            statistic,
            group if keep is None else group[keep],
            seed=c.seed,
            resamples=c.resamples,
            level=c.level,
        )


def negatives(scores: ClipScores, which: str) -> Mask:
    """Non-cries of a kind of `NEGATIVES`: all, the sites' own, or public noise."""
    non = scores.gate == 0
    return non if which == "all" else non & ((scores.site == "") == (which == "public"))


def as_recorded(scores: ClipScores) -> Mask:
    """Rows that are the clip itself: no noise mixed in, no gain."""
    return np.asarray(scores.view) == 0


def make_bench(
    scores: ClipScores,
    calibrations: Mapping[str, SiteCalibration] | None,
    config: EvaluationConfig,
    default: SiteCalibration | None = None,
) -> Bench:
    """Apply each site's calibration to its clips.

    A site without its own takes `default` (by default the pool of `calibrations`); `calibrations=None` means logits as they
    are, for systems that were never calibrated.
    """
    known = dict(calibrations or {})
    pooled = default or known.get("") or pool_calibrations([c for name, c in known.items() if name])
    n, c = np.asarray(scores.reason_logits).shape
    gate_p, reason_p = np.zeros(n), np.zeros((n, c))
    called, abstained = np.zeros(n, bool), np.zeros(n, bool)
    for site in np.unique(np.asarray(scores.site)):
        at = np.asarray(scores.site) == site
        own = with_fallback(known[str(site)], pooled) if str(site) in known else pooled
        gate_p[at] = own.gate_probability(scores.gate_logit[at])
        called[at] = gate_p[at] >= own.gate_threshold
        abstained[at] = own.abstains(scores.energy[at])
        if c:
            reason_p[at] = own.reason_probabilities(scores.reason_logits[at])
    reason_raw = softmax(scores.reason_logits) if c else np.zeros((n, 0))
    return Bench(
        scores, sigmoid(scores.gate_logit), gate_p, reason_raw, reason_p, called, abstained, config
    )  # fmt: skip


def number(value: object) -> float | None:
    """A JSON number, None for NaN."""
    x = float(np.asarray(value))
    return None if np.isnan(x) else x


def thin(x: npt.ArrayLike, *ys: npt.ArrayLike, points: int = 200) -> list[list[float]]:
    """Columns of a curve, thinned to at most `points` by index; ends are kept. Empty where the curve is undefined."""
    columns = [np.asarray(v, np.float64) for v in (x, *ys)]
    if any(np.isnan(column).any() for column in columns):
        return [[] for _ in columns]
    keep = np.unique(np.linspace(0, columns[0].size - 1, min(points, columns[0].size)).round().astype(int))
    return [[round(float(v), 5) for v in column[keep]] for column in columns]
