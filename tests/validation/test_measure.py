"""Measurements against numbers computed by hand, and files that cannot be used."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from infra.data.audio import read_audio
from models.errors import AudioError
from validation.measure import MEASURED, measure_file, measure_site, measure_wave

RATE = 16_000
T = np.arange(2 * RATE) / RATE
TONE = (0.5 * np.sin(2 * np.pi * 1000 * T)).astype(np.float32)


def test_sine_has_the_level_and_bandwidth_of_a_sine() -> None:
    facts = measure_wave(TONE, RATE)
    assert facts["peak"] == pytest.approx(0.5, abs=1e-6)
    assert facts["rms_db"] == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=1e-3)
    assert facts["duration_s"] == 2.0
    assert facts["bandwidth_hz"] == pytest.approx(1000, abs=2 * RATE / 1024)
    assert facts["clipping_fraction"] == 0
    assert facts["silence_ratio"] == 0
    assert facts["snr_db"] == pytest.approx(0, abs=0.1)


def test_offset_does_not_count_as_bandwidth() -> None:
    facts = measure_wave(TONE + np.float32(0.2), RATE)
    assert facts["dc_offset"] == pytest.approx(0.2, abs=1e-6)
    assert facts["bandwidth_hz"] == pytest.approx(1000, abs=2 * RATE / 1024)


def test_clipping_is_the_fraction_at_full_scale() -> None:
    wave = np.zeros(1000, dtype=np.float32)
    wave[:30] = 1.0
    wave[30:40] = -1.0
    assert measure_wave(wave, RATE)["clipping_fraction"] == pytest.approx(0.04)


def test_silence_is_the_fraction_of_frames_below_minus_60_db() -> None:
    """40 of 80 frames of 25 ms at 1e-4, which is -80 dBFS."""
    wave = TONE.copy()
    wave[RATE:] = 1e-4
    assert measure_wave(wave, RATE)["silence_ratio"] == pytest.approx(0.5)


def test_snr_is_the_level_of_loud_frames_over_quiet_ones() -> None:
    """Half of the clip at 0.5/√2, half at 0.005/√2: 40 dB."""
    wave = TONE.copy()
    wave[RATE:] *= 0.01
    assert measure_wave(wave, RATE)["snr_db"] == pytest.approx(40, abs=0.1)


def test_digital_silence_is_measured_without_dividing_by_zero() -> None:
    facts = measure_wave(np.zeros(RATE, dtype=np.float32), RATE)
    assert (facts["rms_db"], facts["silence_ratio"], facts["snr_db"], facts["bandwidth_hz"]) == (
        -100,
        1,
        0,
        0,
    )


def test_one_sample_is_enough() -> None:
    assert measure_wave(np.ones(1, dtype=np.float32), RATE)["peak"] == 1


def test_same_recording_in_another_container_has_the_same_audio_digest(tmp_path: Path) -> None:
    pcm = np.rint(TONE * 32767).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", pcm, RATE)
    soundfile.write(tmp_path / "a.flac", pcm, RATE)
    wav, flac = measure_file(tmp_path / "a.wav"), measure_file(tmp_path / "a.flac")
    assert wav["audio_sha256"] == flac["audio_sha256"] != ""
    assert wav["file_sha256"] != flac["file_sha256"]


def test_digital_silence_is_nobodys_duplicate(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(RATE), RATE)
    assert measure_file(tmp_path / "a.wav")["audio_sha256"] == ""


@pytest.mark.parametrize(("declared", "state"), [("", "unknown"), ("0" * 64, "mismatch"), (None, "match")])
def test_hash_state(tmp_path: Path, declared: str | None, state: str) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, TONE, RATE)
    if declared is None:
        declared = hashlib.sha256(path.read_bytes()).hexdigest().upper()
    assert measure_file(path, sha256=declared)["hash_state"] == state


def _cut(path: Path, keep: float = 0.5) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


def _nan(path: Path) -> None:
    wave = TONE.copy()
    wave[5] = np.nan
    wave[6] = np.inf
    soundfile.write(path, wave, RATE, subtype="FLOAT")


BAD: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "missing": ("a.wav", lambda p: p.unlink(), "missing"),
    "a folder": ("a.wav", lambda p: (p.unlink(), p.mkdir()), "missing"),
    "zero bytes": ("a.wav", lambda p: p.write_bytes(b""), "empty"),
    "zero seconds": ("a.wav", lambda p: soundfile.write(p, np.zeros(0), RATE), "empty"),
    "not audio": ("a.wav", lambda p: p.write_text("hello"), "unreadable"),
    "header only": ("a.wav", lambda p: p.write_bytes(p.read_bytes()[:20]), "unreadable"),
    "cut wav": ("a.wav", _cut, "truncated"),
    "cut by a sample": ("a.wav", lambda p: p.write_bytes(p.read_bytes()[:-2]), "truncated"),
    "cut aiff": ("a.aiff", _cut, "truncated"),
    "cut flac": ("a.flac", _cut, "unreadable"),
    "cut mp3": ("a.mp3", _cut, "truncated"),
    "8 channels": ("a.wav", lambda p: soundfile.write(p, np.zeros((RATE, 8)), RATE), "channels"),
    "192 kHz": ("a.wav", lambda p: soundfile.write(p, TONE, 192_000), "rate"),
    "2 kHz": ("a.wav", lambda p: soundfile.write(p, TONE, 2_000), "rate"),
    "NaN": ("a.wav", _nan, "nan"),
    "11 s": ("a.wav", lambda p: soundfile.write(p, np.tile(TONE, 6), RATE), "long"),
    "1 MB": ("a.wav", lambda p: p.write_bytes(bytes(2**20)), "large"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_rows_with_a_reason(tmp_path: Path, case: str) -> None:
    name, spoil, kind = BAD[case]
    path = tmp_path / name
    soundfile.write(path, TONE, RATE)
    spoil(path)
    row = measure_file(path, max_seconds=10, max_bytes=500_000)
    assert row["error_kind"] == kind
    assert row["readable"] is False
    assert row["error"]
    assert set(row) == set(MEASURED) - {"path"}


@pytest.mark.parametrize("case", BAD)
def test_what_the_reader_refuses_is_what_the_gate_refuses(tmp_path: Path, case: str) -> None:
    """Otherwise a clip passes the gate and stops the run an hour later."""
    name, spoil, _ = BAD[case]
    path = tmp_path / name
    soundfile.write(path, TONE, RATE)
    spoil(path)
    with pytest.raises(AudioError):
        read_audio(path, max_seconds=10, max_bytes=500_000)


def test_nan_samples_are_counted(tmp_path: Path) -> None:
    _nan(tmp_path / "a.wav")
    assert measure_file(tmp_path / "a.wav")["nan_count"] == 2


def test_streamed_wav_without_a_length_is_accepted(tmp_path: Path) -> None:
    """Recorders that write to a pipe leave the sizes at 0xFFFFFFFF; nothing is missing."""
    path = tmp_path / "a.wav"
    soundfile.write(path, TONE, RATE)
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = b"\xff" * 4
    path.write_bytes(data)
    assert measure_file(path)["error_kind"] == ""


def test_site_is_one_row_a_clip_in_order(tmp_path: Path) -> None:
    for name in ("b.wav", "a.wav"):
        soundfile.write(tmp_path / name, np.stack([TONE, TONE], axis=1), 48_000)
    rows = pd.DataFrame({"path": ["b.wav", "gone.wav", "a.wav"], "sha256": ["", None, ""]}, index=[7, 3, 9])
    out = measure_site(rows, tmp_path)
    assert out["path"].tolist() == ["b.wav", "gone.wav", "a.wav"]
    assert out["readable"].tolist() == [True, False, True]
    assert out.loc[0, "channels"] == 2
    assert out.loc[0, "sample_rate"] == 48_000
    assert tuple(out.columns) == MEASURED
    pd.testing.assert_frame_equal(out, measure_site(rows, tmp_path))
