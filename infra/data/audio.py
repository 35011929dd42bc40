"""Recordings in and out: any file that libsndfile reads becomes 16 kHz mono float32, or one clear error.

Policy: one or two channels (two are averaged), at most 96 kHz, every promised sample present and finite. Arrays of microphones,
ultrasonic rates and damaged files are refused rather than guessed at.
"""

from __future__ import annotations

import io
import math
import os
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import soundfile

from models.config import SAMPLE_RATE
from models.errors import AudioError, OutputError

MAX_CHANNELS = 2
MAX_RATE = 96_000
MIN_RATE = 4_000
# a polyphase filter has a phase for every step of the reduced ratio: 44,100 Hz makes 441, 44,102 Hz 22,051 and 700 MB
MAX_RATIO = 1_000
_CHUNKED = {"WAV", "WAVEX", "AIFF", "RF64", "W64"}
_CONVERT = "convert it to WAV or FLAC, or leave it out"


def encode_wav(wave: npt.NDArray, sample_rate: int = SAMPLE_RATE) -> bytes:
    """A mono wave in [-1, 1], (T,), as the bytes of a 16-bit PCM WAV file; the same samples give the same bytes."""
    pcm = np.rint(np.clip(wave, -1.0, 1.0) * 32767.0).astype("<i2").tobytes()
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF", 36 + len(pcm), b"WAVE", b"fmt ", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16, b"data", len(pcm),
    )  # fmt: skip
    return header + pcm


def write_wav(path: Path, wave: npt.NDArray, sample_rate: int = SAMPLE_RATE) -> None:
    """Write a mono wave in [-1, 1], (T,), as 16-bit PCM WAV, whole or not at all.

    Raises:
        OutputError: the folder cannot be written.
    """
    write_bytes(path, encode_wav(wave, sample_rate))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        OutputError: the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".part-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as err:
        raise OutputError(
            f"cannot write {path}: {err.strerror or err}; choose a folder that can be written"
        ) from None


class ClipLimits(Protocol):
    """What bounds one clip; `infra.settings.LimitSettings` is one, `ReadLimits` another."""

    @property
    def max_clip_seconds(self) -> float:
        """Longer clips are refused."""
        ...

    @property
    def max_file_bytes(self) -> int:
        """Larger files are refused before they are read."""
        ...


@dataclass(frozen=True)
class ReadLimits:
    """The default bounds. Not the settings' own class, so that stages which read audio do not depend on every setting."""

    max_clip_seconds: float = 600.0
    max_file_bytes: int = 256 * 2**20


@dataclass(frozen=True)
class AudioInfo:
    """What a file's header says."""

    sample_rate: int  # Hz
    channels: int
    frames: int
    format: str  # libsndfile's names, e.g. WAV, FLAC
    subtype: str

    @property
    def seconds(self) -> float:
        """Duration by the header."""
        return self.frames / self.sample_rate


def probe(path: Path) -> AudioInfo:
    """Read a header without decoding.

    Raises:
        AudioError: missing, or nothing that libsndfile knows.
    """
    if not path.is_file():
        raise AudioError(f"{path}: no such file; check the path")
    try:
        info = soundfile.info(str(path))
    except (soundfile.LibsndfileError, RuntimeError) as err:
        raise AudioError(f"{path}: not readable as audio ({_reason(err)}); {_CONVERT}") from None
    return AudioInfo(info.samplerate, info.channels, info.frames, info.format, info.subtype)


