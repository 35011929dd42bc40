"""What is not a cry: the sounds of a site (babble, laughter, …) and public background noise (rain, traffic, …).

Babble and laughter share pitch range, voicing and formants with crying on purpose: the gate must hear more than "voiced".
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.signal import lfilter

from infra.data.synth.config import BAND_HZ, SAMPLE_RATE
from infra.data.synth.voice import Wave, formants, harmonics, slow_noise

Maker = Callable[[np.random.Generator, int], Wave]


def coloured(rng: np.random.Generator, n: int, low: float, high: float, exponent: float) -> Wave:
    """Gaussian noise between `low` and `high` Hz with amplitude ∝ f^-exponent, unit RMS, (n,)."""
    size = 1 << (n - 1).bit_length()
    f = np.fft.rfftfreq(size, 1.0 / SAMPLE_RATE)
    shape = np.where((f >= low) & (f <= min(high, BAND_HZ)), np.maximum(f, 20.0) ** -exponent, 0.0)
    out = np.fft.irfft(np.fft.rfft(rng.standard_normal(size)) * shape, size)[:n]
    return out / np.sqrt(np.mean(out**2))


def _ticks(rng: np.random.Generator, n: int, per_second: float, decay_s: float) -> Wave:
    """Decaying noise bursts at random times, (n,)."""
    pulses = np.where(rng.random(n) < per_second / SAMPLE_RATE, rng.uniform(0.3, 1.0, n), 0.0)
    pole = np.exp(-1.0 / (decay_s * SAMPLE_RATE))
    return lfilter([1.0], [1.0, -pole], pulses) * rng.standard_normal(n)


def _partials(rng: np.random.Generator, n: int, base: float, count: int, wander: float) -> Wave:
    """A hum: `count` partials of `base` with random weights and slow wandering, (n,)."""
    f0 = base * (1.0 + wander * slow_noise(rng, n, 2.0))
    phase = 2.0 * np.pi * np.cumsum(f0) / SAMPLE_RATE
    return sum((rng.uniform(0.2, 1.0) / h * np.sin(h * phase) for h in range(1, count + 1)), np.zeros(n))


def babble(rng: np.random.Generator, n: int) -> Wave:
    """A person talking, or an infant cooing: half of each."""
    return coo(rng, n) if rng.random() < 0.5 else talk(rng, n)


def coo(rng: np.random.Generator, n: int) -> Wave:
    """An infant at ease: an infant's pitch and tract, but long soft calls, wide pauses and a moving mouth."""
    source = np.zeros(n)
    f0_mean = float(np.exp(rng.uniform(np.log(320.0), np.log(560.0))))
    tilt, breath = float(rng.uniform(0.6, 1.6)), float(rng.uniform(0.05, 0.3))
    now = rng.uniform(0.05, 0.5)
    while now < n / SAMPLE_RATE - 0.4:
        seconds = rng.uniform(0.6, 1.2)
        start = int(now * SAMPLE_RATE)
        size = min(int(seconds * SAMPLE_RATE), n - start)
        u = np.linspace(0.0, 1.0, size)
        semitones = (
            rng.normal(0.0, 2.0) * u
            + rng.normal(0.0, 2.0) * np.sin(np.pi * u)
            + 0.3 * slow_noise(rng, size, 10.0)
        )
        tone = harmonics(f0_mean * 2.0 ** (semitones / 12.0), tilt)
        tone = tone / np.sqrt(np.mean(tone**2)) + breath * rng.standard_normal(size)
        source[start : start + size] += rng.uniform(0.6, 1.2) * np.sin(np.pi * u) ** 0.8 * tone
        now += seconds + rng.uniform(0.25, 0.7)
    tract = float(np.exp(rng.normal(0.0, 0.10)))
    opened = formants(source, tract)
    closed = formants(source, tract, (rng.uniform(500.0, 800.0), rng.uniform(1500.0, 2200.0), 3500.0))
    mix = 0.5 + 0.5 * np.tanh(1.5 * slow_noise(rng, n, 2.5))
    return mix * opened + (1.0 - mix) * closed


