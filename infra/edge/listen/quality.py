"""Doubts about the recording itself: too loud for its converter, a dead microphone, scores that are not finite."""

from __future__ import annotations

from collections import deque
from typing import Literal

import numpy as np
import numpy.typing as npt

from infra.edge.listen.config import ListenConfig
from infra.edge.listen.events import Event, Level, Quality
from infra.edge.listen.framer import dbfs
from models.config import SAMPLE_RATE

BLOCK = SAMPLE_RATE // 10

_Problem = Literal["clipping", "silence", "score"]


class Meter:
    """A level every tenth of a second of sound, and the problems that begin or end with it."""

    def __init__(self, cfg: ListenConfig) -> None:
        self._limit = cfg.clipped_share
        length = round(cfg.quality_s * 10)
        self._shares: deque[float] = deque(maxlen=length)
        self._peaks: deque[float] = deque(maxlen=length)
        self._wave = np.zeros(BLOCK, np.float32)
        self._clipped = np.zeros(BLOCK, np.bool_)
        self._filled = 0
        self._open: set[_Problem] = set()

    def feed(self, wave: npt.NDArray[np.float32], clipped: npt.NDArray[np.bool_], now: int) -> list[Event]:
        """16 kHz mono (n,) that ends at sample `now` of the stream, and where it was clipped (n,)."""
        events: list[Event] = []
        at = 0
        while at < len(wave):
            n = min(BLOCK - self._filled, len(wave) - at)
            self._wave[self._filled : self._filled + n] = wave[at : at + n]
            self._clipped[self._filled : self._filled + n] = clipped[at : at + n]
            self._filled += n
            at += n
            if self._filled == BLOCK:
                self._filled = 0
                events += self._block((now - len(wave) + at) / SAMPLE_RATE)
        return events

    @property
    def room(self) -> int:
        """Samples until the next level."""
        return BLOCK - self._filled

    def finish(self, at: float) -> list[Event]:
        """The stream ends: so do its problems."""
        ended = [Quality(at, "end", problem, "the stream ended") for problem in sorted(self._open)]
        self._open.clear()
        return list(ended)

    def skip(self) -> None:
        """Samples were lost: a level is of consecutive samples only."""
        self._filled = 0

    def score(self, at: float, *, finite: bool) -> list[Event]:
        """Whether the model could give a frame a score."""
        return self._switch(
            "score", at, not finite, finite, "the model gives no finite score for what it hears"
        )

    def _block(self, at: float) -> list[Event]:
        peak = float(np.abs(self._wave).max())
        self._peaks.append(peak)
        self._shares.append(float(self._clipped.mean()))
        share = sum(self._shares) / len(self._shares)
        full = len(self._peaks) == self._peaks.maxlen
        return [
            Level(at, dbfs(float(np.mean(np.square(self._wave, dtype=np.float64)))), dbfs(peak * peak)),
            *self._switch(
                "clipping", at, full and share > self._limit, share <= self._limit / 4,
                f"{share:.1%} of the last samples are clipped: lower the recording level",
            ),
            *self._switch(
                "silence", at, full and max(self._peaks) == 0.0, peak > 0.0,
                "nothing but zeros: is the microphone muted or unplugged?",
            ),
        ]  # fmt: skip

    def _switch(self, problem: _Problem, at: float, on: bool, off: bool, why: str) -> list[Event]:
        if on and problem not in self._open:
            self._open.add(problem)
            return [Quality(at, "begin", problem, why)]
        if off and problem in self._open:
            self._open.remove(problem)
            return [Quality(at, "end", problem, "over")]
        return []
