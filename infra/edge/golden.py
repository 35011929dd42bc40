"""Golden clips: what a release answers to 64 frames, so that a device can tell a sound engine from a broken one.

    golden/inputs.f32      (64, 16000) float32, little-endian, 16 kHz mono: no header, no decoder needed
    golden/outputs.json    what the ONNX reference answers to each

The frames are always synthesised, also for releases that learned from real recordings: no recording leaves its site. Of twice as
many frames those are taken on which the reference is decided, where there are enough: two answers that lie within the health
check's tolerance may change places by rounding alone, and would condemn a sound engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from infra.data.synth.channel import draw_site, record
from infra.data.synth.config import NON_CRIES, PUBLIC_NOISE, REASONS, SAMPLE_RATE, SYNTH_VERSION
from infra.data.synth.noises import MAKERS
from infra.data.synth.prosody import draw_infant, plan_cry
from infra.data.synth.voice import render_cry
from infra.digest import canonical_json
from infra.edge.graph import GATE_OUTPUTS, REASON_OUTPUTS
from infra.edge.runtime import Graph
from models.config import FRAME_SAMPLES
from models.seeds import derive_seed

Frames = npt.NDArray[np.float32]

INPUTS: Final = "golden/inputs.f32"
OUTPUTS: Final = "golden/outputs.json"
FORMAT: Final = "cryfed-golden/1"
COUNT: Final = 64
MAX_DIFFERENCE: Final = 0.01
"""Largest difference of a probability that the health check accepts (docs/edge-protocol.md)."""

_CLIP_SECONDS: Final = 1.5
_DECIMALS: Final = 6


def synthesise_frames(count: int = 2 * COUNT) -> Frames:
    """Frames (count, 16000), the same on every machine: cries of every reason and non-cries in turn, each with its own infant,
    room, microphone and level."""
    kinds = (*NON_CRIES, *PUBLIC_NOISE)
    n = round(_CLIP_SECONDS * SAMPLE_RATE)
    start = (n - FRAME_SAMPLES) // 2
    out = np.empty((count, FRAME_SAMPLES), np.float32)
    for i in range(count):
        rng = np.random.Generator(np.random.PCG64(derive_seed("golden", FORMAT, SYNTH_VERSION, i)))
        if i % 2 == 0:
            plan = plan_cry(rng, draw_infant(rng, 1.0), REASONS[i // 2 % len(REASONS)], _CLIP_SECONDS, 1.0)
            dry = render_cry(plan, _CLIP_SECONDS, rng)
        else:
            dry = MAKERS[kinds[i // 2 % len(kinds)]](rng, n)
        wave = record(dry, draw_site(rng), rng)[start : start + FRAME_SAMPLES]
        # on the 16-bit grid, below which machines differ in the last bits of sine and FFT
        out[i] = np.round(np.clip(wave, -1.0, 1.0) * 32767.0) / 32768.0
    return out


def choose(outputs: Mapping[str, npt.NDArray[np.float32]], count: int = COUNT) -> npt.NDArray[np.intp]:
    """Indices of `count` frames in order, the first ones of those on which the reference is decided, then of the others."""
    undecided = np.abs(2 * outputs["gate_probability"] - 1) <= 2 * MAX_DIFFERENCE
    reasons = outputs.get("reason_probabilities")
    if reasons is not None and reasons.shape[1] > 1:
        top = np.sort(reasons, axis=1)
        undecided |= top[:, -1] - top[:, -2] <= 2 * MAX_DIFFERENCE
    return np.sort(np.argsort(undecided, kind="stable")[:count])


def write_golden(folder: Path, graph: Path) -> dict[str, Path]:
    """Write both files for an exported graph; returns name in the bundle → path.

    Raises:
        BundleError: ONNX Runtime cannot load the graph.
    """
    reference = Graph(graph.read_bytes(), name=str(graph))
    frames = synthesise_frames()
    outputs = reference.run(frames)
    kept = choose(outputs)
    answers = {name: _rounded(outputs[name][kept]) for name in _compared(reference)}
    document = {"format": FORMAT, "frames": len(kept), "max_difference": MAX_DIFFERENCE, **answers}
    paths = {INPUTS: folder / INPUTS, OUTPUTS: folder / OUTPUTS}
    paths[INPUTS].parent.mkdir(parents=True, exist_ok=True)
    paths[INPUTS].write_bytes(np.ascontiguousarray(frames[kept], "<f4").tobytes())
    paths[OUTPUTS].write_bytes(canonical_json(document))
    return paths


def provenance() -> dict[str, Any]:
    """What a manifest says of its golden clips."""
    return {"format": FORMAT, "frames": COUNT, "synthetic": True, "synthesiser": SYNTH_VERSION}


def _compared(graph: Graph) -> tuple[str, ...]:
    """Probabilities and energy; logits follow from the former."""
    probability, _, energy = GATE_OUTPUTS
    return (probability, energy, REASON_OUTPUTS[0]) if graph.has_reasons else (probability, energy)


def _rounded(values: npt.NDArray[np.float32]) -> Any:
    return np.round(values.astype(np.float64), _DECIMALS).tolist()
