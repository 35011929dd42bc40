"""What a recording is, measured from its samples: the facts no manifest can be trusted for.

Pure and numpy-only; one clip costs a few milliseconds. A clip that cannot be decoded is a row with an `error_kind`, never an
exception, so that the gate can name every bad clip of a site at once.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.fft
import soundfile

from infra.data.audio import MAX_CHANNELS, MAX_RATE, MIN_RATE

MAX_SECONDS: Final = 600.0
MAX_BYTES: Final = 256 * 2**20

CLIP_LEVEL: Final = 0.999  # of full scale
SILENCE_DB: Final = -60.0  # dBFS RMS of a 25 ms frame
_LEVEL_FLOOR: Final = 1e-5  # -100 dBFS: below it a level is the converter's, not the room's
_ROLLOFF: Final = 0.99

_UNKNOWN: Final[dict[str, Any]] = {
    "sample_rate": np.nan,
    "channels": np.nan,
    "duration_s": np.nan,
    "peak": np.nan,
    "rms_db": np.nan,
    "clipping_fraction": np.nan,
    "silence_ratio": np.nan,
    "snr_db": np.nan,
    "dc_offset": np.nan,
    "bandwidth_hz": np.nan,
    "nan_count": np.nan,
}
MEASURED: Final = (
    "path", *_UNKNOWN, "file_sha256", "audio_sha256", "hash_state", "readable", "error_kind", "error"
)  # fmt: skip


def measure_wave(wave: npt.NDArray[np.float32], sample_rate: int) -> dict[str, Any]:
    """Level, clipping, silence, SNR, offset and bandwidth of decoded audio.

    Args:
        wave: (T, channels) or (T,), full scale ±1, at its native rate, T ≥ 1. Levels are of the channel mean; clipping is over
            all channels.
        sample_rate: Hz.

    Returns:
        `peak` (0…), `rms_db` (dBFS), `clipping_fraction` of samples at full scale, `silence_ratio` of 25 ms frames below
        −60 dBFS, `snr_db`: level of the loudest 5 % of frames over that of the quietest 10 % (an estimate: a cry without a
        pause reads low), `dc_offset`, `bandwidth_hz`: 99 % spectral roll-off, `nan_count` of NaN and infinite samples. With
        non-finite samples all but the count are NaN.
    """
    wave = wave[:, None] if wave.ndim == 1 else wave
    facts: dict[str, Any] = dict.fromkeys(_UNKNOWN, np.nan)
    facts["sample_rate"] = sample_rate
    facts["channels"] = wave.shape[1]
    facts["duration_s"] = len(wave) / sample_rate
    finite = np.isfinite(wave)
    facts["nan_count"] = int(wave.size - finite.sum())
    if facts["nan_count"] or len(wave) == 0:
        return facts

    mono = wave.mean(axis=1, dtype=np.float32)
    level = _frame_rms(mono, max(1, round(0.025 * sample_rate)))
    quiet, loud = np.quantile(np.maximum(level, _LEVEL_FLOOR), (0.10, 0.95))
    facts["peak"] = float(np.abs(wave).max())
    facts["rms_db"] = _db(float(np.sqrt(np.mean(np.square(mono, dtype=np.float64)))))
    facts["clipping_fraction"] = float(np.mean(np.abs(wave) >= CLIP_LEVEL))
    facts["silence_ratio"] = float(np.mean(level < 10 ** (SILENCE_DB / 20)))
    facts["snr_db"] = _db(float(loud)) - _db(float(quiet))
    facts["dc_offset"] = float(mono.mean(dtype=np.float64))
    facts["bandwidth_hz"] = _rolloff(mono - np.float32(facts["dc_offset"]), sample_rate)
    return facts


def measure_file(
    path: Path, *, sha256: str = "", max_seconds: float = MAX_SECONDS, max_bytes: int = MAX_BYTES
) -> dict[str, Any]:
    """Measure one file; see `measure_wave` for the numbers.

    Beside them: `file_sha256` of its bytes and `hash_state` ("match", "mismatch", or "unknown" when unread or no `sha256` was
    declared); `audio_sha256` of the decoded 16-bit mono samples, equal for the same recording in another container, empty
    for digital silence; `readable`; `error_kind`: "" or one of missing, large, unreadable, truncated, channels, rate, long,
    empty, nan; `error`: the reason in words.
    """
    row: dict[str, Any] = {**_UNKNOWN, "file_sha256": "", "audio_sha256": "", "hash_state": "unknown"}

    def refuse(kind: str, reason: str) -> dict[str, Any]:
        return {**row, "readable": False, "error_kind": kind, "error": reason}

    try:
        size = path.stat().st_size
        if size > max_bytes:
            return refuse("large", f"{size} bytes, the limit is {max_bytes}")
        data = path.read_bytes()
    except OSError as err:
        return refuse("missing", f"cannot be opened: {err.strerror or err}")
    row["file_sha256"] = hashlib.sha256(data).hexdigest()
    if sha256:
        row["hash_state"] = "match" if row["file_sha256"] == sha256.lower() else "mismatch"
    if not data:
        return refuse("empty", "a file of 0 bytes")

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            row |= {"sample_rate": file.samplerate, "channels": file.channels}
            frames = file.frames
            row["duration_s"] = frames / file.samplerate
            if file.channels > MAX_CHANNELS:
                return refuse("channels", f"{file.channels} channels; mono and stereo are accepted")
            if not MIN_RATE <= file.samplerate <= MAX_RATE:
                return refuse("rate", f"{file.samplerate} Hz; {MIN_RATE} to {MAX_RATE} Hz is accepted")
            if row["duration_s"] > max_seconds:
                return refuse("long", f"{row['duration_s']:.0f} s, the limit is {max_seconds:.0f} s")
            # libsndfile shortens a cut WAV or AIFF to what is there and only notes it in its log
            cut = "should be" in file.extra_info and file.format in {"WAV", "WAVEX", "AIFF", "RF64", "W64"}
            wave = file.read(dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError, ValueError, MemoryError) as err:
        # libsndfile's own words: the library's message names an object in memory, and verdicts are digested
        reason = err.error_string if isinstance(err, soundfile.LibsndfileError) else str(err)
        return refuse("unreadable", f"cannot be decoded: {reason.rstrip('.')}")
    if len(wave) != frames or (cut and _declared_wav_bytes(data) > len(data)):
        return refuse("truncated", f"ends early: {len(wave)} samples decoded, its header promises more")
    if len(wave) == 0:
        return refuse("empty", "0 samples")
    row |= measure_wave(wave, int(row["sample_rate"]))
    if row["nan_count"]:
        return refuse("nan", f"{row['nan_count']} NaN or infinite samples")
    if row["peak"] > 0:
        row["audio_sha256"] = _content_digest(wave)
    return {**row, "readable": True, "error_kind": "", "error": ""}


def measure_site(
    rows: pd.DataFrame, root: Path, *, max_seconds: float = MAX_SECONDS, max_bytes: int = MAX_BYTES
) -> pd.DataFrame:
    """Measure every clip of a manifest's rows (columns `path`, `sha256`), in their order.

    A pure function of the site's own folder: the same code runs in the pipeline and inside a site's client.

    Returns:
        One row a clip with the columns `MEASURED`; a clip that cannot be used is a row with `readable` False.
    """
    out = [
        {
            "path": path,
            **measure_file(root / path, sha256=sha256, max_seconds=max_seconds, max_bytes=max_bytes),
        }
        for path, sha256 in zip(rows["path"].astype(str), rows["sha256"].fillna("").astype(str), strict=True)
    ]
    return pd.DataFrame(out, columns=list(MEASURED))


def _frame_rms(mono: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.float64]:
    """RMS of consecutive frames (n,); a remainder shorter than a frame counts only when it is all there is."""
    if len(mono) < size:
        mono = np.pad(mono, (0, size - len(mono)))
    frames = mono[: len(mono) // size * size].reshape(-1, size)
    return np.asarray(np.sqrt(np.mean(np.square(frames, dtype=np.float64), axis=1)))


def _rolloff(mono: npt.NDArray[np.float32], sample_rate: int, size: int = 1024) -> float:
    """Frequency in Hz below which 99 % of the energy lies; 0 for digital silence."""
    if len(mono) < size:
        mono = np.pad(mono, (0, size - len(mono)))
    frames = mono[: len(mono) // size * size].reshape(-1, size) * np.hanning(size).astype(np.float32)
    power = np.square(np.abs(scipy.fft.rfft(frames, axis=1)), dtype=np.float64).sum(axis=0)
    total = power.sum()
    if total <= 0:
        return 0.0
    return float(np.searchsorted(np.cumsum(power), _ROLLOFF * total)) * sample_rate / size


def _content_digest(wave: npt.NDArray[np.float32]) -> str:
    mono = wave.mean(axis=1, dtype=np.float32)
    return hashlib.sha256(np.clip(np.rint(mono * 32768), -32768, 32767).astype("<i2").tobytes()).hexdigest()


def _declared_wav_bytes(data: bytes) -> int:
    """Bytes a RIFF or AIFF container says it has, from its outer chunk; 0 when it says nothing."""
    order = {b"RIFF": "little", b"RIFX": "big", b"FORM": "big"}.get(data[:4])
    if order is None or len(data) < 8:
        return 0
    size = int.from_bytes(data[4:8], "little" if order == "little" else "big")
    return 0 if size == 0xFFFFFFFF else size + 8


def _db(level: float) -> float:
    return 20.0 * float(np.log10(max(level, _LEVEL_FLOOR)))
