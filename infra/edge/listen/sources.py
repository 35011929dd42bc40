"""Where samples come from: files read in blocks, raw PCM from a pipe, a microphone through ALSA's `arecord`.

A source is an iterator of blocks and of losses. Live ones are read by a thread of their own into a bounded queue, so that a
stall is noticed: while nothing arrives, they report the time that passes as lost.
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np
import numpy.typing as npt
import soundfile

from infra.data.audio import MAX_CHANNELS, MAX_RATE, MIN_RATE, probe
from models.config import SAMPLE_RATE
from models.errors import AudioError, ConfigError

Encoding = Literal["s16", "s32", "f32"]
_ENCODINGS: dict[str, tuple[str, float]] = {
    "s16": ("<i2", 2.0**-15),
    "s32": ("<i4", 2.0**-31),
    "f32": ("<f4", 1.0),
}

BLOCK_SECONDS = 0.1
STALL_SECONDS = 2.0  # longer than any scheduler's hiccup, shorter than anybody's patience
_QUEUE_BLOCKS = 100  # ten seconds, then the pipe fills up and the recorder reports what it drops
_OVERRUN = re.compile(rb"overrun!!! \(at least ([0-9.]+) ms long\)")
_OTHER_RATE = re.compile(rb"rate is not accurate \(requested = (\d+)Hz, got = (\d+)Hz\)")


@dataclass(frozen=True)
class Block:
    """Samples (n, channels) float32, full scale ±1, at `rate` Hz."""

    samples: npt.NDArray[np.float32]
    rate: int


@dataclass(frozen=True)
class Lost:
    """Time without samples."""

    seconds: float
    why: str


Item = Block | Lost


@dataclass(frozen=True)
class Pcm:
    """How raw samples are laid out: little-endian, channels interleaved.

    Raises:
        ConfigError: outside of what listening takes.
    """

    rate: int = SAMPLE_RATE
    channels: int = 1
    encoding: Encoding = "s16"

    def __post_init__(self) -> None:
        if not MIN_RATE <= self.rate <= MAX_RATE:
            raise ConfigError(f"rate {self.rate} Hz: choose {MIN_RATE} to {MAX_RATE}, 16000 at best")
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise ConfigError(f"{self.channels} channels: choose 1 or 2")
        if self.encoding not in _ENCODINGS:
            raise ConfigError(f"encoding {self.encoding!r}: choose one of {', '.join(_ENCODINGS)}")

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample of all channels."""
        return np.dtype(_ENCODINGS[self.encoding][0]).itemsize * self.channels

    def decode(self, data: bytes) -> Block:
        """Whole samples → a block."""
        kind, scale = _ENCODINGS[self.encoding]
        raw = np.frombuffer(data, kind).reshape(-1, self.channels)
        return Block((raw * np.float32(scale)).astype(np.float32), self.rate)


def file_blocks(path: Path) -> Iterator[Item]:
    """A WAV, FLAC or other file that libsndfile knows, a tenth of a second at a time, however long it is.

    Raises:
        AudioError: missing, unreadable, more than two channels, a rate outside 4–96 kHz, or damaged on the way.
    """
    info = probe(path)
    if info.channels > MAX_CHANNELS:
        raise AudioError(f"{path}: {info.channels} channels; mix it down to mono or stereo first")
    if not MIN_RATE <= info.sample_rate <= MAX_RATE:
        raise AudioError(
            f"{path}: {info.sample_rate} Hz; resample it to {MIN_RATE} to {MAX_RATE} Hz, 16000 at best"
        )
    n = max(1, round(info.sample_rate * BLOCK_SECONDS))
    read = 0
    try:
        with soundfile.SoundFile(str(path)) as file:
            while len(samples := file.read(n, dtype="float32", always_2d=True)):
                read += len(samples)
                yield Block(samples, info.sample_rate)
    except (soundfile.LibsndfileError, RuntimeError) as err:
        raise AudioError(
            f"{path}: damaged after {read / info.sample_rate:.1f} s ({str(err).rstrip('.')}); what came before was heard"
        ) from None
    if read == 0:
        raise AudioError(f"{path}: 0 s of audio; leave it out")


def paced(items: Iterator[Item], clock: Callable[[], float] = time.monotonic) -> Iterator[Item]:
    """Deliver items as a microphone would: each when its last sample would have been recorded."""
    due = clock()
    for item in items:
        due += item.seconds if isinstance(item, Lost) else len(item.samples) / item.rate
        if (wait := due - clock()) > 0:
            time.sleep(wait)
        yield item


