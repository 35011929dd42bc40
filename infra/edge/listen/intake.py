"""Whatever a source delivers becomes 16 kHz mono, or a gap of known length; the clock never loses a sample.

A sample that is not finite is a lost one. Lost samples are told apart from silence all the way down: no frame touches them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infra.edge.listen.resample import Resampler
from models.config import SAMPLE_RATE
from models.errors import AudioError

CLIPPED = 0.999  # of full scale
MAX_CHANNELS = 2
_LIMIT = (
    1e4  # a float file may hold any number; beyond this the squares of the network's front end would overflow
)


@dataclass(frozen=True)
class Piece:
    """Consecutive samples: wave (n,) float32 at 16 kHz, and where the source clipped (n,) bool."""

    wave: npt.NDArray[np.float32]
    clipped: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Hole:
    """Lost samples, counted at 16 kHz."""

    n: int
    why: str


class Intake:
    """Blocks of any size, rate and up to two channels → pieces and holes, in order."""

    def __init__(self) -> None:
        self._resampler = Resampler(SAMPLE_RATE)
        self._seconds = 0.0  # stream time at which the current rate began
        self._fed = 0  # samples at the current rate since then, lost ones included
        self._out = 0  # samples at 16 kHz given out so far, holes included

    def feed(self, block: npt.NDArray[np.float32], rate: int) -> Iterator[Piece | Hole]:
        """A block (n,) or (n, channels), full scale ±1.

        Raises:
            AudioError: more than two channels, or a rate outside 4–96 kHz.
        """
        if block.ndim == 1:
            block = block[:, None]
        if block.ndim != 2 or not 1 <= block.shape[1] <= MAX_CHANNELS:
            raise AudioError(
                f"a block of shape {block.shape}; listening takes (samples,) or (samples, channels), one or two channels"
            )
        if rate != self._resampler.rate:
            following = Resampler(rate)
            yield from self._flush()
            self._seconds += self._fed / self._resampler.rate
            self._fed = 0
            self._resampler = following
        for start in range(0, len(block), rate):  # a second at a time bounds what lies in memory
            yield from self._second(np.asarray(block[start : start + rate], np.float32))

    def lost(self, seconds: float, why: str) -> Iterator[Piece | Hole]:
        """Time that the source has no samples for."""
        yield from self._hole(round(seconds * self._resampler.rate), why)

    def finish(self) -> Iterator[Piece | Hole]:
        """What the resampler still holds."""
        yield from self._flush()

    def _second(self, block_TC: npt.NDArray[np.float32]) -> Iterator[Piece | Hole]:
        bad = np.any(~(np.abs(block_TC) < _LIMIT), axis=1)  # NaN compares false
        edges = np.flatnonzero(np.diff(bad)) + 1
        for part in np.split(np.arange(len(block_TC)), edges):
            if len(part) == 0:
                continue
            begin, end = int(part[0]), int(part[-1]) + 1
            if bad[begin]:
                yield from self._hole(end - begin, "samples that are not finite")
                continue
            good = block_TC[begin:end]
            mono = good[:, 0] if good.shape[1] == 1 else 0.5 * (good[:, 0] + good[:, 1])
            clipped = (np.abs(good) >= CLIPPED).any(axis=1)
            self._fed += len(mono)
            yield from self._piece(self._resampler.feed(np.stack([mono, clipped.astype(np.float32)])))

    def _hole(self, n: int, why: str) -> Iterator[Piece | Hole]:
        yield from self._flush()
        self._fed += n
        target = round((self._seconds + self._fed / self._resampler.rate) * SAMPLE_RATE)
        # rounding at each flush may be ahead of the clock by a sample
        lost = max(target - self._out, 0)
        self._out += lost
        yield Hole(lost, why)

    def _flush(self) -> Iterator[Piece]:
        yield from self._piece(self._resampler.finish())

    def _piece(self, rows_2T: npt.NDArray[np.float32]) -> Iterator[Piece]:
        if rows_2T.shape[1]:
            self._out += rows_2T.shape[1]
            yield Piece(rows_2T[0], rows_2T[1] > 0.5)
