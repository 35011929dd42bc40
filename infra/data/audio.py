"""Recordings in and out: any file that libsndfile reads becomes 16 kHz mono float32, or one clear error.

Policy: one or two channels (two are averaged), at most 96 kHz, every promised sample present and finite. Arrays of microphones,
ultrasonic rates and damaged files are refused rather than guessed at.
"""

from __future__ import annotations

import os
import struct
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.config import SAMPLE_RATE
from models.errors import OutputError

MAX_CHANNELS = 2
MAX_RATE = 96_000
MIN_RATE = 4_000


def encode_wav(wave: npt.NDArray, sample_rate: int = SAMPLE_RATE) -> bytes:
    """A mono wave in [-1, 1], (T,), as the bytes of a 16-bit PCM WAV file; the same samples give the same bytes."""
    pcm = np.rint(np.clip(wave, -1.0, 1.0) * 32767.0).astype("<i2").tobytes()
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF", 36 + len(pcm), b"WAVE", b"fmt ", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16, b"data", len(pcm),
    )  # fmt: skip
    return header + pcm


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
