"""What listening has to say. Times are seconds since the stream began; `at` is when it could be said.

| event | phases | |
|---|---|---|
| `level` | | ten times a second: RMS and peak in dB re full scale |
| `frame` | | every half second: whether the frame was worth scoring, and what the last seconds sound like |
| `bout` | begin, end | crying, with its reasons |
| `abstain` | begin, end | passes the gate, but is unlike the cries of training: neither yes nor a reason should be relied on |
| `gap` | begin, end | samples were lost, so nothing is known about that time |
| `quality` | begin, end | the recording itself is in doubt: clipping, digital silence, a score that is not finite |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

Phase = Literal["begin", "end"]
Kind = Literal["bout", "abstain"]
_PLACES = {"at": 3, "begin": 3, "end": 3, "seconds": 3, "rms_dbfs": 1, "peak_dbfs": 1}


@dataclass(frozen=True)
class Event:
    """Base of all; `at` in seconds of stream time."""

    NAME: ClassVar[str] = ""

    at: float

    @property
    def name(self) -> str:
        """What the event is called."""
        return self.NAME

    def to_dict(self) -> dict[str, Any]:
        """JSON types, `event` first; what is None is left out."""
        out: dict[str, Any] = {"event": self.name}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Mapping):
                value = {k: _plain(v, 4) for k, v in value.items()}
            if value is not None and f.name != "kind":
                out[f.name] = _plain(value, _PLACES.get(f.name, 4))
        return out


def _plain(value: Any, places: int) -> Any:
    if not isinstance(value, float):
        return value
    return round(value, places) if math.isfinite(value) else None


@dataclass(frozen=True)
class Level(Event):
    """RMS and peak of a tenth of a second."""

    NAME: ClassVar[str] = "level"

    rms_dbfs: float
    peak_dbfs: float


@dataclass(frozen=True)
class Frame(Event):
    """One second, and the decision over the last seconds that hold sound.

    `decision` is `cry`, `no cry` or `abstain`; None where the frame holds nothing worth scoring. `confidence` is the calibrated
    p(cry) over the smoothing time, `own` that of this frame alone.
    """

    NAME: ClassVar[str] = "frame"

    begin: float
    end: float
    rms_dbfs: float
    active: float
    clipped: float
    why: str
    decision: str | None = None
    confidence: float | None = None
    own: float | None = None
    energy: float | None = None
    reasons: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Bout(Event):
    """Crying (`bout`), or what sounds like it but should not be relied on (`abstain`).

    At its begin, scores are those of the last seconds; at its end, of all its frames: as if the bout were one clip.
    `end`, `seconds` and `ended_by` (`pause`, `gap`, `other decision`, `end of stream`) come with the end.
    """

    kind: Kind
    phase: Phase
    begin: float
    confidence: float
    energy: float
    frames: int
    why: str
    reason: str | None = None
    reasons: Mapping[str, float] = field(default_factory=dict)
    end: float | None = None
    seconds: float | None = None
    ended_by: str | None = None

    @property
    def name(self) -> str:
        """`bout` or `abstain`."""
        return self.kind


@dataclass(frozen=True)
class Gap(Event):
    """Samples lost from `begin` on; the end says until when and how much."""

    NAME: ClassVar[str] = "gap"

    phase: Phase
    why: str
    begin: float
    end: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Quality(Event):
    """The recording itself is in doubt: `problem` is `clipping`, `silence` or `score`."""

    NAME: ClassVar[str] = "quality"

    phase: Phase
    problem: Literal["clipping", "silence", "score"]
    why: str
