"""Permutation tests of labels: how often would labels that say nothing score as well?

What changes places is a *block*, the clips of one group (infant, device) in one stratum (platform, site): clips of an infant
resemble each other and share labels, so a clip alone is not exchangeable with another infant's. Within a stratum, blocks of
equally many clips exchange their labels as wholes, and inside a block the clips exchange theirs. Both together form a group of
permutations, so (1 + k) / (1 + n) is an exact p-value (Phipson & Smyth 2010) where the null says that labels are independent of
the sound given the stratum, the block and its size. A block whose size nobody shares exchanges inside alone: that costs power,
never honesty.
"""

from __future__ import annotations

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
    pairs = np.stack([np.asarray(stratum).astype(str), np.asarray(group).astype(str)], 1)
    _, first, block = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
    block = block.reshape(-1)
    members = [np.flatnonzero(block == b) for b in range(len(first))]
    kinds: dict[tuple[str, int], list[int]] = {}
    for b, rows in enumerate(members):
        kinds.setdefault((str(pairs[first[b], 0]), rows.size), []).append(b)
    rng = np.random.Generator(np.random.PCG64(seed))
    out = np.empty((n, len(pairs)), np.int64)
    for blocks in kinds.values():
        rows = np.stack([members[b] for b in blocks])  # (blocks, size)
        order = rng.permuted(np.tile(np.arange(len(blocks)), (n, 1)), axis=1)
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
    null = _each(lambda labels: macro_f1(confusion(labels, p, n_classes)), y[relabellings(group, stratum, n, seed)])
    return PermutationTest(float(macro_f1(confusion(y, p, n_classes))), null)


def movable(group: npt.ArrayLike, stratum: npt.ArrayLike) -> float:
    """Share of clips that can take another clip's label at all; where it is low the test has little power."""
    g, s = np.asarray(group).astype(str), np.asarray(stratum).astype(str)
    if not g.size:
        return float("nan")
    pairs = np.stack([s, g], 1)
    _, first, block, size = np.unique(pairs, axis=0, return_index=True, return_inverse=True, return_counts=True)
    kinds = np.array([f"{s[i]}\0{n}" for i, n in zip(first, size, strict=True)])
    _, kind, alike = np.unique(kinds, return_inverse=True, return_counts=True)
    free = (alike[kind] > 1) | (size > 1)
    return float(free[block.reshape(-1)].mean())


def _each(statistic: Callable[[Ints], Floats], rows: Ints) -> Floats:
    return np.array([float(statistic(row)) for row in rows])
