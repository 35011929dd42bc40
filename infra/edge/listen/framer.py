"""A stream cut into one-second frames at every hop, each with its share of activity, as it ends.

The activity is that of `models.segmentation.activity`, the very function of training and calibration, applied to the last
`vad_context_s` seconds up to the frame's end. A stream no longer than that is judged at its end as the same clip would be. What
differs from a whole clip:

- peak and noise floor are those of the last seconds, not of the clip; nothing after the frame's end is heard;
- a clip yields at least one frame, however quiet; a stream yields none while nothing is active;
- a steady sound is its own peak, so a clip of room noise keeps all its frames: the stream also asks for `floor_dbfs`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infra.edge.listen.config import ListenConfig, samples
from models.config import FRAME_SAMPLES, SAMPLE_RATE
from models.errors import ConfigError
from models.segmentation import VadConfig, activity

_STEP = SAMPLE_RATE // 100
_SILENCE_DBFS = -120.0


@dataclass(frozen=True)
class Cut:
    """One frame. `wave` (1, 16000) is a view that the next frame overwrites; `begin` and `end` in samples of the stream.

    A frame that ends with the stream, or at a gap, may hold less than a second: `end - begin` samples, then zeros.
    """

    begin: int
    end: int
    wave: npt.NDArray[np.float32]
    active: float
    kept: bool
    rms_dbfs: float
    clipped: float


def dbfs(mean_square: float) -> float:
    """Level of a mean square in dB re full scale, not below −120."""
    return max(10.0 * float(np.log10(max(mean_square, 1e-30))), _SILENCE_DBFS)


class Framer:
    """Samples → frames, in bounded memory.

    - Frame k of a stretch without gaps covers samples [k · hop, k · hop + 16000) of it.
    - A last frame is aligned to the stretch's end where at least a quarter of a hop would be left over, as for clips.
    - After a gap everything begins afresh: no frame and no context reaches across it.

    Raises:
        ConfigError: the hop is not a multiple of 0.01 s up to a second.
    """

    def __init__(self, vad: VadConfig, cfg: ListenConfig) -> None:
        self._vad, self._floor = vad, cfg.floor_dbfs
        self._hop = samples(vad.hop_s)
        if not 0 < self._hop <= FRAME_SAMPLES or self._hop % _STEP:
            raise ConfigError(
                f"hop_s={vad.hop_s} must be a multiple of 0.01 s, at most 1 s, for a stream to be heard whole"
            )
        self._context = samples(cfg.vad_context_s) // _STEP * _STEP
        # always the same places in memory, so that the same samples give the same bits
        self._wave = np.zeros(2 * self._context + FRAME_SAMPLES, np.float32)
        self._clipped = np.zeros(len(self._wave), np.bool_)
        self._recent = np.zeros(self._context, np.float32)
        self._frame = np.zeros((1, FRAME_SAMPLES), np.float32)
        self.now = 0  # samples of the stream so far
        self._restart()

    def _restart(self) -> None:
        self._filled = 0  # samples in the buffer; the last of them is `now`
        self._next_end = self.now + FRAME_SAMPLES
        self._last_end = self.now  # up to where frames reach

    def feed(self, wave: npt.NDArray[np.float32], clipped: npt.NDArray[np.bool_]) -> Iterator[Cut]:
        """16 kHz mono (n,), finite, and where it was clipped (n,) → the frames that end in it, in order."""
        at = 0
        while at < len(wave):
            n = min(self._next_end - self.now, len(wave) - at)
            self._append(wave[at : at + n], clipped[at : at + n])
            at += n
            if self.now == self._next_end:
                yield self._cut(FRAME_SAMPLES)
                self._next_end += self._hop

    def finish(self) -> Iterator[Cut]:
        """The last frame, if enough is left over for one."""
        left = self.now - self._last_end
        if left >= self._hop // 4:
            yield self._cut(min(FRAME_SAMPLES, self._filled))

    def skip(self, n: int) -> Iterator[Cut]:
        """Lose `n` samples: the last frame before the gap, then a fresh start behind it."""
        yield from self.finish()
        self.now += n
        self._restart()

    def _append(self, wave: npt.NDArray[np.float32], clipped: npt.NDArray[np.bool_]) -> None:
        n = len(wave)
        if self._filled + n > len(self._wave):
            keep = min(self._context, self._filled)
            for buffer in (self._wave, self._clipped):
                buffer[:keep] = buffer[self._filled - keep : self._filled].copy()
            self._filled = keep
        self._wave[self._filled : self._filled + n] = wave
        self._clipped[self._filled : self._filled + n] = clipped
        self._filled += n
        self.now += n

    def _cut(self, n: int) -> Cut:
        """The frame of the last `n` samples."""
        heard = self._wave[self._filled - n : self._filled]
        self._frame[0, :n] = heard
        self._frame[0, n:] = 0.0
        reach = min(self._context, self._filled)
        recent = self._recent[:reach]
        recent[:] = self._wave[self._filled - reach : self._filled]
        steps = -(-n // _STEP)
        active = float(activity(recent, self._vad)[-steps:].sum()) / (FRAME_SAMPLES // _STEP)
        level = dbfs(float(np.mean(np.square(heard, dtype=np.float64))))
        self._last_end = self.now
        return Cut(
            begin=self.now - n,
            end=self.now,
            wave=self._frame,
            active=active,
            kept=active >= self._vad.min_active and level >= self._floor,
            rms_dbfs=level,
            clipped=float(np.mean(self._clipped[self._filled - n : self._filled])),
        )
