"""Permutation tests of labels: how often would labels that say nothing score as well?

What changes places is a *block*, the clips of one group (infant, device) in one stratum (platform, site): clips of an infant
resemble each other and share labels, so a clip alone is not exchangeable with another infant's. Within a stratum, blocks of
equally many clips exchange their labels as wholes, and inside a block the clips exchange theirs. Both together form a group of
permutations, so (1 + k) / (1 + n) is an exact p-value (Phipson & Smyth 2010) where the null says that labels are independent of
the sound given the stratum, the block and its size. A block whose size nobody shares exchanges inside alone: that costs power,
never honesty.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.metrics import Floats, Ints, confusion, macro_f1


@dataclass(frozen=True)
class PermutationTest:
    """An observed statistic beside `null` (n,), what it was under `n` relabellings."""

    observed: float
    null: Floats

    @property
    def p(self) -> float:
        """(1 + k) / (1 + n), where k relabellings score at least as much; NaN where the statistic is undefined."""
        return permutation_p(self.observed, self.null)


def permutation_p(observed: float, null: npt.ArrayLike) -> float:
    """One-sided p-value (1 + k) / (1 + n): k of n null values reach `observed`; NaN if it is undefined."""
    values = np.asarray(null, np.float64)
    if np.isnan(observed) or not values.size:
        return float("nan")
    # equal confusions must count as ties, whatever the order in which their sums were rounded
    return float((1 + np.sum(values >= observed - 1e-12)) / (1 + values.size))


def relabellings(group: npt.ArrayLike, stratum: npt.ArrayLike, n: int, seed: int) -> Ints:
    """Indices (n, clips) of `n` random relabellings: `labels[row]` are permuted labels.

    Args:
        group: (clips,) infant or device.
        stratum: (clips,) what labels never leave, e.g. the platform.
        n: how many; the labels as they are may be among them.
        seed: the same seed gives the same relabellings.
    """
    s, blocks = np.asarray(stratum).astype(str), _blocks(group, stratum)
    kinds: dict[tuple[str, int], list[Ints]] = {}
    for rows in blocks:
        kinds.setdefault((str(s[rows[0]]), rows.size), []).append(rows)
    rng = np.random.Generator(np.random.PCG64(seed))
    out = np.empty((n, s.size), np.int64)
    for alike in kinds.values():
        rows = np.stack(alike)  # (blocks, size)
        order = rng.permuted(np.tile(np.arange(len(rows)), (n, 1)), axis=1)
        out[:, rows] = rng.permuted(rows[order], axis=2)
    return out


def permute_macro_f1(
    truth: npt.ArrayLike,
    predicted: npt.ArrayLike,
    n_classes: int,
    *,
    group: npt.ArrayLike,
    stratum: npt.ArrayLike,
    n: int,
    seed: int,
) -> PermutationTest:
    """Macro-F1 of fixed answers (clips,) against the truth, and against `n` relabellings of it.

    The answers must come of a model that never saw these labels; then nothing has to be trained again.
    """
    y, p = np.asarray(truth, np.int64), np.asarray(predicted, np.int64)
    null = _each(
        lambda labels: macro_f1(confusion(labels, p, n_classes)), y[relabellings(group, stratum, n, seed)]
    )
    return PermutationTest(float(macro_f1(confusion(y, p, n_classes))), null)


def movable(group: npt.ArrayLike, stratum: npt.ArrayLike) -> float:
    """Share of clips that can take another clip's label at all; where it is low the test has little power."""
    s, blocks = np.asarray(stratum).astype(str), _blocks(group, stratum)
    if not blocks:
        return float("nan")
    kinds = Counter((str(s[rows[0]]), rows.size) for rows in blocks)
    free = sum(rows.size for rows in blocks if rows.size > 1 or kinds[str(s[rows[0]]), rows.size] > 1)
    return free / s.size


def _blocks(group: npt.ArrayLike, stratum: npt.ArrayLike) -> list[Ints]:
    """Indices of each group's clips in each stratum, in order of their first clip: names decide nothing."""
    found: dict[tuple[str, str], list[int]] = {}
    for i, key in enumerate(zip(np.asarray(stratum).astype(str), np.asarray(group).astype(str), strict=True)):
        found.setdefault((str(key[0]), str(key[1])), []).append(i)
    return [np.array(rows) for rows in found.values()]


def _each(statistic: Callable[[Ints], Floats], rows: Ints) -> Floats:
    return np.array([float(statistic(row)) for row in rows])
