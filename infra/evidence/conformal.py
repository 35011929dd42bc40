"""Split-conformal sets of the gate: {cry}, {no cry}, both or neither, that hold the truth as often as was promised.

The score of a clip is 1 − p(truth); a set holds every answer whose score is at most the ⌈(n + 1)(1 − α)⌉-th smallest of n
calibration clips (Vovk et al. 2005; arXiv 2107.07511, equation 1). The promise holds for exchangeable clips. Clips of one device
are not, and here calibration and judged clips were scored by networks of different folds: what is measured says what that costs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Sets = npt.NDArray[np.bool_]
"""(n, 2): whether the set of a clip holds "no cry", and whether it holds "cry"."""

MOST: Final = 1.0  # a threshold that lets everything in


def threshold(scores: npt.ArrayLike, alpha: float) -> float:
    """The conformal quantile of calibration scores (n,) in [0, 1]; 1 where there are too few to promise anything."""
    s = np.sort(np.asarray(scores, np.float64))
    rank = math.ceil((len(s) + 1) * (1.0 - alpha))
    return float(s[rank - 1]) if 0 < rank <= len(s) else MOST


@dataclass(frozen=True)
class Conformal:
    """Thresholds on 1 − p(answer): of "no cry", and of "cry". They are one number unless they were fitted by class."""

    no_cry: float
    cry: float

    def sets(self, p: npt.ArrayLike) -> Sets:
        """The sets (n, 2) of clips with p(cry) (n,)."""
        said = np.asarray(p, np.float64)
        return np.stack([said <= self.no_cry, 1.0 - said <= self.cry], axis=1)


def fit(p: npt.ArrayLike, cry: npt.ArrayLike, alpha: float, *, by_class: bool = False) -> Conformal:
    """Thresholds from calibration clips.

    Args:
        p: (n,) probabilities of a cry.
        cry: (n,) what they are.
        alpha: share of clips whose set may miss the truth.
        by_class: promise it for cries and for non-cries each (Mondrian).
    """
    said, truth = np.asarray(p, np.float64), np.asarray(cry, bool)
    scores = np.where(truth, 1.0 - said, said)
    if by_class:
        return Conformal(threshold(scores[~truth], alpha), threshold(scores[truth], alpha))
    both = threshold(scores, alpha)
    return Conformal(both, both)


def holds(sets: Sets, cry: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Whether each set holds the truth, (n,)."""
    truth = np.asarray(cry, bool)
    return np.where(truth, sets[:, 1], sets[:, 0])
