"""Sounds that no monitor should take for a cry, made by rules of their own: none of the generators that training has met is used.

    silence   digital zeros, or a room at −60 to −80 dB re full scale
    hum       50 or 60 Hz with harmonics, steady
    speech    adults: glottal pulses at 85 to 240 Hz through three moving formants, about four syllables a second, phrases and
              pauses
    music     chords or arpeggios of plucked, bowed or piped tones between 100 and 900 Hz, in equal temperament

Each is a clip (T,) float32 at 16 kHz, peak at most 0.5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter

from models.config import SAMPLE_RATE
from models.errors import ConfigError
from models.seeds import derive_seed

Wave = npt.NDArray[np.float32]
_Floats = npt.NDArray[np.float64]

_VOWELS: Final = (  # F1, F2, F3 in Hz of adult vowels (Peterson and Barney 1952, men and women between)
    (300.0, 2500.0, 3150.0), (430.0, 2200.0, 2800.0), (570.0, 1970.0, 2700.0), (750.0, 1900.0, 2600.0),
    (790.0, 1150.0, 2600.0), (580.0, 880.0, 2550.0), (450.0, 1080.0, 2450.0), (340.0, 900.0, 2400.0),
)  # fmt: skip
_BANDWIDTHS: Final = (80.0, 110.0, 160.0)


def probe(kind: str, seed: int, k: int, seconds: float = 4.0) -> Wave:
    """The k-th clip of a kind; the same for the same seed.

    Raises:
        ConfigError: the kind is unknown.
    """
    if kind not in PROBES:
        raise ConfigError(f"unknown probe {kind!r}: choose one of {', '.join(PROBES)}")
    rng = np.random.Generator(np.random.PCG64(derive_seed("probe", seed, kind, k)))
    return PROBES[kind](rng, round(seconds * SAMPLE_RATE)).astype(np.float32)


def _silence(rng: np.random.Generator, n: int) -> _Floats:
    if rng.random() < 0.25:
        return np.zeros(n)
    return 10.0 ** (rng.uniform(-80.0, -60.0) / 20.0) * rng.standard_normal(n)


def _hum(rng: np.random.Generator, n: int) -> _Floats:
    t = np.arange(n) / SAMPLE_RATE
    base = float(rng.choice([50.0, 60.0])) * (1.0 + rng.normal(0.0, 2e-4))
    odd = rng.random() < 0.5  # a transformer sounds at even multiples, a lamp's ballast at odd ones too
    out = np.zeros(n)
    for h in range(1, int(rng.integers(4, 24))):
        weight = (
            rng.uniform(0.3, 1.0) / h ** rng.uniform(0.4, 1.2) * (1.0 if odd or h % 2 == 0 or h == 1 else 0.2)
        )
        out += weight * np.sin(2.0 * np.pi * h * base * t + rng.uniform(0.0, 2.0 * np.pi))
    return _level(out + 10.0 ** (rng.uniform(-40.0, -20.0) / 20.0) * rng.standard_normal(n), rng)


def _speech(rng: np.random.Generator, n: int) -> _Floats:
    f0 = float(np.exp(rng.uniform(np.log(85.0), np.log(240.0))))
    out = np.zeros(n)
    at = int(rng.uniform(0.0, 0.3) * SAMPLE_RATE)
    while at < n:
        syllables = int(rng.integers(4, 11))
        for k in range(syllables):  # a phrase falls
            size = int(rng.uniform(0.14, 0.32) * SAMPLE_RATE)
            pitch = f0 * 2.0 ** ((rng.normal(0.0, 1.5) - 4.0 * k / syllables) / 12.0)
            piece = _syllable(rng, size, pitch)[: max(0, n - at)]
            out[at : at + len(piece)] += piece
            at += int(size * rng.uniform(0.85, 1.15))
        at += int(rng.uniform(0.2, 0.7) * SAMPLE_RATE)
    return _level(out, rng)


def _syllable(rng: np.random.Generator, n: int, pitch: float) -> _Floats:
    """A consonant's noise, then a vowel gliding into another."""
    consonant = int(rng.uniform(0.1, 0.35) * n)
    vowel = n - consonant
    glide = pitch * 2.0 ** (np.linspace(0.0, rng.normal(0.0, 1.5), vowel) / 12.0)
    phase = np.cumsum(glide) / SAMPLE_RATE
    pulses = np.diff(np.floor(phase), prepend=0.0)
    source = lfilter([1.0], [1.0, -0.96], pulses) + 0.01 * rng.standard_normal(vowel)  # −12 dB an octave
    a, b = (np.array(_VOWELS[k]) * np.exp(rng.normal(0.0, 0.06)) for k in rng.integers(len(_VOWELS), size=2))
    mix = np.linspace(0.0, 1.0, vowel)
    voiced = (1.0 - mix) * _formants(source, a) + mix * _formants(source, b)
    voiced *= np.sin(np.pi * (np.arange(vowel) + 0.5) / vowel) ** 0.5
    hiss = lfilter([1.0, -0.9], [1.0], rng.standard_normal(consonant)) * np.hanning(consonant)
    top = np.max(np.abs(voiced))
    return np.concatenate([rng.uniform(0.05, 0.3) * hiss, voiced / max(float(top), 1e-9)]) * rng.uniform(
        0.5, 1.0
    )


