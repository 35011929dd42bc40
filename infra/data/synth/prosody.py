"""Who cries, and how: infants as random effects, and the melody that each reason gives to a burst of crying.

A reason shows only in what happens *within* a burst (150 to 600 ms): how the pitch moves, how the burst starts and ends,
whether it trembles or breaks. Pitch level, vocal tract, tempo, loudness, tilt and breathiness belong to the infant and the clip
and say nothing about the reason, and several melodies are one another's mirror images in time, so that averages over a clip
do not tell them apart. Bursts are short enough that every second of crying holds at least one whole melody.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from infra.data.synth.config import REASONS


@dataclass(frozen=True)
class Melody:
    """The shape of a burst. Pitch excursions are in semitones about the burst's mean, so shape and level stay apart."""

    slope: float  # end minus start
    curvature: float  # height of the arch above its ends; negative dips
    tremor_depth: float  # amplitude of the vibrato
    tremor_rate: float  # Hz
    attack: float  # share of the burst until full loudness
    decay: float  # share of the burst from full loudness to silence
    breaks: float  # depth of the voice breaks, 0 to 1


# The melodies. Rise and fall are mirror images in time, so are arch and dip in pitch; tremor and breaks stand alone.
PROTOTYPES: dict[str, Melody] = {
    "hungry": Melody(0.0, 5.2, 0.0, 7.0, 0.22, 0.22, 0.0),
    "tired": Melody(-6.4, 0.0, 0.0, 7.0, 0.10, 0.40, 0.0),
    "discomfort": Melody(6.4, 0.0, 0.0, 7.0, 0.40, 0.10, 0.0),
    "belly_pain": Melody(0.0, 0.0, 1.2, 8.0, 0.22, 0.22, 0.0),
    "burping": Melody(0.0, -4.8, 0.0, 7.0, 0.22, 0.22, 0.55),
}

# Standard deviations at difficulty 1, as they add up: between infants, between clips of one infant, between bursts of a clip.
_INFANT = Melody(1.30, 1.00, 0.22, 0.8, 0.06, 0.06, 0.10)
_CLIP = Melody(1.00, 0.80, 0.20, 0.6, 0.06, 0.06, 0.10)
_BURST = Melody(1.20, 0.90, 0.32, 0.6, 0.06, 0.06, 0.15)
_LOW = Melody(-14.0, -9.0, 0.0, 5.0, 0.04, 0.04, 0.0)
_HIGH = Melody(14.0, 9.0, 3.0, 12.0, 0.55, 0.55, 0.9)
# The public pool spans the space of melodies evenly and has no reasons in it.
_POOL_LOW = Melody(-8.0, -6.5, 0.0, 5.5, 0.06, 0.06, 0.0)
_POOL_HIGH = Melody(8.0, 6.5, 2.0, 10.5, 0.45, 0.45, 0.7)

MELODY_FIELDS = tuple(f.name for f in fields(Melody))


def _vector(m: Melody) -> npt.NDArray[np.float64]:
    return np.array([getattr(m, name) for name in MELODY_FIELDS], dtype=np.float64)


def _melody(values: npt.NDArray[np.float64]) -> Melody:
    clipped = np.clip(values, _vector(_LOW), _vector(_HIGH))
    return Melody(*(float(v) for v in clipped))


@dataclass(frozen=True)
class Infant:
    """Random effects of one infant: none of them depends on a reason."""

    f0: float  # Hz, mean pitch
    tract: float  # scale of the formant frequencies
    tilt: float  # exponent of the harmonic amplitudes
    burst: float  # s, mean burst duration
    gap: float  # s, mean pause between bursts
    breath: float  # aspiration relative to the voice
    shimmer: float  # depth of slow random loudness changes
    jitter: float  # semitones of slow random pitch changes
    dialect: npt.NDArray[np.float64]  # offset of this infant's melodies


