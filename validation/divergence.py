"""How far two histograms lie apart, and how far they would lie by chance.

PSI of two samples of one distribution is not 0: it is about (B − 1)(1/n + 1/m) for B bins and n and m independent clips, and
the clips of an infant or a device are not independent. Fixed limits such as 0.1 and 0.25 therefore raise false alarms on small
samples. Here the limit comes from drawing what no drift looks like at the same sizes, after each size has been cut to the number
of independent clips that tell as much (its design effect, to first order: Rao & Scott 1984).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SMOOTHING: Final = 0.5
"""Added to every count before shares are taken (Jeffreys), so that an empty bin has a logarithm."""


def smoothed_shares(counts: npt.ArrayLike) -> Floats:
    """Counts (…, B) → shares (…, B), (c + 0.5) / (n + 0.5 B): none is 0, each row sums to 1."""
    c = np.asarray(counts, np.float64) + SMOOTHING
    return np.asarray(c / c.sum(axis=-1, keepdims=True))


def psi_of_shares(p: npt.ArrayLike, q: npt.ArrayLike) -> Floats:
    """Population stability index Σ (p − q) ln(p / q) of shares (…, B) above 0; symmetric, 0 only where they are equal."""
    a, b = np.asarray(p, np.float64), np.asarray(q, np.float64)
    return np.asarray(((a - b) * np.log(a / b)).sum(axis=-1))


def kl_of_shares(p: npt.ArrayLike, q: npt.ArrayLike) -> Floats:
    """Kullback–Leibler divergence Σ p ln(p / q) in nats of shares (…, B) above 0: of `p` from `q`."""
    a, b = np.asarray(p, np.float64), np.asarray(q, np.float64)
    return np.asarray((a * np.log(a / b)).sum(axis=-1))


def psi(new: npt.ArrayLike, reference: npt.ArrayLike) -> Floats:
    """PSI of smoothed counts (…, B)."""
    return psi_of_shares(smoothed_shares(new), smoothed_shares(reference))


def expected_psi(bins: int, n: float, m: float) -> float:
    """PSI of two samples of `n` and `m` independent clips of one distribution over `bins` bins, to first order."""
    return (bins - 1) * (1.0 / n + 1.0 / m)


def effective_size(cell: npt.ArrayLike, group: npt.ArrayLike) -> float:
    """Number of independent clips that would pin the shares down as well as these clips of some groups do.

    n / δ, where δ is the mean generalised design effect of the shares, from the spread of groups around them (with-replacement
    cluster sampling); never more than n nor less than 1. Where every clip is in one cell no spread can be seen, and where there
    is one group none is: then a group counts as one clip at most, (Σ n_g)² / Σ n_g².

    Args:
        cell: (n,) bin of each clip.
        group: (n,) infant or device.
    """
    cells, column = np.unique(np.asarray(cell), return_inverse=True)
    names, row = np.unique(np.asarray(group).astype(str), return_inverse=True)
    n = column.size
    if n == 0:
        return 0.0
    count = np.zeros((len(names), len(cells)))
    np.add.at(count, (row, column), 1.0)
    size = count.sum(axis=1)
    if len(names) < 2 or len(cells) < 2:
        return float(n**2 / np.sum(size**2))
    share = count.sum(axis=0) / n
    spread = len(names) / (len(names) - 1) * np.sum((count - size[:, None] * share) ** 2, axis=0) / n**2
    effect = n * np.sum(spread / share) / (len(cells) - 1)
    return float(np.clip(n / max(effect, 1.0), 1.0, n))


def null_psi(
    new: npt.ArrayLike,
    reference: npt.ArrayLike,
    *,
    effective_new: float,
    effective_reference: float,
    draws: int,
    seed: int,
) -> Floats:
    """PSI (draws,) of pairs of samples of the pooled histogram: what no drift looks like at these sizes.

    Each sample is drawn with its effective size and scaled back to its number of clips, so that smoothing weighs what it weighs
    in the observed value.

    Args:
        new: counts (B,) of the new clips.
        reference: counts (B,) of the reference.
        effective_new: see `effective_size`.
        effective_reference: the same of the reference.
        draws: how many pairs.
        seed: the same seed gives the same draws.
    """
    a, b = np.asarray(new, np.float64), np.asarray(reference, np.float64)
    pooled = (a + b) / (a.sum() + b.sum())
    rng = np.random.Generator(np.random.PCG64(seed))
    samples = []
    for counts, effective in ((a, effective_new), (b, effective_reference)):
        size = max(1, round(effective))
        samples.append(rng.multinomial(size, pooled, size=draws) * (counts.sum() / size))
    return psi(samples[0], samples[1])
