"""Whether an engine may be used: on golden clips its probabilities are the reference's, and so are its decisions.

Accepted are max |Δp| ≤ 0.01 over all probabilities and the same decision, gate and reason, on at least 99.9 % of the frames
(docs/edge-protocol.md, step 7). The reference is ONNX Runtime on the very graph.

Every other output of the reference (the energy) has to be there and finite: an abstention hangs on it.

Standard library only, Python 3.6.
"""
# ruff: noqa: UP006, UP035

import math
from typing import Dict, List, Mapping, NamedTuple, Sequence

from .errors import Unhealthy

MAX_DIFFERENCE = 0.01
MIN_AGREEMENT = 0.999

GATE = "gate_probability"
REASON = "reason_probabilities"

Outputs = Mapping[str, Sequence[float]]
"""Outputs by name, flat: the gate (n,), the reasons (n · C,) row after row, the energy (n,)."""


class Parity(NamedTuple):
    """How an engine compares with the reference on `frames` frames."""

    max_difference: float  # infinite if a value is not finite
    argmax_agreement: float
    frames: int

    @property
    def accepted(self) -> bool:
        """Whether both bounds hold."""
        return self.max_difference <= MAX_DIFFERENCE and self.argmax_agreement >= MIN_AGREEMENT

    def to_dict(self) -> Dict[str, float]:
        """For the device's report."""
        return {"max_difference": self.max_difference, "argmax_agreement": self.argmax_agreement}


def compare(reference: Outputs, found: Outputs) -> Parity:
    """Hold an engine's outputs against the reference's.

    Raises:
        Unhealthy: an output is missing or has another size, one that is no probability is not finite, or there is nothing to
            compare.
    """
    frames = len(reference.get(GATE, ()))
    if frames == 0:
        raise Unhealthy(f"the reference has no {GATE}: there is nothing to compare with")
    worst, same = 0.0, [True] * frames
    for name, expected in reference.items():
        got = found.get(name)
        if got is None or len(got) != len(expected) or len(expected) % frames:
            size = "missing" if got is None else f"{len(got)} values"
            raise Unhealthy(f"{name}: {size}, the reference has {len(expected)} for {frames} frames")
        if name not in (GATE, REASON):
            if not all(math.isfinite(value) for value in got):
                raise Unhealthy(f"{name} is not finite")
            continue
        for a, b in zip(expected, got):  # noqa: B905 - `strict` came with Python 3.10
            difference = abs(a - b)
            worst = max(worst, difference if math.isfinite(difference) else math.inf)
        width = len(expected) // frames
        for k in range(frames):
            a_row, b_row = expected[k * width : (k + 1) * width], got[k * width : (k + 1) * width]
            same[k] = same[k] and _decision(a_row) == _decision(b_row)
    return Parity(worst, sum(same) / frames, frames)


def require(parity: Parity, what: str = "the engine") -> None:
    """Refuse an engine that is not accepted.

    Raises:
        Unhealthy: with both numbers.
    """
    if not parity.accepted:
        raise Unhealthy(
            f"{what} differs from the reference by {parity.max_difference:.4f} (allowed {MAX_DIFFERENCE}) and agrees in "
            f"{100 * parity.argmax_agreement:.2f} % of {parity.frames} decisions (needed {100 * MIN_AGREEMENT:.1f} %)"
        )


def _decision(row: Sequence[float]) -> int:
    """The largest of several, or whether a single probability is at least one half; −1 where none of that exists."""
    if not all(math.isfinite(p) for p in row):
        return -1
    if len(row) == 1:
        return int(row[0] >= 0.5)
    ordered: List[float] = list(row)
    return ordered.index(max(ordered))