def draw_infant(rng: np.random.Generator, difficulty: float) -> Infant:
    """One infant."""
    return Infant(
        f0=float(425.0 * np.exp(rng.normal(0.0, 0.17))),
        tract=float(np.exp(rng.normal(0.0, 0.10))),
        tilt=float(rng.uniform(0.5, 1.5)),
        burst=float(0.40 * np.exp(rng.normal(0.0, 0.16))),
        gap=float(0.14 * np.exp(rng.normal(0.0, 0.25))),
        breath=float(np.exp(rng.normal(np.log(0.14), 0.6))),
        shimmer=float(rng.uniform(0.1, 0.45)),
        jitter=float(rng.uniform(0.10, 0.55)),
        dialect=difficulty * rng.normal(0.0, 1.0, len(MELODY_FIELDS)) * _vector(_INFANT),
    )


@dataclass(frozen=True)
class Burst:
    """One burst of crying, ready to render."""

    start: float  # s
    duration: float  # s
    f0: float  # Hz, geometric mean over the burst
    level: float  # linear amplitude
    melody: Melody


@dataclass(frozen=True)
class CryPlan:
    """A clip of crying before any sound is made."""

    infant: Infant
    bursts: tuple[Burst, ...]
    breath: float
    tilt: float
    inhale: float  # loudness of the breaths between bursts


def plan_cry(
    rng: np.random.Generator, infant: Infant, reason: str | None, seconds: float, difficulty: float
) -> CryPlan:
    """Draw the bursts of a clip; `reason` None draws a melody from the whole space (the public pool)."""
    if reason is None:
        low, high = _vector(_POOL_LOW), _vector(_POOL_HIGH)
        centre = rng.uniform(low, high)
        # half of the pool without tremor, half without breaks: real voices mostly have neither
        keep = rng.random(2) < 0.5
        centre[MELODY_FIELDS.index("tremor_depth")] *= keep[0]
        centre[MELODY_FIELDS.index("breaks")] *= keep[1]
    else:
        centre = _vector(PROTOTYPES[reason])
    centre = centre + infant.dialect + difficulty * rng.normal(0.0, 1.0, len(centre)) * _vector(_CLIP)
    clip_f0 = infant.f0 * np.exp(rng.normal(0.0, 0.07))
    tempo = np.exp(rng.normal(0.0, 0.10))
    spread = _vector(_BURST) * difficulty
    bursts: list[Burst] = []
    now = float(rng.uniform(0.05, 0.30))
    while True:
        duration = float(np.clip(infant.burst * tempo * np.exp(rng.normal(0.0, 0.12)), 0.24, 0.58))
        if now + duration > seconds - 0.05:
            break
        f0 = float(np.clip(clip_f0 * np.exp(rng.normal(0.0, 0.04)), 260.0, 720.0))
        level = float(np.exp(rng.normal(0.0, 0.22)))
        melody = _melody(centre + rng.normal(0.0, 1.0, len(centre)) * spread)
        bursts.append(Burst(now, duration, f0, level, melody))
        now += duration + float(np.clip(infant.gap * tempo * np.exp(rng.normal(0.0, 0.25)), 0.06, 0.24))
    return CryPlan(
        infant=infant,
        bursts=tuple(bursts),
        breath=float(infant.breath * np.exp(rng.normal(0.0, 0.35))),
        tilt=float(infant.tilt + rng.normal(0.0, 0.15)),
        inhale=float(rng.uniform(0.0, 0.10)),
    )


def attributes(plan: CryPlan) -> dict[str, float]:
    """The truth about a planned clip: means over its bursts, in the units of `Melody` and `Burst`."""
    mean = {name: float(np.mean([getattr(b.melody, name) for b in plan.bursts])) for name in MELODY_FIELDS}
    starts = [b.start for b in plan.bursts]
    rate = (len(starts) - 1) / (starts[-1] - starts[0]) if len(starts) > 1 else 0.0
    return {
        "log2_f0": float(np.mean([np.log2(b.f0) for b in plan.bursts])),
        **mean,
        "burst_seconds": float(np.mean([b.duration for b in plan.bursts])),
        "burst_rate": rate,
        "noise_fraction": plan.breath / (1.0 + plan.breath),
        "tilt": plan.tilt,
        "tract": plan.infant.tract,
    }


ATTRIBUTES = (
    "log2_f0", *MELODY_FIELDS, "burst_seconds", "burst_rate", "noise_fraction", "tilt", "tract",
)  # fmt: skip
assert set(PROTOTYPES) == set(REASONS)
