"""What long recordings are made of: sources of sound, each with the group that it stands or falls with.

Real sources are clips of one held-out fold, dealt by group into two halves: one to tune alarms on, one to report them on. A
phone's cries and its rejected uploads go to the same half. Synthetic infants are drawn anew for each half and are no infant
of any corpus. Sources are read when they are heard, not before: hours of sound need no more memory than a few seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from infra.data.audio import ClipLimits, ReadLimits, read_audio
from infra.data.synth.channel import draw_site, record
from infra.data.synth.noises import MAKERS
from infra.data.synth.prosody import draw_infant, plan_cry
from infra.data.synth.voice import render_cry
from infra.evidence.folds import Folds
from models.config import SAMPLE_RATE
from models.errors import DataError
from models.seeds import derive_seed
from models.segmentation import activity

Wave = npt.NDArray[np.float32]
Half = Literal["tune", "test"]

HALVES: Final[tuple[Half, ...]] = ("tune", "test")
STEADY_BEDS: Final = ("fan", "hum", "rain", "traffic", "vacuum", "wind")
WARD_SOUNDS: Final = ("alarm", "babble", "door", "laughter", "clicks", "music")

_STEP = SAMPLE_RATE // 100
_LONGEST_S = 8.0  # of one cry or one event
_SHORTEST_S = 0.5
_STEADY = 0.8  # share of a clip near its peak: such a sound can go on for minutes


@dataclass(frozen=True)
class Source:
    """One sound. `load` gives its wave (round(seconds · 16000),), float32, the same at every call."""

    group: str
    label: str
    origin: Literal["real", "synthetic"]
    seconds: float
    load: Callable[[], Wave] = field(compare=False, repr=False)


@dataclass(frozen=True)
class Materials:
    """Infants by group, sounds that go on (beds), and sounds that come and go (events)."""

    cries: Mapping[str, tuple[Source, ...]]
    beds: tuple[Source, ...]
    events: tuple[Source, ...]

    @property
    def groups(self) -> frozenset[str]:
        """Every group that can be heard."""
        return frozenset(self.cries) | {s.group for s in (*self.beds, *self.events)}

    def __add__(self, other: Materials) -> Materials:
        """Both together.

        Raises:
            DataError: an infant is in both.
        """
        twice = sorted(set(self.cries) & set(other.cries))
        if twice:
            raise DataError(f"infant {twice[0]} is in both materials: give each its own seed")
        return Materials({**self.cries, **other.cries}, self.beds + other.beds, self.events + other.events)


def held_out(
    rows: pd.DataFrame,
    root: Path,
    folds: Folds,
    fold: int,
    half: Half,
    *,
    seed: int = 0,
    limits: ClipLimits | None = None,
) -> Materials:
    """The clips of one half of a fold's groups: nothing that the fold's network was trained on.

    Args:
        rows: as `folds.judged` gives them.
        root: the manifest's folder.
        folds: their folds.
        fold: the one that the network did not train on.
        half: which groups.
        seed: varies the halves.
        limits: bounds on what is read.

    Raises:
        AudioError: a clip cannot be used.
        DataError: the half holds no cries, or no sound that goes on.
    """
    limits = limits or ReadLimits()
    here = rows[np.asarray(folds) == fold]
    mine = here[here["group"].isin(halves_of(here, seed)[half])]
    cries: dict[str, list[Source]] = {}
    beds: list[Source] = []
    events: list[Source] = []
    for row in mine.sort_values("path").itertuples():
        path = root / str(row.path)
        wave = read_audio(path, max_seconds=limits.max_clip_seconds, max_bytes=limits.max_file_bytes)
        active = activity(wave)
        if not active.any():
            continue
        steady = row.role != "cry" and row.site == "" and active.mean() >= _STEADY
        begin, end = (0, len(wave)) if steady else _loudest_stretch(active, len(wave))
        if (end - begin) / SAMPLE_RATE < _SHORTEST_S:
            continue
        source = Source(
            group=str(row.group), label=str(row.label), origin="real", seconds=(end - begin) / SAMPLE_RATE,
            load=partial(_read, path, begin, end, limits),
        )  # fmt: skip
        if row.role == "cry":
            cries.setdefault(source.group, []).append(source)
        else:
            (beds if steady else events).append(source)
    if not cries or not beds:
        missing = "cries" if not cries else "steady public noise"
        raise DataError(
            f"the {half} half of fold {fold} holds no {missing}: use fewer folds, or a manifest with more groups"
        )
    return Materials({g: tuple(c) for g, c in cries.items()}, tuple(beds), tuple(events))


def halves_of(rows: pd.DataFrame, seed: int) -> dict[Half, frozenset[str]]:
    """A fold's groups, dealt in two: those with cries first, so that both halves get as many of them."""
    crying = set(rows["group"][rows["role"] == "cry"])
    public = set(rows["group"][rows["role"] == "noise"])
    order = sorted(
        set(rows["group"]),
        key=lambda g: (g not in crying, g not in public, derive_seed("half of a fold", seed, g)),
    )
    return {"tune": frozenset(order[0::2]), "test": frozenset(order[1::2])}


