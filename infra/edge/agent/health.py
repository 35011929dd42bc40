"""Whether what was built agrees with the reference on the golden clips. No I/O but reading the two files."""

import math
from pathlib import Path
from typing import Any, Dict, List, NamedTuple

from .build import FRAME_BYTES, Measured
from .documents import strict_json
from .errors import Unhealthy
from .manifest import GOLDEN_INPUTS, GOLDEN_OUTPUTS

MAX_DIFFERENCE = 0.01
MIN_AGREEMENT = 0.999
GATE, REASONS, ENERGY = "gate_probability", "reason_probabilities", "energy"
_MAX_OUTPUT_BYTES = 64 * 2**20


class Health(NamedTuple):
    """What the report says of an engine."""

    max_difference: float  # of any probability
    argmax_agreement: float  # share of frames whose gate decision and reason both agree
    p50_ms: float
    p95_ms: float
    backend: str


class Golden(NamedTuple):
    """The reference's outputs: N frames, C reasons (C = 0 without that head)."""

    gate: List[float]
    reasons: List[List[float]]
    energy: List[float]


def read_golden(bundle: Path) -> Golden:
    """The golden outputs of a bundle, held against its golden inputs.

    Raises:
        Unhealthy: the bundle has none, or they do not fit together.
    """
    try:
        size = (bundle / GOLDEN_INPUTS).stat().st_size
        with (bundle / GOLDEN_OUTPUTS).open("rb") as file:
            data = file.read(_MAX_OUTPUT_BYTES + 1)
    except OSError:
        raise Unhealthy("the bundle has no golden clips, so nothing can show that it works here") from None
    frames, rest = divmod(size, FRAME_BYTES)
    try:
        if len(data) > _MAX_OUTPUT_BYTES:
            raise ValueError("too large")
        raw = strict_json(data)
    except ValueError as err:
        raise Unhealthy(f"the golden outputs cannot be read ({err})") from None
    if rest or not frames:
        raise Unhealthy(f"the golden inputs have {size} bytes, no whole number of frames of {FRAME_BYTES}")
    return _outputs(raw, frames, "the golden outputs")


def judge(golden: Golden, measured: Measured) -> Health:
    """Hold measured outputs against the golden ones.

    Raises:
        Unhealthy: they are not finite, not as many, too far apart, or decide otherwise.
    """
    found = _outputs(measured.outputs, len(golden.gate), "the engine's outputs")
    if [len(row) for row in found.reasons] != [len(row) for row in golden.reasons]:
        raise Unhealthy("the engine's outputs have other reasons than the golden ones")
    difference = max(abs(a - b) for a, b in zip(golden.gate, found.gate))
    agreeing = 0
    for i in range(len(golden.gate)):
        same = (golden.gate[i] >= 0.5) == (found.gate[i] >= 0.5)
        if golden.reasons:
            difference = max(difference, *(abs(a - b) for a, b in zip(golden.reasons[i], found.reasons[i])))
            same = same and _argmax(golden.reasons[i]) == _argmax(found.reasons[i])
        agreeing += same
    agreement = agreeing / len(golden.gate)
    if difference > MAX_DIFFERENCE:
        raise Unhealthy(
            f"a probability differs by {difference:.4f} from the reference; at most {MAX_DIFFERENCE} is taken"
        )
    if agreement < MIN_AGREEMENT:
        raise Unhealthy(
            f"{agreement:.2%} of the golden frames are decided as by the reference; {MIN_AGREEMENT:.1%} are wanted"
        )
    if not measured.latencies_ms or not all(math.isfinite(x) and x >= 0 for x in measured.latencies_ms):
        raise Unhealthy("the engine's times cannot be used")
    return Health(
        difference,
        agreement,
        percentile(measured.latencies_ms, 0.5),
        percentile(measured.latencies_ms, 0.95),
        measured.backend,
    )


def percentile(values: List[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _outputs(raw: Any, frames: int, what: str) -> Golden:
    if not isinstance(raw, dict):
        raise Unhealthy(f"{what} are no JSON object")
    gate, energy = (_column(raw, name, frames, what) for name in (GATE, ENERGY))
    rows = raw.get(REASONS) or []
    if not isinstance(rows, list) or (rows and len(rows) != frames):
        raise Unhealthy(f"{what}: {REASONS} has not {frames} rows")
    reasons = [_numbers(row, f"{what}: {REASONS}") for row in rows]
    if rows and (not reasons[0] or len({len(row) for row in reasons}) != 1):
        raise Unhealthy(f"{what}: {REASONS} has rows of different lengths, or empty ones")
    return Golden(gate, reasons if any(reasons) else [], energy)


def _column(raw: Dict[str, Any], name: str, frames: int, what: str) -> List[float]:
    values = _numbers(raw.get(name), f"{what}: {name}")
    if len(values) != frames:
        raise Unhealthy(f"{what}: {len(values)} values of {name} for {frames} frames")
    return values


def _numbers(values: Any, what: str) -> List[float]:
    if not isinstance(values, list) or not all(type(x) in (int, float) for x in values):
        raise Unhealthy(f"{what} is no list of numbers")
    if not all(math.isfinite(x) for x in values):
        raise Unhealthy(f"{what} is not finite")
    return [float(x) for x in values]


def _argmax(values: List[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)
