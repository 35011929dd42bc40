"""Calls that are no infant's: what animals, alarms, instruments and machines have in common with a cry, and what not.

A gate that has heard rain, engines and rejected uploads alone takes the first rooster for an infant: it is loud, harmonic and
about as high. These are harmonic sounds of many contours, lengths and roughnesses, drawn from wide ranges, to be learned as
non-cries (outlier exposure, arXiv 1812.04606, with outliers that are made). Synthetic and seeded. None is modelled on a rooster:
that one of real recordings is then told apart, unheard, is what they are for (docs/evidence.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from models.config import SAMPLE_RATE, LogMelConfig
from models.frames import CALL, TRAIN, UNKNOWN, SiteFrames
from models.log_mel import LogMel
from models.seeds import derive_seed
from models.segmentation import VadConfig, frames
from models.threads import one_thread

Wave = npt.NDArray[np.float32]
_Rng = np.random.Generator
_TOP_HZ: Final = 7600.0
CLIPS: Final = 320
"""Recordings of calls beside the public noise."""


def call_frames(
    reasons: tuple[str, ...], mel: LogMelConfig, vad: VadConfig, clips: int = CLIPS
) -> SiteFrames:
    """Frames of that many recordings of calls, of no site and all for training; their label is `CALL`."""
    front = LogMel(mel).eval()
    pieces, clip = [], []
    with one_thread(), torch.inference_mode():
        for i in range(clips):
            kept = frames(call(i), vad)
            pieces.append(front(torch.from_numpy(kept)).numpy().astype(np.float16))
            clip += [i] * len(kept)
    names = np.array([f"call{i:05d}" for i in range(clips)])
    return SiteFrames(
        site="", reasons=reasons, log_mel=np.concatenate(pieces), clip=np.array(clip, np.int32),
        view=np.zeros(len(clip), np.int16), snr_db=np.full(len(clip), np.nan, np.float32), gate=np.zeros(clips, np.int8),
        reason=np.full(clips, UNKNOWN, np.int16), part=np.full(clips, TRAIN, np.int8), group=names, clip_id=names,
        label=np.full(clips, CALL),
    )  # fmt: skip


def call(seed: int, seconds: float = 3.0) -> Wave:
    """One recording (T,) with calls of one kind in it, 16 kHz, peak below 1; the seed decides kind and sound."""
    rng = np.random.Generator(np.random.PCG64(derive_seed("call", seed)))
    kind = _KINDS[seed % len(_KINDS)]
    out = np.zeros(round(seconds * SAMPLE_RATE))
    kind(rng, out)
    out += rng.normal(0.0, 1.0, len(out)) * 10 ** rng.uniform(-4.0, -1.7) * max(out.std(), 1e-3)
    return (out * (rng.uniform(0.1, 0.9) / np.abs(out).max())).astype(np.float32)


def _put(out: npt.NDArray, at: float, sound: npt.NDArray) -> float:
    start = round(at * SAMPLE_RATE)
    end = min(len(out), start + len(sound))
    if start < end:
        out[start:end] += sound[: end - start]
    return at + len(sound) / SAMPLE_RATE


def _smooth(rng: _Rng, n: int, points: int, low: float, high: float) -> npt.NDArray:
    knots = rng.uniform(low, high, points)
    return np.interp(np.linspace(0, points - 1, n), np.arange(points), knots)


def _voice(rng: _Rng, f0: npt.NDArray, tilt: float, rough: float, breath: float) -> npt.NDArray:
    n = len(f0)
    walk = np.cumsum(rng.normal(0, 1, n))
    walk -= np.linspace(walk[0], walk[-1], n)
    f0 = f0 * (1 + rough * 0.2 * walk / max(np.abs(walk).max(), 1e-9) + rough * 0.05 * rng.normal(0, 1, n))
    phase = 2 * np.pi * np.cumsum(f0) / SAMPLE_RATE
    formants = rng.uniform(300, 3600, 3)
    widths = rng.uniform(80, 500, 3)
    out = np.zeros(n)
    for k in range(1, 1 + int(_TOP_HZ / max(float(f0.min()), 60.0))):
        hz = k * f0
        gain = 0.15 + sum(1.0 / (1.0 + ((hz - f) / w) ** 2) for f, w in zip(formants, widths, strict=True))
        out += np.where(hz < _TOP_HZ, gain * k**-tilt, 0.0) * np.sin(k * phase + rng.uniform(0, 6.28))
        if k > 40:
            break
    if rough > 0.3:
        out *= 1 + rough * np.sin(2 * np.pi * np.cumsum(np.full(n, rng.uniform(20, 120))) / SAMPLE_RATE)
    out /= max(np.abs(out).max(), 1e-9)
    return out + breath * rng.normal(0, 0.3, n) * np.abs(out)


def _shape(n: int, attack: float, release: float) -> npt.NDArray:
    t = np.arange(n) / SAMPLE_RATE
    return np.minimum(1, t / attack) * np.minimum(1, (t[-1] - t) / release)


def _n(seconds: float) -> int:
    return max(160, round(seconds * SAMPLE_RATE))


def _bark(rng: _Rng, out: npt.NDArray) -> None:
    base, at = rng.uniform(140, 1000), rng.uniform(0, 0.6)
    gap, tilt, rough, breath = (
        rng.uniform(0.12, 0.7),
        rng.uniform(0.2, 1.5),
        rng.uniform(0.1, 0.9),
        rng.uniform(0.2, 1.5),
    )
    for _ in range(int(rng.integers(1, 9))):
        n = _n(rng.uniform(0.05, 0.25))
        f0 = (
            base
            * rng.uniform(0.85, 1.15)
            * np.interp(np.linspace(0, 1, n), [0, 0.3, 1], [rng.uniform(0.7, 1), 1.2, rng.uniform(0.5, 0.9)])
        )
        at = _put(out, at, _voice(rng, f0, tilt, rough, breath) * _shape(n, 0.008, 0.05)) + gap * rng.uniform(
            0.7, 1.4
        )


def _glide(rng: _Rng, out: npt.NDArray) -> None:
    at = rng.uniform(0, 1.0)
    for _ in range(int(rng.integers(1, 4))):
        n = _n(rng.uniform(0.25, 2.4))
        f0 = _smooth(
            rng, n, int(rng.integers(2, 6)), *(np.array([1.0, rng.uniform(1.2, 2.5)]) * rng.uniform(180, 900))
        )
        at = _put(
            out,
            at,
            _voice(rng, f0, rng.uniform(0.2, 2), rng.uniform(0, 0.4), rng.uniform(0, 0.4))
            * _shape(n, rng.uniform(0.02, 0.3), rng.uniform(0.05, 0.5)),
        )
        at += rng.uniform(0.1, 1.0)


def _chirps(rng: _Rng, out: npt.NDArray) -> None:
    low, gap, at = rng.uniform(900, 3000), rng.uniform(0.03, 0.5), rng.uniform(0, 0.3)
    while at < len(out) / SAMPLE_RATE:
        n = _n(rng.uniform(0.02, 0.18))
        f0 = _smooth(rng, n, 3, low, low * rng.uniform(1.05, 1.6))
        at = _put(
            out, at, _voice(rng, f0, 2.0, 0.05, 0.05) * _shape(n, 0.005, 0.01) * rng.uniform(0.3, 1)
        ) + gap * rng.uniform(0.5, 1.5)


def _siren(rng: _Rng, out: npt.NDArray) -> None:
    n = len(out)
    t = np.arange(n) / SAMPLE_RATE
    swing = np.sin(2 * np.pi * rng.uniform(0.2, 5) * t + rng.uniform(0, 6.28))
    if rng.random() < 0.4:
        swing = np.sign(swing)
    f0 = rng.uniform(350, 1600) * 2 ** (rng.uniform(0.02, 0.5) * swing)
    on = 1.0 if rng.random() < 0.5 else (np.sin(2 * np.pi * rng.uniform(0.5, 4) * t) > 0)
    out += _voice(rng, f0, rng.uniform(0.5, 2.5), 0.0, 0.0) * on


def _notes(rng: _Rng, out: npt.NDArray) -> None:
    at, tilt = rng.uniform(0, 0.3), rng.uniform(0.3, 2)
    decay = rng.uniform(0.5, 8)
    while at < len(out) / SAMPLE_RATE:
        n = _n(rng.uniform(0.15, 1.2))
        f0 = np.full(n, 110.0 * 2 ** (rng.integers(0, 40) / 12))
        if rng.random() < 0.3:
            f0 = f0 * (1 + 0.02 * np.sin(2 * np.pi * rng.uniform(4, 7) * np.arange(n) / SAMPLE_RATE))
        _put(
            out,
            at,
            _voice(rng, f0, tilt, 0.0, 0.02)
            * _shape(n, 0.01, 0.05)
            * np.exp(-decay * np.arange(n) / SAMPLE_RATE),
        )
        at += rng.uniform(0.1, 0.8)


def _engine(rng: _Rng, out: npt.NDArray) -> None:
    n = len(out)
    f0 = _smooth(rng, n, 5, 1.0, rng.uniform(1.02, 1.5)) * rng.uniform(12, 220)
    sound = _voice(rng, np.maximum(f0, 60.0), rng.uniform(0.2, 1.2), rng.uniform(0.3, 1), rng.uniform(0.2, 2))
    out += sound * (1 + rng.uniform(0, 1) * np.sin(2 * np.pi * np.cumsum(f0 / 4) / SAMPLE_RATE))


def _talk(rng: _Rng, out: npt.NDArray) -> None:
    base, at = rng.uniform(90, 330), rng.uniform(0, 0.3)
    while at < len(out) / SAMPLE_RATE:
        n = _n(rng.uniform(0.06, 0.3))
        f0 = _smooth(rng, n, 3, base * 0.8, base * 1.3)
        at = _put(
            out,
            at,
            _voice(rng, f0, rng.uniform(0.8, 1.6), 0.05, rng.uniform(0, 0.6))
            * _shape(n, 0.02, 0.03)
            * rng.uniform(0.4, 1),
        )
        at += rng.uniform(0.0, 0.12) if rng.random() < 0.85 else rng.uniform(0.2, 0.8)


_KINDS: Final[tuple[Callable[[_Rng, npt.NDArray], None], ...]] = (
    _bark,
    _glide,
    _chirps,
    _siren,
    _notes,
    _engine,
    _talk,
)
