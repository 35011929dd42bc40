"""How long one second of audio takes an exported graph on this machine: ONNX Runtime, one thread, one frame at a time."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.edge.runtime import Graph
from models.config import FRAME_SAMPLES

Json = dict[str, Any]

WARM_UP = 10
FRAMES = 200


def measure_latency(model: bytes, frames_NT: npt.NDArray[np.float32], warm_up: int = WARM_UP) -> Json:
    """Milliseconds a frame: median with its 95 % interval, 95th percentile, how many, and on what.

    Args:
        model: the bytes of an exported graph.
        frames_NT: (n, 16000), at least one; each is run once, after `warm_up` runs that do not count.

    Raises:
        BundleError: ONNX Runtime cannot load it.
    """
    session = Graph(model)
    order = [*range(len(frames_NT))]
    times = []
    for k in [*(order * warm_up)[:warm_up], *order]:
        started = time.perf_counter()
        session.run(frames_NT[k : k + 1])
        times.append(1e3 * (time.perf_counter() - started))
    return {**summarise_times(times[warm_up:]), "on": this_machine(), "threads": 1}


def summarise_times(milliseconds: Sequence[float]) -> Json:
    """Median, the interval of it that order statistics give (no assumption on the distribution), and the 95th percentile."""
    x = np.sort(np.asarray(milliseconds, np.float64))
    n = len(x)
    low, high = _ranks(n)
    return {
        "p50": round(float(np.percentile(x, 50)), 3),
        "p95": round(float(np.percentile(x, 95)), 3),
        "low": None if low is None else round(float(x[low]), 3),
        "high": None if high is None else round(float(x[high]), 3),
        "n": n,
    }


def noise_frames(n: int = FRAMES, seed: int = 0) -> npt.NDArray[np.float32]:
    """(n, 16000) frames of noise: what is heard does not change what it costs."""
    rng = np.random.Generator(np.random.PCG64(seed))
    return (0.1 * rng.standard_normal((n, FRAME_SAMPLES))).astype(np.float32)


def this_machine() -> str:
    """The processor, how many of its cores this process may use, and how busy the machine is."""
    name = platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = (line.split(":", 1) for line in info.read_text(errors="replace").splitlines() if ":" in line)
        name = next((v.strip() for k, v in lines if k.strip() == "model name"), name)
    cores = len(os.sched_getaffinity(0))
    return f"{name}, {cores} cores, load {os.getloadavg()[0]:.1f}"


def _ranks(n: int) -> tuple[int | None, int | None]:
    """Ranks from 0 between which the median lies with 95 % confidence: the largest k with P(B ≤ k) ≤ 2.5 %, B ~ Bin(n, ½)."""
    from scipy import stats

    k = int(stats.binom.ppf(0.025, n, 0.5))
    if stats.binom.cdf(k, n, 0.5) > 0.025:
        k -= 1
    return (None, None) if k < 0 else (k, n - 1 - k)