def talk(rng: np.random.Generator, n: int) -> Wave:
    """Syllables with moving formants and small pitch movements."""
    f0_mean = float(np.exp(rng.uniform(np.log(160.0), np.log(520.0))))
    rate = rng.uniform(1.2, 4.0)
    f0 = f0_mean * 2.0 ** (
        (rng.uniform(1.5, 4.0) * slow_noise(rng, n, 2.5) + 0.4 * slow_noise(rng, n, 10.0)) / 12.0
    )
    syllables = np.clip(slow_noise(rng, n, 2.0 * rate) + 0.2, 0.0, None)
    voiced = harmonics(f0, float(rng.uniform(0.8, 1.6)))
    fricative = np.clip(slow_noise(rng, n, 2.0 * rate) - 0.8, 0.0, None) * coloured(
        rng, n, 1500.0, BAND_HZ, 0.0
    )
    source = syllables * (voiced + 0.06 * rng.standard_normal(n)) + 0.7 * fricative
    tract = float(np.exp(rng.normal(-0.10, 0.15)))
    vowel_a = formants(source, tract, (rng.uniform(500.0, 900.0), rng.uniform(1100.0, 1700.0), 3000.0))
    vowel_b = formants(source, tract, (rng.uniform(300.0, 600.0), rng.uniform(1800.0, 2600.0), 3300.0))
    mix = 0.5 + 0.5 * np.tanh(1.5 * slow_noise(rng, n, rate))
    return mix * vowel_a + (1.0 - mix) * vowel_b


def laughter(rng: np.random.Generator, n: int) -> Wave:
    """Laughter: breathy bursts three to six a second, falling in loudness and pitch over a bout."""
    source = np.zeros(n)
    f0_mean = float(np.exp(rng.uniform(np.log(260.0), np.log(560.0))))
    tilt = float(rng.uniform(0.7, 1.5))
    now = rng.uniform(0.0, 0.3)
    while now < n / SAMPLE_RATE - 0.3:
        rate, notes = rng.uniform(2.6, 6.0), int(rng.integers(3, 9))
        for k in range(notes):
            start, size = int(now * SAMPLE_RATE), int(rng.uniform(0.45, 0.7) / rate * SAMPLE_RATE)
            if start + size >= n:
                break
            u = np.linspace(0.0, 1.0, size)
            glide = rng.normal(-1.0, 2.5) * u - 0.5 * k + 2.0
            tone = harmonics(f0_mean * 2.0 ** (glide / 12.0), tilt)
            tone = tone / np.sqrt(np.mean(tone**2)) + rng.uniform(0.15, 0.6) * rng.standard_normal(size)
            source[start : start + size] += np.sin(np.pi * u) ** 0.7 * 0.9**k * tone
            now += 1.0 / rate
        now += rng.uniform(0.2, 0.7)
    return formants(source, float(np.exp(rng.normal(-0.05, 0.12))))


def fan(rng: np.random.Generator, n: int) -> Wave:
    """A fan: low-weighted noise, a blade tone, slow swell."""
    swell = 1.0 + 0.15 * slow_noise(rng, n, 1.0)
    tone = _partials(rng, n, rng.uniform(70.0, 180.0), 6, 0.003)
    return swell * (coloured(rng, n, 40.0, BAND_HZ, rng.uniform(0.4, 0.9)) + rng.uniform(0.1, 0.8) * tone)


def door(rng: np.random.Generator, n: int) -> Wave:
    """Doors and dropped things: a few thumps, sometimes with a creak."""
    out = np.zeros(n)
    for _ in range(int(rng.integers(1, 5))):
        start = int(rng.uniform(0.0, 0.9) * n)
        t = np.arange(n - start) / SAMPLE_RATE
        body = coloured(rng, n - start, 50.0, rng.uniform(600.0, 3500.0), 0.6)
        out[start:] += rng.uniform(0.4, 1.5) * np.exp(-t / rng.uniform(0.02, 0.15)) * body
    if rng.random() < 0.5:
        size = int(rng.uniform(0.3, 0.9) * SAMPLE_RATE)
        start = int(rng.uniform(0.0, max(1, n - size)))
        size = min(size, n - start)
        u = np.linspace(0.0, 1.0, size)
        f0 = rng.uniform(180.0, 480.0) * 2.0 ** (rng.normal(0.0, 5.0) * u / 12.0)
        out[start : start + size] += rng.uniform(0.2, 0.6) * np.sin(np.pi * u) * harmonics(f0, 0.5)
    return out