def synthetic_infants(seed: int, half: Half, infants: int = 12, clips: int = 6) -> Materials:
    """Infants drawn for this half alone; they bring no background."""
    cries = {}
    for i in range(infants):
        name = f"synthetic-{half}-{seed}-{i:02d}"
        sizes = _rng(name, "sizes").uniform(1.6, 4.5, clips)
        cries[name] = tuple(
            Source(name, "cry", "synthetic", round(s * SAMPLE_RATE) / SAMPLE_RATE, partial(_cry, name, k, s))
            for k, s in enumerate(sizes)
        )
    return Materials(cries, (), ())


def synthetic_ward(seed: int, half: Half, each: int = 3) -> Materials:
    """Backgrounds where there is no manifest: rooms and machines that go on, and a ward's sounds that come and go."""

    def of(kinds: tuple[str, ...], seconds: float) -> tuple[Source, ...]:
        return tuple(
            Source(name, kind, "synthetic", seconds, partial(_made, name, kind, seconds))
            for kind in kinds
            for k in range(each)
            for name in [f"synthetic-{kind}-{half}-{seed}-{k}"]
        )

    return Materials({}, of(STEADY_BEDS, 5.0), of(WARD_SOUNDS, 3.0))


def _rng(*parts: object) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(derive_seed("long recordings", *parts)))


def _cry(name: str, k: int, seconds: float) -> Wave:
    who = _rng(name, "infant")
    infant, site = draw_infant(who, 1.0), draw_site(who)
    rng = _rng(name, "cry", k)
    seconds = round(seconds * SAMPLE_RATE) / SAMPLE_RATE
    dry = render_cry(plan_cry(rng, infant, None, seconds, 1.0), seconds, rng)
    return record(dry, site, rng).astype(np.float32)


def _made(name: str, kind: str, seconds: float) -> Wave:
    rng = _rng(name)
    return record(MAKERS[kind](rng, round(seconds * SAMPLE_RATE)), draw_site(rng), rng).astype(np.float32)


def _loudest_stretch(active: npt.NDArray[np.bool_], n: int) -> tuple[int, int]:
    """From the first to the last activity, at most `_LONGEST_S`: where most of it lies."""
    steps = np.flatnonzero(active)
    first, last = int(steps[0]), int(steps[-1]) + 1
    longest = round(_LONGEST_S * 100)
    if last - first > longest:
        total = np.concatenate([[0], np.cumsum(active)])
        starts = np.arange(first, last - longest + 1)
        first = int(starts[np.argmax(total[starts + longest] - total[starts])])
        last = first + longest
    return first * _STEP, min(last * _STEP, n)


def _read(path: Path, begin: int, end: int, limits: ClipLimits) -> Wave:
    wave = read_audio(path, max_seconds=limits.max_clip_seconds, max_bytes=limits.max_file_bytes)
    return wave[begin:end]
