"""The voice: harmonics with a tilt, aspiration, and formants (Fant's source and filter).

All rendering is in float64: platforms differ in the last bits of sine and FFT, which is then far below the 16-bit step, so that
the same seed gives the same file everywhere.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter

from infra.data.synth.config import BAND_HZ, SAMPLE_RATE
from infra.data.synth.prosody import Burst, CryPlan, Infant

Wave = npt.NDArray[np.float64]

_FORMANTS_HZ = (1050.0, 2500.0, 3700.0)  # newborn tract; the first formants sit high above an adult's
_BANDWIDTHS_HZ = (240.0, 320.0, 420.0)


def slow_noise(rng: np.random.Generator, n: int, rate_hz: float) -> Wave:
    """Unit-variance random curve with about `rate_hz` independent values a second, (n,)."""
    knots = rng.standard_normal(max(2, int(np.ceil(n / SAMPLE_RATE * rate_hz)) + 2))
    return np.interp(np.linspace(0.0, len(knots) - 1.0, n), np.arange(len(knots)), knots)


def pitch_curve(burst: Burst, n: int, rng: np.random.Generator, jitter: float) -> Wave:
    """Pitch of a burst in Hz, (n,): melody about the mean, tremor, and slow jitter."""
    m = burst.melody
    u = np.linspace(0.0, 1.0, n)
    # a cosine glide rather than a line: voices lead into and out of a glide
    glide = -0.5 * np.cos(np.pi * u)
    arch = np.sin(np.pi * u) - 2.0 / np.pi  # zero mean, so curvature does not move the pitch level
    phase = rng.uniform(0.0, 2.0 * np.pi)
    tremor = m.tremor_depth * np.sin(2.0 * np.pi * m.tremor_rate * burst.duration * u + phase)
    semitones = m.slope * glide + m.curvature * arch + tremor + jitter * slow_noise(rng, n, 12.0)
    return burst.f0 * 2.0 ** (semitones / 12.0)


def envelope(burst: Burst, n: int, rng: np.random.Generator, shimmer: float) -> Wave:
    """Loudness of a burst, (n,): raised-cosine attack and decay, voice breaks, and slow shimmer."""
    m = burst.melody
    u = np.linspace(0.0, 1.0, n)
    rise = 0.5 - 0.5 * np.cos(np.pi * np.clip(u / m.attack, 0.0, 1.0))
    fall = 0.5 - 0.5 * np.cos(np.pi * np.clip((1.0 - u) / m.decay, 0.0, 1.0))
    shape = rise * fall * np.exp(shimmer * slow_noise(rng, n, 9.0))
    if m.breaks > 0.02:
        # two short breaks; their places wander so that they make no fixed rhythm
        for centre in (rng.uniform(0.28, 0.42), rng.uniform(0.58, 0.74)):
            dip = np.exp(-0.5 * ((u - centre) * burst.duration / 0.018) ** 2)
            shape *= 1.0 - m.breaks * dip
    return shape


def harmonics(f0: Wave, tilt: float) -> Wave:
    """Sum of the harmonics below the band edge with amplitudes h^-tilt, (n,)."""
    phase = 2.0 * np.pi * np.cumsum(f0) / SAMPLE_RATE
    twice_cos = 2.0 * np.cos(phase)
    before, now = np.zeros_like(phase), np.sin(phase)
    out = np.zeros_like(phase)
    lowest = float(f0.min())
    h = 1
    while h * lowest < BAND_HZ:
        # harmonics fade out before the band edge instead of being cut as they glide across it
        out += now * (h**-tilt) * np.clip((BAND_HZ - 100.0 - h * f0) / 300.0, 0.0, 1.0)
        before, now = now, twice_cos * now - before  # sin((h+1)φ) = 2 cos φ sin hφ − sin((h−1)φ)
        h += 1
    return out


def formants(source: Wave, tract: float, frequencies: tuple[float, ...] = _FORMANTS_HZ) -> Wave:
    """Three resonances in parallel with the direct path, (n,)."""
    out = 0.15 * source
    for i, (centre, width) in enumerate(zip(frequencies, _BANDWIDTHS_HZ, strict=False)):
        hz = min(centre * tract, BAND_HZ - 150.0)
        radius = np.exp(-np.pi * width / SAMPLE_RATE)
        a1, a2 = -2.0 * radius * np.cos(2.0 * np.pi * hz / SAMPLE_RATE), radius**2
        gain = (1.0 - radius) * (1.0 - 0.25 * i)
        out = out + lfilter([gain, 0.0, -gain], [1.0, a1, a2], source)
    return out


def _add_burst(source: Wave, plan: CryPlan, burst: Burst, rng: np.random.Generator) -> None:
    infant: Infant = plan.infant
    start, n = int(burst.start * SAMPLE_RATE), int(burst.duration * SAMPLE_RATE)
    f0 = pitch_curve(burst, n, rng, infant.jitter)
    loud = envelope(burst, n, rng, infant.shimmer)
    voiced = harmonics(f0, plan.tilt)
    voiced /= np.sqrt(np.mean(voiced**2))
    aspiration = plan.breath * rng.standard_normal(n)
    source[start : start + n] += burst.level * loud * (voiced + aspiration)


def render_cry(plan: CryPlan, seconds: float, rng: np.random.Generator) -> Wave:
    """The cry at the lips, (T,), about unit RMS while crying."""
    source = np.zeros(round(seconds * SAMPLE_RATE))
    for burst in plan.bursts:
        _add_burst(source, plan, burst, rng)
    for left, right in zip(plan.bursts, plan.bursts[1:], strict=False):
        # the infant breathes in between bursts
        start, stop = int((left.start + left.duration) * SAMPLE_RATE), int(right.start * SAMPLE_RATE)
        source[start:stop] += plan.inhale * np.hanning(stop - start) * rng.standard_normal(stop - start)
    return formants(source, plan.infant.tract)