def _formants(source: _Floats, frequencies: _Floats) -> _Floats:
    """Resonators in a row (Klatt 1980, equation 2)."""
    for f, width in zip(frequencies, _BANDWIDTHS, strict=True):
        c = -np.exp(-2.0 * np.pi * width / SAMPLE_RATE)
        b = 2.0 * np.exp(-np.pi * width / SAMPLE_RATE) * np.cos(2.0 * np.pi * f / SAMPLE_RATE)
        source = lfilter([1.0 - b - c], [1.0, -b, -c], source)
    return source


def _music(rng: np.random.Generator, n: int) -> _Floats:
    beat = int(rng.uniform(0.18, 0.6) * SAMPLE_RATE)
    arpeggio, sustain = rng.random() < 0.5, rng.random() < 0.4
    tilt = rng.uniform(1.0, 2.5)
    tonic = float(np.exp(rng.uniform(np.log(100.0), np.log(300.0))))
    out = np.zeros(n + 4 * beat)
    for at in range(0, n, beat if arpeggio else 2 * beat):
        degree = int(rng.choice([0, 5, 7, 9]))
        chord = [degree, degree + (3 if degree == 9 else 4), degree + 7, degree + 12]
        chosen = [chord[int(rng.integers(4))]] if arpeggio else chord[:3]
        length = 2 * beat if arpeggio else 3 * beat
        for note in chosen:
            tone = _tone(rng, length, tonic * 2.0 ** (note / 12.0), tilt, sustain=bool(sustain))
            out[at : at + length] += rng.uniform(0.6, 1.0) * tone[: len(out) - at]
    return _level(out[:n], rng)


def _tone(rng: np.random.Generator, n: int, f0: float, tilt: float, *, sustain: bool) -> _Floats:
    t = np.arange(n) / SAMPLE_RATE
    out = np.zeros(n)
    for h in range(1, 13):
        if h * f0 < 4000.0:
            out += h**-tilt * np.sin(2.0 * np.pi * h * f0 * t + rng.uniform(0.0, 2.0 * np.pi))
    shape = np.minimum(1.0, t / (0.06 if sustain else 0.004))
    release = np.minimum(1.0, (n - np.arange(n)) / (0.03 * SAMPLE_RATE))
    return out * shape * release * (1.0 if sustain else np.exp(-t / 0.35))


def _level(wave: _Floats, rng: np.random.Generator) -> _Floats:
    loud = np.sqrt(np.mean(wave**2))
    out = wave * (10.0 ** (rng.uniform(-36.0, -22.0) / 20.0) / max(float(loud), 1e-9))
    return out * min(1.0, 0.5 / max(float(np.max(np.abs(out))), 1e-9))


PROBES: Final[dict[str, Callable[[np.random.Generator, int], _Floats]]] = {
    "silence": _silence, "hum": _hum, "speech": _speech, "music": _music,
}  # fmt: skip
