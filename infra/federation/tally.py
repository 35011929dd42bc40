"""The counts that ride behind an update, under the same masks: what the server learns of them is their sum over the counted
sites.

    [inside, voters, objections, losses × 4, gate confusion × 4, reason confusion × C²]      unsigned, 32 bits each

Losses are fixed-point with 12 binary digits. A site tallies θ as it arrives, before it trains: the scores of round r come with
the updates of round r + 1, and cost no exchange of their own. `objections` are votes against that θ (`Vote`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.errors import UpdateRejected
from models.metrics import macro_f1

BITS: Final = 32
MAX_SITES: Final = 128
LOSSES: Final = ("total", "gate", "reason", "energy")
_FIXED: Final = 2**12
_MAX_LOSS: Final = 2.0**12  # 128 sites of it fit 32 bits
_MAX_COUNT: Final = (2**BITS - 1) // MAX_SITES
_HEAD: Final = 3 + len(LOSSES)

Words = npt.NDArray[np.uint32]


def tally_size(n_reasons: int) -> int:
    """Number of 32-bit words."""
    return _HEAD + 4 + n_reasons * n_reasons


@dataclass(frozen=True)
class Tally:
    """One site's counts, or their sum: the losses are then sums too.

    Attributes:
        inside: updates within the clipping norm.
        voters: sites that tallied the θ they got.
        objections: of these, the ones that vote against it.
        losses: by name; of the local steps.
        gate: (2, 2) confusion, rows truth, columns decision.
        reason: (C, C) confusion over cries.
    """

    inside: int
    voters: int
    objections: int
    losses: Mapping[str, float]
    gate: npt.NDArray[np.int64]
    reason: npt.NDArray[np.int64]

    @classmethod
    def empty(cls, n_reasons: int) -> Tally:
        """Nothing counted."""
        zeros = dict.fromkeys(LOSSES, 0.0)
        return cls(0, 0, 0, zeros, np.zeros((2, 2), np.int64), np.zeros((n_reasons, n_reasons), np.int64))

    def to_words(self) -> Words:
        """For a masked section.

        Raises:
            UpdateRejected: a loss is not finite or a count cannot be summed over sites; the site sends nothing.
        """
        fixed = []
        for name in LOSSES:
            value = self.losses.get(name, 0.0)
            if not math.isfinite(value):
                raise UpdateRejected(f"the {name} loss is {value}: the site sends nothing")
            fixed.append(round(min(max(value, 0.0), _MAX_LOSS - 1) * _FIXED))
        counts = [self.inside, self.voters, self.objections, *fixed]
        flat = np.concatenate([counts, self.gate.ravel(), self.reason.ravel()]).astype(np.int64)
        if flat.min() < 0 or flat.max() > _MAX_COUNT:
            raise UpdateRejected(f"a count lies outside 0…{_MAX_COUNT}: the site sends nothing")
        return flat.astype(np.uint32)

    @classmethod
    def from_words(cls, words: npt.NDArray[Any], n_reasons: int, *, summands: int = 1) -> Tally:
        """Inverse of `to_words`, for one site's words or the sum of several sites'.

        Raises:
            UpdateRejected: another length, or more than so many sites can count.
        """
        if words.shape != (tally_size(n_reasons),):
            raise UpdateRejected(f"a tally has {tally_size(n_reasons)} words, this one {words.shape}")
        values = words.astype(np.int64)
        if (values > _MAX_COUNT * max(summands, 1)).any() or (values[:3] > summands).any():
            raise UpdateRejected(f"a tally counts more than {summands} sites can")
        losses = {name: int(v) / _FIXED for name, v in zip(LOSSES, values[3:_HEAD], strict=True)}
        gate = values[_HEAD : _HEAD + 4].reshape(2, 2)
        reason = values[_HEAD + 4 :].reshape(n_reasons, n_reasons)
        return cls(int(values[0]), int(values[1]), int(values[2]), losses, gate, reason)

    def mean_losses(self, counted: int) -> dict[str, float]:
        """Mean over the counted sites."""
        return {name: value / counted for name, value in self.losses.items()}

    def scores(self) -> dict[str, Any] | None:
        """What the summed confusion says of the θ that was tallied; None where no site did."""
        if not self.voters:
            return None
        return {
            "sites": self.voters,
            "objections": self.objections,
            "gate_confusion": self.gate.tolist(),
            "reason_confusion": self.reason.tolist(),
            "gate_macro_f1": _score(self.gate),
            "reason_macro_f1": _score(self.reason),
        }


@dataclass(frozen=True)
class Vote:
    """When a site objects to a θ: its validation loss rose far above that of the θ before, or is not finite.

    Generous on purpose: a good round may cost some sites a little; what is meant is a round that breaks the model.
    """

    ratio: float = 1.5
    margin: float = 0.25  # nats

    def objects(self, loss: float, before: float | None) -> bool:
        """Whether to vote against the θ that has `loss`, given the loss of the last one."""
        if not math.isfinite(loss):
            return True
        return before is not None and loss > self.ratio * before + self.margin


def rejected_by_vote(tally: Tally) -> bool:
    """Whether more than half of the sites that tallied θ object to it."""
    return 2 * tally.objections > tally.voters


def _score(matrix: npt.NDArray[np.int64]) -> float | None:
    return float(macro_f1(matrix)) if matrix.sum() else None