def read_audio(
    path: Path, *, max_seconds: float, max_bytes: int, sample_rate: int = SAMPLE_RATE
) -> npt.NDArray[np.float32]:
    """Decode a file to mono float32 at `sample_rate`, (T,), full scale ±1.

    Args:
        path: WAV, FLAC, Ogg/Opus, MP3, AIFF, CAF: whatever libsndfile decodes.
        max_seconds: longer clips are refused.
        max_bytes: larger files are refused before they are read.
        sample_rate: Hz; other rates are resampled (torchaudio, band-limited sinc).

    Raises:
        AudioError: the file is missing, too large or too long, unreadable, truncated, empty, of more than two channels, of a
            rate outside 4–96 kHz, or holds NaN or infinite samples. The message names the file, the reason and what to do.
    """
    wave, rate = _decode(path, max_seconds, max_bytes)
    mono = wave.mean(axis=1, dtype=np.float32)
    return mono if rate == sample_rate else resample(mono, rate, sample_rate)


def resample(mono: npt.NDArray[np.float32], rate: int, to: int = SAMPLE_RATE) -> npt.NDArray[np.float32]:
    """Band-limited resampling of a mono wave: (T,) → (⌈T · to / rate⌉,)."""
    import torch

    from models.audio_ops import torchaudio

    return np.asarray(torchaudio.functional.resample(torch.from_numpy(mono), rate, to).numpy(), np.float32)


def _decode(path: Path, max_seconds: float, max_bytes: int) -> tuple[npt.NDArray[np.float32], int]:
    """(T, channels) float32 at the file's own rate, and that rate."""
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise AudioError(
                f"{path}: {size} bytes, the limit is {max_bytes}; cut it into shorter clips or raise limits.max_file_bytes"
            )
        data = path.read_bytes()
    except OSError as err:
        raise AudioError(
            f"{path}: cannot be opened ({err.strerror or err}); check path and permissions"
        ) from None
    if not data:
        raise AudioError(f"{path}: a file of 0 bytes; export the recording again or leave it out")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            rate, channels, frames = file.samplerate, file.channels, file.frames
            if channels > MAX_CHANNELS:
                raise AudioError(f"{path}: {channels} channels; mix it down to mono or stereo first")
            if not MIN_RATE <= rate <= MAX_RATE:
                raise AudioError(
                    f"{path}: {rate} Hz; resample it to {MIN_RATE} to {MAX_RATE} Hz, 16000 at best"
                )
            if rate // math.gcd(rate, SAMPLE_RATE) > MAX_RATIO:
                raise AudioError(
                    f"{path}: {rate} Hz is no rate that recorders use, and costs too much to resample; make it 16000 Hz"
                )
            if frames / rate > max_seconds:
                raise AudioError(
                    f"{path}: {frames / rate:.0f} s, the limit is {max_seconds:.0f} s; cut it into shorter clips"
                )
            # libsndfile shortens a cut WAV or AIFF to what is there and only notes it in its log
            shortened = "should be" in file.extra_info and file.format in _CHUNKED
            wave = file.read(dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError, ValueError, MemoryError) as err:
        raise AudioError(f"{path}: not readable as audio ({_reason(err)}); {_CONVERT}") from None
    if len(wave) != frames or (shortened and _promised_bytes(data) > len(data)):
        raise AudioError(
            f"{path}: truncated: {len(wave)} samples decoded, its header promises more; copy it again from the source"
        )
    if len(wave) == 0:
        raise AudioError(f"{path}: 0 s of audio; leave it out")
    if not np.isfinite(wave).all():
        bad = int(np.count_nonzero(~np.isfinite(wave)))
        raise AudioError(f"{path}: {bad} NaN or infinite samples; export it again or leave it out")
    return wave, rate


def _promised_bytes(data: bytes) -> int:
    """Bytes that a RIFF or AIFF file says it has; 0 when it says nothing, as recorders that write to a pipe do."""
    if data[:4] not in (b"RIFF", b"RIFX", b"FORM"):
        return 0
    size = int.from_bytes(data[4:8], "little" if data[:4] == b"RIFF" else "big")
    return 0 if size == 0xFFFFFFFF else size + 8


def _reason(err: Exception) -> str:
    return str(err).rstrip(".").removeprefix("Error opening ").strip() or type(err).__name__
