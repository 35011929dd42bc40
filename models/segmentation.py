"""Adaptive voice-activity segmentation: which seconds of a recording are worth classifying.

Energy in dB per 10 ms against a noise floor that follows the recording (minimum statistics of the smoothed energy, R. Martin
2001, without its bias model). The same function serves training, calibration and inference: a score is only comparable when
its frames were picked in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.config import FRAME_SAMPLES, SAMPLE_RATE
from models.errors import ConfigError

Wave = npt.NDArray[np.float32]

_STEP = SAMPLE_RATE // 100  # 10 ms
_SILENCE_DB = -120.0


@dataclass(frozen=True)
class VadConfig:
    """Thresholds in dB, times in seconds."""

    margin_db: float = 9.0  # above the noise floor
    below_peak_db: float = (
        15.0  # a steady sound is its own floor: whatever is this close to the peak counts as active
    )
    range_db: float = 40.0  # further below the peak than this is never active
    floor_window_s: float = 1.5  # the noise floor is the minimum over this window
    hangover_s: float = 0.15  # short gaps between bursts belong to the activity
    min_active: float = 0.3  # fraction of a one-second frame
    hop_s: float = 0.5


def _frame_db(wave: Wave) -> npt.NDArray[np.float64]:
    """Energy per 10 ms step in dB, smoothed over 50 ms."""
    n = -(-len(wave) // _STEP)
    padded = np.zeros(n * _STEP)
    padded[: len(wave)] = wave
    power = np.square(padded).reshape(n, _STEP).mean(axis=1)
    smooth = np.convolve(np.pad(power, 2, mode="edge"), np.full(5, 0.2), mode="valid")
    # the convolution's round-off can leave a silent stretch a hair below zero
    return 10.0 * np.log10(np.maximum(smooth, 10.0 ** (_SILENCE_DB / 10.0)))


def _sliding(values: npt.NDArray[np.float64], width: int, reduce: np.ufunc) -> npt.NDArray[np.float64]:
    """Centred sliding minimum or maximum by doubling: O(n log width)."""
    half = width // 2
    edge = np.pad(values, (half, width - 1 - half), mode="edge")
    span = 1
    while span * 2 <= width:
        edge = reduce(edge[: len(edge) - span], edge[span:])
        span *= 2
    rest = width - span
    return edge if rest == 0 else reduce(edge[: len(edge) - rest], edge[rest:])


def activity(wave: Wave, cfg: VadConfig | None = None) -> npt.NDArray[np.bool_]:
    """Activity per 10 ms of a mono 16 kHz wave (T,): (⌈T / 160⌉,) bool."""
    cfg = cfg or VadConfig()
    if wave.ndim != 1 or len(wave) == 0:
        raise ConfigError(f"segmentation takes a non-empty mono wave (T,), got shape {wave.shape}")
    level = _frame_db(wave)
    floor = _sliding(level, max(1, round(cfg.floor_window_s * 100)), np.minimum)
    peak = float(np.percentile(level, 98))
    if peak <= _SILENCE_DB + 1.0:
        return np.zeros(len(level), dtype=bool)
    threshold = np.clip(floor + cfg.margin_db, peak - cfg.range_db, peak - cfg.below_peak_db)
    active = (level >= threshold).astype(np.float64)
    bridge = max(1, 2 * round(cfg.hangover_s * 50) + 1)
    closed = _sliding(_sliding(active, bridge, np.maximum), bridge, np.minimum)
    return np.maximum(closed, active) > 0.5


def segment(wave: Wave, cfg: VadConfig | None = None) -> list[tuple[int, int]]:
    """Active stretches as (start, end) in samples, in order, gaps shorter than the hangover closed."""
    active = np.concatenate([[False], activity(wave, cfg), [False]])
    edges = np.flatnonzero(active[1:] != active[:-1])
    return [
        (int(a) * _STEP, min(int(b) * _STEP, len(wave))) for a, b in zip(edges[::2], edges[1::2], strict=True)
    ]


def frame_starts(wave: Wave, cfg: VadConfig | None = None) -> npt.NDArray[np.int64]:
    """Start samples of the one-second frames to keep: at least one, the most active then loudest if none is active enough.

    Frames lie every `hop_s` seconds; a last one is aligned to the end when at least a quarter of a hop would be left over.
    """
    cfg = cfg or VadConfig()
    hop = round(cfg.hop_s * SAMPLE_RATE)
    if hop <= 0 or hop % _STEP:
        raise ConfigError(f"hop_s={cfg.hop_s} must be a positive multiple of 0.01 s")
    active = activity(wave, cfg)
    if len(wave) <= FRAME_SAMPLES:
        return np.zeros(1, dtype=np.int64)
    starts = np.arange(0, len(wave) - FRAME_SAMPLES + 1, hop, dtype=np.int64)
    last = len(wave) - FRAME_SAMPLES
    if last - starts[-1] >= hop // 4:
        starts = np.append(starts, last)
    steps = starts // _STEP
    per_frame = FRAME_SAMPLES // _STEP
    active_sum = np.concatenate([[0], np.cumsum(active)])
    fraction = (active_sum[np.minimum(steps + per_frame, len(active))] - active_sum[steps]) / per_frame
    kept = starts[fraction >= cfg.min_active]
    if len(kept):
        return kept
    energy_sum = np.concatenate([[0.0], np.cumsum(np.square(wave, dtype=np.float64))])
    energy = energy_sum[starts + FRAME_SAMPLES] - energy_sum[starts]
    best = np.lexsort((starts, -energy, -fraction))[0]
    return starts[best : best + 1]


def cut(wave: Wave, starts: npt.NDArray[np.int64]) -> Wave:
    """One-second frames at `starts`, (n, 16000) float32; what lies beyond the end is zero."""
    need = int(starts[-1]) + FRAME_SAMPLES if len(starts) else 0
    if need > len(wave):
        wave = np.concatenate([wave, np.zeros(need - len(wave), dtype=np.float32)])
    return np.stack([wave[s : s + FRAME_SAMPLES] for s in starts]).astype(np.float32, copy=False)


def frames(wave: Wave, cfg: VadConfig | None = None) -> Wave:
    """The one-second frames of a mono 16 kHz wave that hold activity, (n ≥ 1, 16000) float32.

    Raises:
        ConfigError: the wave is empty or not one-dimensional.
    """
    return cut(wave, frame_starts(wave, cfg))