class Pipe:
    """Raw PCM from a stream that may stall; iterate over it once, then `close` it.

    A sample cut off by the end of the stream is dropped.
    """

    def __init__(
        self, stream: IO[bytes], pcm: Pcm, *, stall_s: float = STALL_SECONDS, name: str = "standard input"
    ) -> None:
        self.name = name
        self._stream, self._pcm, self._stall = stream, pcm, stall_s
        self._queue: queue.Queue[Item | Exception | None] = queue.Queue(_QUEUE_BLOCKS)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._read, name="listen-source", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Item]:
        """Blocks as they arrive; losses while nothing does.

        Raises:
            AudioError: the stream cannot be read any more.
        """
        heard = time.monotonic()
        stalled = 0.0  # seconds already told since the last block
        while not self.closed:
            try:
                item = self._queue.get(timeout=0.25)
            except queue.Empty:
                silent = time.monotonic() - heard
                if self._stall and (stalled or silent >= self._stall):
                    stalled += silent
                    heard += silent
                    yield Lost(silent, "no samples arrive")
                continue
            if item is None:
                return
            if isinstance(item, Exception):
                raise AudioError(f"{self.name}: {item}") from None
            if isinstance(item, Lost):  # what the recorder dropped while it stalled is no second loss
                item = Lost(max(item.seconds - stalled, 0.0), item.why)
            heard, stalled = time.monotonic(), 0.0
            yield item

    @property
    def closed(self) -> bool:
        """Whether somebody asked it to stop."""
        return self._closed.is_set()

    def close(self) -> None:
        """Stop reading; may be called from another thread."""
        self._closed.set()

    def release(self) -> None:
        """Close the stream, once nobody writes to it any more and what was reading it has ended."""
        self.close()
        self._thread.join(timeout=2)
        if not self._thread.is_alive():
            self._stream.close()

    def report(self, item: Lost | Exception) -> None:
        """Put something in between the blocks."""
        self._put(item)

    def _put(self, item: Item | Exception | None) -> None:
        while not self._closed.is_set():
            with suppress(queue.Full):
                self._queue.put(item, timeout=0.25)
                return

    def _read(self) -> None:
        size = max(1, round(self._pcm.rate * BLOCK_SECONDS)) * self._pcm.sample_bytes
        rest = b""
        try:
            # what is there now, not a full block: a slow pipe must not be late
            while data := os.read(self._stream.fileno(), size):
                data = rest + data
                whole = len(data) // self._pcm.sample_bytes * self._pcm.sample_bytes
                rest = data[whole:]
                if whole:
                    self._put(self._pcm.decode(data[:whole]))
        except (OSError, ValueError) as err:
            self._put(err)
        self._put(None)


class Microphone:
    """The sound card, recorded by `arecord` as a process of its own; iterate over it once, then `close` it.

    Raises:
        AudioError: `arecord` is not there.
    """

    def __init__(
        self, *, device: str | None = None, pcm: Pcm | None = None, stall_s: float = STALL_SECONDS
    ) -> None:
        pcm = pcm or Pcm()
        program = shutil.which("arecord")
        if program is None:
            raise AudioError(
                "the microphone is recorded by `arecord`, which is not there: install alsa-utils, "
                "or pipe raw samples in: `parec --raw --rate=16000 --channels=1 | cryfed listen -`"
            )
        alsa = {"s16": "S16_LE", "s32": "S32_LE", "f32": "FLOAT_LE"}[pcm.encoding]
        self.name = f"microphone {device or 'default'}"
        self._process = subprocess.Popen(
            [
                program, "-t", "raw", "-f", alsa, "-r", str(pcm.rate), "-c", str(pcm.channels),
                *(["-D", device] if device else []),
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C"},  # its messages are read below
        )  # fmt: skip
        assert self._process.stdout is not None
        self._pipe = Pipe(self._process.stdout, pcm, stall_s=stall_s, name=self.name)
        self._last_words = b""
        self._messages = threading.Thread(target=self._watch, name="listen-arecord", daemon=True)
        self._messages.start()

    def __iter__(self) -> Iterator[Item]:
        """Blocks as they arrive; losses where the recorder dropped samples or stalls.

        Raises:
            AudioError: the recorder ended by itself, or records at another rate than asked for.
        """
        stopped = True
        try:
            yield from self._pipe
            stopped = self._pipe.closed
        finally:
            self.close()
        if not stopped:
            said = self._last_words.decode(errors="replace").strip() or "it said nothing"
            raise AudioError(
                f"{self.name}: arecord ended ({said}); `arecord -l` lists devices, `--device` chooses one"
            )

    def close(self) -> None:
        """End the recorder."""
        self._pipe.close()
        self._process.terminate()
        try:
            self._process.wait(timeout=3)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._pipe.release()
        self._messages.join(timeout=2)
        if self._process.stderr is not None and not self._messages.is_alive():
            self._process.stderr.close()

    def _watch(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._last_words = line[:500]
            if found := _OVERRUN.search(line):
                self._pipe.report(Lost(float(found[1]) / 1000.0, "the recorder dropped samples"))
            elif found := _OTHER_RATE.search(line):
                asked, got = found[1].decode(), found[2].decode()
                self._pipe.report(
                    AudioError(
                        f"it records at {got} Hz, not {asked}: give --rate {got}, or a device that converts (plughw:…)"
                    )
                )
