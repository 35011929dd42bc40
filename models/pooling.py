"""One number for a clip from those of its frames. Numpy alone: a device needs no more."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def soft_maximum(logits: npt.ArrayLike) -> float:
    """log mean exp of the logits (n,) of a clip's frames, n ≥ 1; of energies, minus that of their negatives.

    A recording is of a cry when some of it is, and most of a noisy one may be noise. Like a mean it is neutral to length: equal
    frames score as each of them.
    """
    x = np.asarray(logits, np.float64)
    top = x.max()
    return float(np.log(np.mean(np.exp(x - top))) + top)