def alarm(rng: np.random.Generator, n: int) -> Wave:
    """A monitor's alarm: steady tones, on and off, sometimes sweeping."""
    t = np.arange(n) / SAMPLE_RATE
    period, duty = rng.uniform(0.25, 0.9), rng.uniform(0.4, 0.8)
    gate = (
        np.clip(np.sin(2.0 * np.pi * t / period + rng.uniform(0.0, 6.3)) + np.cos(np.pi * duty), 0.0, 0.15)
        / 0.15
    )
    base = rng.uniform(400.0, 1600.0)
    sweep = rng.normal(0.0, 0.15) if rng.random() < 0.4 else 0.0
    f0 = base * (1.0 + sweep * ((t / period) % 1.0 - 0.5))
    return gate * harmonics(f0, float(rng.uniform(1.0, 3.0)))


def silence(rng: np.random.Generator, n: int) -> Wave:
    """Nothing but the room; a faint rustle so that it is not digital zero."""
    return 0.02 * coloured(rng, n, 100.0, 2000.0, 0.5)


def crowd(rng: np.random.Generator, n: int) -> Wave:
    """Several people talking at once."""
    return sum((talk(rng, n) for _ in range(4)), np.zeros(n))


def music(rng: np.random.Generator, n: int) -> Wave:
    """Chords that change a few times."""
    out, start = np.zeros(n), 0
    while start < n:
        size = min(n - start, int(rng.uniform(0.25, 0.8) * SAMPLE_RATE))
        t = np.arange(size) / SAMPLE_RATE
        root = 110.0 * 2.0 ** (rng.integers(0, 25) / 12.0)
        for step in (0, int(rng.integers(3, 5)), 7):
            f0 = np.full(size, root * 2.0 ** (step / 12.0))
            out[start : start + size] += np.minimum(1.0, t / 0.01) * np.exp(-t / 0.5) * harmonics(f0, 1.8)
        start += size
    return out


def rain(rng: np.random.Generator, n: int) -> Wave:
    """Steady high noise with drops."""
    return coloured(rng, n, 400.0, BAND_HZ, 0.0) + 0.8 * _ticks(rng, n, rng.uniform(20.0, 120.0), 0.004)


def wind(rng: np.random.Generator, n: int) -> Wave:
    """Gusts of low noise."""
    return np.exp(0.9 * slow_noise(rng, n, 1.5)) * coloured(rng, n, 40.0, 900.0, 1.0)


def traffic(rng: np.random.Generator, n: int) -> Wave:
    """Rumble with passing engines."""
    engine = _partials(rng, n, rng.uniform(35.0, 90.0), 12, 0.03)
    return coloured(rng, n, 30.0, 1500.0, 1.1) + np.exp(0.6 * slow_noise(rng, n, 0.7)) * 0.5 * engine


def vacuum(rng: np.random.Generator, n: int) -> Wave:
    """A vacuum cleaner: motor whine in broad noise."""
    whine = _partials(rng, n, rng.uniform(250.0, 500.0), 7, 0.004)
    return coloured(rng, n, 150.0, BAND_HZ, 0.3) + rng.uniform(0.3, 0.9) * whine


def clicks(rng: np.random.Generator, n: int) -> Wave:
    """Keys and clatter."""
    return _ticks(rng, n, rng.uniform(4.0, 12.0), 0.006) + 0.02 * rng.standard_normal(n)


def water(rng: np.random.Generator, n: int) -> Wave:
    """Running water: bubbles, each a short rising tone, in light noise."""
    out = 0.15 * coloured(rng, n, 300.0, BAND_HZ, 0.2)
    for _ in range(int(n / SAMPLE_RATE * rng.uniform(20.0, 50.0))):
        size = int(rng.uniform(0.01, 0.05) * SAMPLE_RATE)
        start = int(rng.uniform(0.0, n - size))
        t = np.arange(size) / SAMPLE_RATE
        hz = rng.uniform(500.0, 2200.0)
        tone = np.sin(2.0 * np.pi * (hz * t + 0.5 * hz * rng.uniform(0.0, 12.0) * t**2))
        out[start : start + size] += rng.uniform(0.2, 1.0) * tone * np.exp(-t / 0.012)
    return out


def hum(rng: np.random.Generator, n: int) -> Wave:
    """Mains hum and a transformer."""
    base = 50.0 if rng.random() < 0.5 else 60.0
    return _partials(rng, n, base, 14, 0.0005) + 0.1 * coloured(rng, n, 50.0, BAND_HZ, 0.5)


MAKERS: dict[str, Maker] = {
    "alarm": alarm, "babble": babble, "clicks": clicks, "crowd": crowd, "door": door, "fan": fan, "hum": hum,
    "laughter": laughter, "music": music, "rain": rain, "silence": silence, "traffic": traffic, "vacuum": vacuum,
    "water": water, "wind": wind,
}  # fmt: skip
