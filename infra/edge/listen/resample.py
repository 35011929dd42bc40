"""Streaming resampling to 16 kHz by the same filter as training's (`infra.data.audio.resample`), without torch.

torchaudio's windowed sinc (Hann, 6 zero crossings, roll-off 0.99; J. O. Smith, band-limited interpolation), as a table of phases.
Outputs are computed in chunks of fixed place and size, so that the same samples give the same bits however they arrive.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from models.config import SAMPLE_RATE
from models.errors import AudioError

MIN_RATE, MAX_RATE = 4_000, 96_000  # those of `infra.data.audio`
_ZERO_CROSSINGS = 6
_ROLLOFF = 0.99
_CHUNK = 400  # outputs at a time: 25 ms

Rows = npt.NDArray[np.float32]


class Resampler:
    """Mono samples at `rate` → 16 kHz. A second row travels along, taken at the nearest earlier sample: marks, not sound.

    Raises:
        AudioError: the rate is outside 4–96 kHz.
    """

    def __init__(self, rate: int) -> None:
        if not MIN_RATE <= rate <= MAX_RATE:
            raise AudioError(f"{rate} Hz; listening takes {MIN_RATE} to {MAX_RATE} Hz, 16000 at best")
        divisor = math.gcd(rate, SAMPLE_RATE)
        self.rate = rate
        self._down, self._up = rate // divisor, SAMPLE_RATE // divisor
        cutoff = min(self._down, self._up) * _ROLLOFF
        self._half = math.ceil(_ZERO_CROSSINGS * self._down / cutoff)
        # phase r: the output lies r/up of a sample after an input; taps from `half` before that input to `half + 1` after it
        taps = np.arange(-self._half, self._half + 2)
        t = (taps[None, :] - np.arange(self._up)[:, None] / self._up) / self._down * cutoff
        t = np.clip(t, -_ZERO_CROSSINGS, _ZERO_CROSSINGS)
        self._table = np.sinc(t) * np.cos(t * np.pi / _ZERO_CROSSINGS / 2) ** 2 * cutoff / self._down
        self.reset()

    def reset(self) -> None:
        """Forget the past: what comes next has silence before it."""
        self._taken = 0  # inputs so far
        self._made = 0  # outputs so far
        self._first = -self._half  # place of the buffer's first input
        self._buffer: Rows = np.zeros((2, self._half), np.float32)

    def feed(self, rows_2T: Rows) -> Rows:
        """(2, n) at `rate` → (2, m) at 16 kHz: all outputs of the chunks that are complete."""
        self._taken += rows_2T.shape[1]
        if self._down == self._up:
            self._made += rows_2T.shape[1]
            return rows_2T
        self._buffer = np.concatenate([self._buffer, rows_2T], axis=1)
        out = []
        while self._last_input(self._made + _CHUNK) < self._taken:
            out.append(self._chunk(_CHUNK))
        return np.concatenate(out, axis=1) if out else np.zeros((2, 0), np.float32)

    def finish(self) -> Rows:
        """The rest, as if silence followed; in all ⌈n · 16000 / rate⌉ outputs. Then as after `reset`."""
        total = -(-self._taken * self._up // self._down)
        out = [np.zeros((2, 0), np.float32)]
        if self._down != self._up:
            self._buffer = np.pad(self._buffer, ((0, 0), (0, self._half + 2 + self._down)))
            while self._made < total:
                out.append(self._chunk(min(_CHUNK, total - self._made)))
        self.reset()
        return np.concatenate(out, axis=1)

    def _last_input(self, outputs: int) -> int:
        """Place of the last input that the first `outputs` outputs need."""
        return (outputs - 1) * self._down // self._up + self._half + 1

    def _chunk(self, n: int) -> Rows:
        at = (self._made + np.arange(n)) * self._down
        base = at // self._up - self._first  # place in the buffer of the input at or before each output
        windows = self._buffer[0][base[:, None] + np.arange(-self._half, self._half + 2)]
        wave = (windows * self._table[at % self._up]).sum(axis=1)
        out = np.stack([wave.astype(np.float32), self._buffer[1][base]])
        self._made += n
        keep = self._made * self._down // self._up - self._half  # first input still needed
        self._buffer = self._buffer[:, keep - self._first :].copy()
        self._first = keep
        return out
