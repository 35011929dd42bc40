"""Intervals by group bootstrap: the infant or device is drawn with replacement, with all of its clips.

Clips of one infant resemble each other, so drawing clips would pretend to more evidence than there is. A resample is a
weighting of the clips (how often their group was drawn); `models.metrics` takes many weightings at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Required, TypedDict, Unpack

import numpy as np
import numpy.typing as npt

Statistic = Callable[[npt.NDArray[np.float64] | None], npt.NDArray[np.float64]]

_CHUNK_VALUES = 4_000_000  # weights held at once: 32 MB


@dataclass(frozen=True)
class Interval:
    """A value with its percentile interval. NaN where the clips do not support it.

    `used` counts the resamples in which the statistic was defined (a resample can lack a class); with fewer than half of
    them, or fewer than two groups, there is no interval.
    """

    value: float
    low: float
    high: float
    level: float
    groups: int
    resamples: int
    used: int

    def to_dict(self) -> dict[str, float | int | None]:
        """JSON types; NaN becomes None."""
        ends = {k: (None if np.isnan(v) else float(v)) for k, v in
                (("value", self.value), ("low", self.low), ("high", self.high))}  # fmt: skip
        return {**ends, "groups": self.groups}


class Resampling(TypedDict, total=False):
    """How a bootstrap resamples.

    Attributes:
        seed: the same seed gives the same resamples for the same groups.
        resamples: how many, 1000 if not given.
        level: coverage aimed at, 0.95 if not given.
    """

    seed: Required[int]
    resamples: int
    level: float


def group_draws(n_groups: int, resamples: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """How often each group is drawn (resamples, n_groups); every row sums to `n_groups`."""
    return rng.multinomial(n_groups, np.full(n_groups, 1.0 / n_groups), size=resamples)


def group_bootstrap(
    statistic: Statistic,
    group: npt.ArrayLike,
    **how: Unpack[Resampling],
) -> Interval:
    """Percentile interval of `statistic` over resampled groups.

    Args:
        statistic: of weights (r, n) → values (r,), and of None → the value of the clips as they are (0-d). A closure over
            one of `models.metrics`, or over a difference of two of them: both see the same resamples, so it is paired.
        group: (n,) the unit that is drawn.
        **how: seed, resamples and level; see `Resampling`.

    Returns:
        The value on the clips as they are, with the interval.
    """

    def column(weight: npt.NDArray[np.float64] | None) -> npt.NDArray[np.float64]:
        # without a clip there is nothing to ask the statistic
        return np.asarray(statistic(weight) if np.size(group) else np.nan, np.float64)[..., None]

    return group_bootstrap_many(column, group, **how)[0]


def mean_interval(
    values: npt.NDArray[np.float64], group: npt.ArrayLike, **how: Unpack[Resampling]
) -> Interval:
    """`group_bootstrap` of the mean of values (n,)."""

    def mean(weight: npt.NDArray[np.float64] | None) -> npt.NDArray[np.float64]:
        return np.asarray(values.mean()) if weight is None else (weight @ values) / weight.sum(1)

    return group_bootstrap(mean, group, **how)


def group_bootstrap_many(
    statistics: Statistic,
    group: npt.ArrayLike,
    *,
    seed: int,
    resamples: int = 1000,
    level: float = 0.95,
) -> list[Interval]:
    """`group_bootstrap` of K statistics on the same resamples: values that share work, and differences between them.

    Args:
        statistics: of weights (r, n) → values (r, K), and of None → the values of the clips as they are (K,).
        group: as in `group_bootstrap`, whose intervals these are.
        seed, resamples, level: see `Resampling`.

    Returns:
        K intervals.
    """
    names, member = np.unique(np.asarray(group), return_inverse=True)
    value = np.asarray(statistics(None), np.float64)
    drawn = np.empty((0, value.size))
    if len(names) >= 2:
        draws = group_draws(len(names), resamples, np.random.Generator(np.random.PCG64(seed)))
        step = max(1, _CHUNK_VALUES // member.size)
        drawn = np.concatenate(
            [
                np.asarray(statistics(draws[i : i + step][:, member].astype(np.float64)))
                for i in range(0, resamples, step)
            ]
        )
    out = []
    for k in range(value.size):
        values = drawn[:, k][~np.isnan(drawn[:, k])]
        low = high = float("nan")
        if values.size and 2 * values.size >= resamples:
            low, high = (float(q) for q in np.quantile(values, [(1 - level) / 2, (1 + level) / 2]))
        out.append(Interval(float(value[k]), low, high, level, len(names), resamples, values.size))
    return out
