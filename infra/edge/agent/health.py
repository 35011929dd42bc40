"""Whether what was built agrees with the reference on the golden clips: the rule is `tensorrt.parity`, for every backend."""

import math
from pathlib import Path
from typing import Any, Dict, List, NamedTuple

from ..tensorrt import errors as engine
from ..tensorrt.build import Golden
from ..tensorrt.logs import quantile
from ..tensorrt.parity import GATE, REASON, Parity, compare, require
from .documents import strict_json
from .errors import Unhealthy
from .manifest import GOLDEN_INPUTS, GOLDEN_OUTPUTS

FRAME_SAMPLES = 16000
FRAME_BYTES = 4 * FRAME_SAMPLES
ENERGY = "energy"
_MAX_INPUT_BYTES = 128 * 2**20
_MAX_OUTPUT_BYTES = 64 * 2**20


class Measured(NamedTuple):
    """What a backend made of the golden clips."""

    outputs: Dict[str, Any]  # name → N numbers, or N lists of numbers
    latencies_ms: List[float]  # one frame at a time
    backend: str


class Health(NamedTuple):
    """What the report says of an engine."""

    max_difference: float  # of any probability
    argmax_agreement: float  # share of frames whose gate decision and reason both agree
    p50_ms: float
    p95_ms: float
    backend: str


def read_golden(bundle: Path) -> Golden:
    """The golden clips of a bundle, inputs and outputs held against each other.

    Raises:
        Unhealthy: the bundle has none, or they do not fit together.
    """
    try:
        waves = _read(bundle / GOLDEN_INPUTS, _MAX_INPUT_BYTES)
        data = _read(bundle / GOLDEN_OUTPUTS, _MAX_OUTPUT_BYTES)
    except OSError:
        raise Unhealthy("the bundle has no golden clips, so nothing can show that it works here") from None
    frames, rest = divmod(len(waves), FRAME_BYTES)
    if rest or not frames:
        raise Unhealthy(
            f"the golden inputs have {len(waves)} bytes, no whole number of frames of {FRAME_BYTES}"
        )
    try:
        raw = strict_json(data)
    except ValueError as err:
        raise Unhealthy(f"the golden outputs cannot be read ({err})") from None
    return Golden(waves, flat_outputs(raw, frames, "the golden outputs"))


def judge(golden: Golden, measured: Measured) -> Health:
    """Hold measured outputs against the golden ones.

    Raises:
        Unhealthy: they are not finite, not as many, too far apart, or decide otherwise.
    """
    frames = len(golden.reference[GATE])
    found = flat_outputs(measured.outputs, frames, "the engine's outputs")
    if set(found) != set(golden.reference):
        raise Unhealthy("the engine's outputs are others than the golden ones")
    try:
        parity = compare(golden.reference, found)
        require(parity, measured.backend)
    except engine.Unhealthy as err:
        raise Unhealthy(str(err)) from None
    times = sorted(measured.latencies_ms)
    if not times or not all(math.isfinite(x) and x >= 0 for x in times):
        raise Unhealthy("the engine's times cannot be used")
    return health_of(parity, quantile(times, 0.5), quantile(times, 0.95), measured.backend)


def health_of(parity: Parity, p50_ms: float, p95_ms: float, backend: str) -> Health:
    """For the report."""
    return Health(parity.max_difference, parity.argmax_agreement, p50_ms, p95_ms, backend)


def flat_outputs(raw: Any, frames: int, what: str) -> Dict[str, List[float]]:
    """Gate, energy and, where there are any, reasons of so many frames: name → numbers, row after row.

    Raises:
        Unhealthy: not of that form, or not finite.
    """
    if not isinstance(raw, dict):
        raise Unhealthy(f"{what} are no JSON object")
    flat = {}  # type: Dict[str, List[float]]
    for name in (GATE, ENERGY):
        flat[name] = _numbers(raw.get(name), f"{what}: {name}")
        if len(flat[name]) != frames:
            raise Unhealthy(f"{what}: {len(flat[name])} values of {name} for {frames} frames")
    rows = raw.get(REASON) or []
    if not isinstance(rows, list) or (rows and len(rows) != frames):
        raise Unhealthy(f"{what}: {REASON} has not {frames} rows")
    reasons = [_numbers(row, f"{what}: {REASON}") for row in rows]
    if rows and (not reasons[0] or len({len(row) for row in reasons}) != 1):
        raise Unhealthy(f"{what}: {REASON} has rows of different lengths, or empty ones")
    if reasons:
        flat[REASON] = [value for row in reasons for value in row]
    return flat


def _numbers(values: Any, what: str) -> List[float]:
    if not isinstance(values, list) or not all(type(x) in (int, float) for x in values):
        raise Unhealthy(f"{what} is no list of numbers")
    if not all(math.isfinite(x) for x in values):
        raise Unhealthy(f"{what} is not finite")
    return [float(x) for x in values]


def _read(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise Unhealthy(f"{path.name} has more than the {limit} bytes that golden clips may have")
    return data
