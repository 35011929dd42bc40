"""What is going on now, kept up to date from the events: for whoever comes late, or looks once."""

from __future__ import annotations

from collections import deque
from typing import Any, Literal

Json = dict[str, Any]
Word = Literal["starting", "quiet", "sound", "cry", "abstain", "no signal", "ended", "failed"]

RECENT = 40
_SPOKEN = ("bout", "abstain", "gap", "quality")


class State:
    """A reducer over the JSON events of one or several streams; its size is bounded."""

    def __init__(self) -> None:
        self._begin({})

    def _begin(self, stream: Json) -> None:
        """Forget the stream before."""
        self._stream = stream
        self._end: Json | None = None
        self._level: Json | None = None
        self._frame: Json | None = None
        self._open: dict[str, Json] = {}
        self._recent: deque[Json] = deque(maxlen=RECENT)

    def apply(self, row: Json) -> None:
        """Take in one event, as `infra.edge.listen.run.listen` gives them."""
        event, phase = row["event"], row.get("phase")
        if event == "stream":
            if phase == "begin":
                self._begin(row)
            else:
                self._end = row
        elif event == "level":
            self._level = row
        elif event == "frame":
            self._frame = row
        elif event in _SPOKEN:
            key = f"quality:{row['problem']}" if event == "quality" else event
            if phase == "begin":
                self._open[key] = row
                if event == "gap":  # what was heard before it is no news after it
                    self._level = self._frame = None
            else:
                self._open.pop(key, None)
                self._recent.append(row)

    @property
    def word(self) -> Word:
        """The one thing to show. No signal beats everything that was heard before it."""
        if self._end is not None:
            return "failed" if self._end.get("error") else "ended"
        if "gap" in self._open:
            return "no signal"
        if "bout" in self._open:
            return "cry"
        if "abstain" in self._open:
            return "abstain"
        if self._frame is None:
            return "starting"
        return "sound" if self._frame.get("decision") else "quiet"

    def snapshot(self) -> Json:
        """Everything, as JSON types; the events in it are those that were given."""
        return {
            "event": "state",
            "word": self.word,
            "stream": self._stream,
            "end": self._end,
            "level": self._level,
            "frame": self._frame,
            "open": dict(self._open),
            "recent": list(self._recent),
        }
