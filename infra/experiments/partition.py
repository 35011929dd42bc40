"""Infants over sites with a chosen degree of label skew: a Dirichlet partition with equal sizes.

    q_i ~ Dir(α p)        site i deals itself infants of reason r with chance q_ir, without replacement

p are the shares of the reasons over all infants (Hsu, Qi and Brown, arXiv 1909.06335, section 3.1). α → ∞ gives every site the
same mix, α → 0 one reason a site. What is dealt are infants, never clips, so that no infant is at two sites.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from models.errors import ConfigError


def dirichlet_partition(
    labels: Mapping[str, int], sites: int, alpha: float, rng: np.random.Generator
) -> list[list[str]]:
    """Infants (name → reason) over `sites` sites of equal size, ±1; the result does not depend on the mapping's order.

    Sites draw in turn, the turn's order drawn anew each time, so that what is left when a reason runs out is shared by chance.

    Raises:
        ConfigError: fewer infants than sites, or α not positive.
    """
    if not 1 <= sites <= len(labels) or not alpha > 0:
        raise ConfigError(
            f"cannot deal {len(labels)} infants to {sites} sites with α = {alpha}: needs an infant a site and α > 0"
        )
    classes = sorted(set(labels.values()))
    left = [[str(n) for n in rng.permutation([k for k in sorted(labels) if labels[k] == c])] for c in classes]
    prior = np.array([len(names) for names in left]) / len(labels)
    wanted = rng.dirichlet(alpha * prior, size=sites)
    dealt: list[list[str]] = [[] for _ in range(sites)]
    for turn in range(len(labels)):
        if turn % sites == 0:
            order = rng.permutation(sites)
        site = int(order[turn % sites])
        remaining = np.array([len(names) for names in left], np.float64)
        chance = wanted[site] * (remaining > 0)
        # a site whose reasons have run out takes what there is, as it lies
        chance = chance if chance.sum() > 1e-12 else remaining
        dealt[site].append(left[int(rng.choice(len(left), p=chance / chance.sum()))].pop())
    return [sorted(names) for names in dealt]


def label_skew(labels: Mapping[str, int], dealt: Sequence[Sequence[str]]) -> float:
    """Mean over sites of the total variation distance between a site's reasons and all sites' together: 0 none, → 1 all."""
    classes = sorted(set(labels.values()))

    def shares(names: Sequence[str]) -> npt.NDArray[np.float64]:
        counts = np.array([sum(labels[n] == c for n in names) for c in classes], np.float64)
        return counts / counts.sum()

    everywhere = shares([name for names in dealt for name in names])
    return float(np.mean([np.abs(shares(names) - everywhere).sum() / 2 for names in dealt]))
