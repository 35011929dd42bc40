"""Hours of a ward's sound with known bouts of crying, a block at a time.

    beds     a room that goes on: public noise, one recording after the other, their levels a slow walk, power-preserving
             crossfades
    events   what is no cry comes and goes over the bed at a drawn level
    bouts    several cries of one infant with pauses, at a drawn level over the bed

The whole timeline is planned first (a short list of sounds with their times and levels); a sound is rendered when its time
comes and forgotten when it is over. The same materials and seed give the same samples, whatever the size of the blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from infra.evidence.sound_material import Materials, Source, Wave
from models.config import SAMPLE_RATE
from models.errors import ConfigError, DataError
from models.seeds import derive_seed
from models.segmentation import activity

SLOT_S: Final = 0.5  # seconds in which the truth about the background is kept

_FADE_S = 0.05  # of a cry or an event
_BED_LOOP_S = 0.5  # overlap of a bed's recording with itself
_STEP = SAMPLE_RATE // 100


@dataclass(frozen=True)
class SoundscapeConfig:
    """Ranges to draw from, uniformly; seconds and dB.

    Raises:
        ConfigError: a range is out of order.
    """

    hours: float = 1.0
    rest_s: tuple[float, float] = (90.0, 360.0)  # from one bout to the next
    cries: tuple[int, int] = (3, 8)  # of a bout
    pause_s: tuple[float, float] = (0.3, 2.5)  # between its cries
    snr_db: tuple[float, float] = (0.0, 20.0)  # of the cries over the bed
    synthetic_share: float = 0.5  # of the bouts, where there are infants of both origins
    event_every_s: tuple[float, float] = (10.0, 60.0)
    event_snr_db: tuple[float, float] = (-5.0, 20.0)
    bed_s: tuple[float, float] = (30.0, 90.0)
    bed_dbfs: tuple[float, float] = (-55.0, -35.0)
    bed_walk_db: float = 4.0  # standard deviation from one bed to the next
    crossfade_s: float = 3.0
    block_s: float = 10.0

    def __post_init__(self) -> None:
        """Refuse what is no range."""
        for name, value in asdict(self).items():
            low, high = value if isinstance(value, tuple) else (value, value)
            if not -100.0 <= low <= high <= 10_000.0:
                raise ConfigError(f"soundscape: {name}={value} is no range: give the lower end first")
        if not 0.0 < self.hours <= 1000.0 or not 0.0 <= self.synthetic_share <= 1.0 or self.cries[0] < 1:
            raise ConfigError(
                "soundscape: hours must lie in (0, 1000], synthetic_share in [0, 1], cries be 1 or more"
            )
        if min(self.rest_s[0], self.event_every_s[0]) < 1.0 or self.pause_s[0] < 0.0:
            raise ConfigError(
                "soundscape: bouts and events need a second or more between them, pauses 0 or more"
            )
        if self.bed_s[0] <= 2 * self.crossfade_s or self.block_s <= 0 or self.crossfade_s <= 0:
            raise ConfigError(
                "soundscape: a bed must last longer than its two crossfades, and blocks some time"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


@dataclass(frozen=True)
class TrueBout:
    """One bout of crying, from its first cry's first sample to its last cry's last; seconds and dB."""

    begin: float
    end: float
    group: str
    origin: str
    snr_db: float


@dataclass(frozen=True)
class _Sound:
    kind: Literal["bed", "event", "cry"]
    source: Source
    begin: int  # samples
    n: int
    dbfs: float  # RMS of its active parts
    fade: int
    seed: int

    @property
    def end(self) -> int:
        return self.begin + self.n


class Soundscape:
    """One recording: `blocks` are its samples, `bouts`, `background` and `groups` the truth about it.

    Attributes:
        bouts: in order of time.
        background: (slots,) index into `groups` of what is heard beside any crying in each half second: an event, else the bed.
        groups: names of the background's groups.
        kinds: the label of each of them.

    Raises:
        DataError: there are no cries, or no bed.
    """

    def __init__(self, materials: Materials, cfg: SoundscapeConfig, seed: int) -> None:
        if not materials.cries or not materials.beds:
            raise DataError("a soundscape needs infants and at least one sound that goes on")
        self.cfg, self.seed = cfg, seed
        self.n_samples = round(3600 * cfg.hours * SAMPLE_RATE)
        beds = self._plan_beds(materials)
        events = self._plan_events(materials, beds)
        cries, self.bouts = self._plan_bouts(materials, beds)
        self._sounds = sorted((*beds, *events, *cries), key=lambda s: s.begin)
        self.groups, self.background = self._truth(beds, events)
        labels = {s.source.group: s.source.label for s in (*beds, *events)}
        self.kinds = tuple(labels[g] for g in self.groups)

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.n_samples / SAMPLE_RATE

    def blocks(self) -> Iterator[Wave]:
        """16 kHz mono float32 in [-1, 1], `block_s` at a time; the last may be shorter."""
        size = round(self.cfg.block_s * SAMPLE_RATE)
        rendered: dict[int, Wave] = {}
        first = 0  # everything before it is over
        for begin in range(0, self.n_samples, size):
            end = min(begin + size, self.n_samples)
            block = np.zeros(end - begin, np.float32)
            while first < len(self._sounds) and self._sounds[first].end <= begin:
                first += 1
            for i in range(first, len(self._sounds)):
                sound = self._sounds[i]
                if sound.begin >= end:
                    break
                if sound.end <= begin:
                    rendered.pop(i, None)
                    continue
                if i not in rendered:
                    rendered[i] = _render(sound)
                a, b = max(begin, sound.begin), min(end, sound.end)
                block[a - begin : b - begin] += rendered[i][a - sound.begin : b - sound.begin]
            for i in [i for i in rendered if self._sounds[i].end <= end]:
                del rendered[i]
            yield np.clip(block, -1.0, 1.0)

    def _rng(self, *what: object) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(derive_seed("soundscape", self.seed, *what)))

    def _plan_beds(self, materials: Materials) -> list[_Sound]:
        cfg, rng = self.cfg, self._rng("beds")
        fade = round(cfg.crossfade_s * SAMPLE_RATE)
        level = rng.uniform(*cfg.bed_dbfs)
        out: list[_Sound] = []
        at = -fade  # the first bed has faded in when the recording begins
        while at < self.n_samples:
            n = round(rng.uniform(*cfg.bed_s) * SAMPLE_RATE)
            source = materials.beds[rng.integers(len(materials.beds))]
            out.append(_Sound("bed", source, at, n, float(level), fade, int(rng.integers(2**62))))
            level = np.clip(level + rng.normal(0.0, cfg.bed_walk_db), *cfg.bed_dbfs)
            at += n - fade
        return out

    def _plan_events(self, materials: Materials, beds: list[_Sound]) -> list[_Sound]:
        cfg, rng = self.cfg, self._rng("events")
        out: list[_Sound] = []
        at = rng.uniform(*cfg.event_every_s)
        while materials.events and at < self.seconds:
            source = materials.events[rng.integers(len(materials.events))]
            level = _level_at(beds, at) + rng.uniform(*cfg.event_snr_db)
            out.append(_short("event", source, at, level))
            at += source.seconds + rng.uniform(*cfg.event_every_s)
        return out

    def _plan_bouts(
        self, materials: Materials, beds: list[_Sound]
    ) -> tuple[list[_Sound], tuple[TrueBout, ...]]:
        cfg, rng = self.cfg, self._rng("bouts")
        by_origin = {
            origin: sorted(g for g, c in materials.cries.items() if c[0].origin == origin)
            for origin in ("real", "synthetic")
        }
        sounds: list[_Sound] = []
        bouts: list[TrueBout] = []
        at = rng.uniform(*cfg.rest_s)
        while at < self.seconds:
            origin = "synthetic" if rng.random() < cfg.synthetic_share else "real"
            infants = by_origin[origin] or by_origin["real" if origin == "synthetic" else "synthetic"]
            clips = materials.cries[infants[rng.integers(len(infants))]]
            snr = float(rng.uniform(*cfg.snr_db))
            level = _level_at(beds, at) + snr
            cries: list[_Sound] = []
            now = at
            order: list[int] = []  # every clip of the infant once before any comes again
            for _ in range(int(rng.integers(cfg.cries[0], cfg.cries[1] + 1))):
                order = order or rng.permutation(len(clips)).tolist()
                cry = _short("cry", clips[order.pop()], now, level + rng.normal(0.0, 1.5))
                cries.append(cry)
                now = cry.end / SAMPLE_RATE + rng.uniform(*cfg.pause_s)
            begin, end = cries[0].begin / SAMPLE_RATE, cries[-1].end / SAMPLE_RATE
            if end > self.seconds:
                break
            sounds += cries
            bouts.append(TrueBout(begin, end, clips[0].group, clips[0].origin, snr))
            at = end + rng.uniform(*cfg.rest_s)
        return sounds, tuple(bouts)

    def _truth(
        self, beds: list[_Sound], events: list[_Sound]
    ) -> tuple[tuple[str, ...], npt.NDArray[np.int32]]:
        groups = tuple(sorted({s.source.group for s in (*beds, *events)}))
        index = {g: k for k, g in enumerate(groups)}
        slot = round(SLOT_S * SAMPLE_RATE)
        heard = np.zeros(-(-self.n_samples // slot), np.int32)
        for sound in (*beds, *events):  # a later bed takes over from the middle of the crossfade
            shift = sound.fade // 2 if sound.kind == "bed" else 0
            heard[max(0, sound.begin + shift) // slot : -(-(sound.end - shift) // slot)] = index[
                sound.source.group
            ]
        return groups, heard


def _short(kind: Literal["event", "cry"], source: Source, at: float, dbfs: float) -> _Sound:
    n = round(source.seconds * SAMPLE_RATE)
    return _Sound(kind, source, round(at * SAMPLE_RATE), n, float(dbfs), round(_FADE_S * SAMPLE_RATE), 0)


def _level_at(beds: list[_Sound], seconds: float) -> float:
    """Of the bed, in dB re full scale; in a crossfade that of the louder one."""
    at = seconds * SAMPLE_RATE
    return max(b.dbfs for b in beds if b.begin <= at < b.end)


def _render(sound: _Sound) -> Wave:
    wave = sound.source.load().astype(np.float64)
    if sound.kind == "bed":
        wave = _prolong(wave, sound.n, np.random.Generator(np.random.PCG64(sound.seed)))
        loud = np.sqrt(np.mean(wave**2))
    else:
        active = np.repeat(activity(wave.astype(np.float32)), _STEP)[: len(wave)]
        loud = np.sqrt(np.mean(np.square(wave[active] if active.any() else wave)))
    fade = min(sound.fade, sound.n // 2)
    # sine and cosine: the powers of two crossfaded sounds sum to one
    rise = np.sin(0.5 * np.pi * (np.arange(fade) + 0.5) / fade)
    wave[:fade] *= rise
    wave[sound.n - fade :] *= rise[::-1]
    return (wave * (10.0 ** (sound.dbfs / 20.0) / max(float(loud), 1e-9))).astype(np.float32)


def _prolong(wave: npt.NDArray[np.float64], n: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """A recording over and over, from a drawn start, each time crossfaded into itself: (n,)."""
    overlap = min(round(_BED_LOOP_S * SAMPLE_RATE), len(wave) // 3)
    rise = np.sin(0.5 * np.pi * (np.arange(overlap) + 0.5) / overlap)
    once = wave.copy()
    once[:overlap] *= rise
    once[len(once) - overlap :] *= rise[::-1]
    hop = len(wave) - overlap
    out = np.zeros(n + 2 * len(wave))
    for at in range(0, n + len(wave), hop):
        piece = out[at : at + len(once)]
        piece += once[: len(piece)]
    start = overlap + int(rng.integers(hop))
    return out[start : start + n]
