"""From the source to the file: a site's room, microphone and noise floor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from infra.data.synth.config import BAND_HZ, SAMPLE_RATE
from infra.data.synth.noises import coloured
from infra.data.synth.voice import Wave


@dataclass(frozen=True)
class Site:
    """Random effects of one site."""

    room: Wave  # tail of the impulse response, unit energy
    wetness: float  # room relative to the direct sound
    slope_db: float  # microphone: tilt from 200 Hz to 4 kHz
    peak_hz: float  # and one broad resonance
    peak_db: float
    cut_hz: float  # and its upper edge
    snr_db: float  # typical level of the voice above the noise floor
    noise_exponent: float
    hum_hz: float
    hum: float


def draw_site(rng: np.random.Generator) -> Site:
    """One site."""
    rt60 = rng.uniform(0.12, 0.40)
    n = int(0.3 * SAMPLE_RATE)
    t = np.arange(n) / SAMPLE_RATE
    tail = rng.standard_normal(n) * 10.0 ** (-3.0 * t / rt60)
    tail[: int(0.004 * SAMPLE_RATE)] = 0.0  # the direct sound comes first and alone
    return Site(
        room=tail / np.sqrt(np.sum(tail**2)),
        wetness=float(rng.uniform(0.10, 0.45)),
        slope_db=float(rng.uniform(-9.0, 6.0)),
        peak_hz=float(rng.uniform(600.0, 3000.0)),
        peak_db=float(rng.uniform(-6.0, 6.0)),
        cut_hz=float(rng.uniform(3300.0, 3900.0)),
        snr_db=float(rng.uniform(16.0, 30.0)),
        noise_exponent=float(rng.uniform(0.2, 0.9)),
        hum_hz=float(rng.choice([50.0, 60.0])),
        hum=float(rng.uniform(0.0, 0.6)),
    )


def _microphone(site: Site, f: Wave) -> Wave:
    """Magnitude response over the frequencies `f`; linear phase, as phase is of no use to a log-mel."""
    octaves = np.log2(np.maximum(f, 50.0) / 900.0)
    db = site.slope_db * octaves / 4.3 + site.peak_db * np.exp(
        -0.5 * (np.log2(np.maximum(f, 50.0) / site.peak_hz) / 0.5) ** 2
    )
    edge = np.clip((min(site.cut_hz + 100.0, BAND_HZ) - f) / 100.0, 0.0, 1.0)
    return 10.0 ** (db / 20.0) * edge * np.clip(f / 60.0, 0.0, 1.0)


def record(dry: Wave, site: Site, rng: np.random.Generator) -> Wave:
    """What the site's phone writes down, (T,), peak at most 0.97.

    The recording level is drawn here, for every kind of sound alike, so that loudness tells nothing.
    """
    n = len(dry)
    size = 1 << (n + len(site.room) - 1).bit_length()
    f = np.asarray(np.fft.rfftfreq(size, 1.0 / SAMPLE_RATE), np.float64)
    wet = site.wetness * np.exp(rng.normal(0.0, 0.25))
    response = (1.0 + wet * np.fft.rfft(site.room, size)) * _microphone(site, f)
    voice = np.fft.irfft(np.fft.rfft(dry, size) * response, size)[:n]
    loud = np.sqrt(np.mean(voice**2))
    if loud > 0.01:  # a silent clip keeps its silence: the floor alone remains
        voice /= loud
    floor = coloured(rng, n, 40.0, site.cut_hz, site.noise_exponent)
    t = np.arange(n) / SAMPLE_RATE
    floor += site.hum * np.sin(2.0 * np.pi * site.hum_hz * t + rng.uniform(0.0, 6.3))
    snr_db = site.snr_db + rng.normal(0.0, 3.0)
    out = voice + 10.0 ** (-snr_db / 20.0) * floor
    level = 10.0 ** (rng.uniform(-32.0, -14.0) / 20.0)
    if loud <= 0.01:
        level *= 0.2
        out = out * 10.0 ** (snr_db / 20.0)
    out = out * level
    peak = float(np.max(np.abs(out)))
    if peak > 0.97:
        out *= 0.97 / peak
    return out
