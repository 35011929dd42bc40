"""The reader: one policy for every file, and errors that name file, reason and the way out."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from infra.data.audio import encode_wav, probe, read_audio, write_wav
from models.errors import AudioError, OutputError

RATE = 16_000
TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.float32)


def read(path: Path, **limits: float) -> np.ndarray:
    return read_audio(path, max_seconds=limits.get("seconds", 10), max_bytes=int(limits.get("size", 10**6)))


def test_pcm16_round_trip_is_exact_to_half_a_step(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", TONE)
    wave = read(tmp_path / "a.wav")
    assert wave.dtype == np.float32
    assert wave.shape == (RATE,)
    # written with 32767 steps, read with 32768: half a step of rounding and one part in 32768 of scale
    assert np.abs(wave - TONE).max() < 1.1 / 32768
    assert (tmp_path / "a.wav").read_bytes() == encode_wav(TONE)


KINDS = [
    (suffix, rate)
    for suffix in ("wav", "flac", "aiff", "caf", "ogg", "mp3")
    for rate in (8_000, 16_000, 44_100, 48_000, 96_000)
    if (suffix, rate) != ("mp3", 96_000)  # MP3 ends at 48 kHz
]


@pytest.mark.parametrize(("suffix", "rate"), KINDS)
def test_any_container_and_rate_becomes_16k_mono(tmp_path: Path, suffix: str, rate: int) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate), rate)
    wave = read(path)
    assert len(wave) == pytest.approx(RATE, abs=0.1 * RATE)
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    assert np.fft.rfftfreq(len(wave), 1 / RATE)[spectrum.argmax()] == pytest.approx(440, abs=2)


def test_stereo_is_averaged(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.stack([TONE, -0.5 * TONE], axis=1), RATE, subtype="FLOAT")
    np.testing.assert_allclose(read(tmp_path / "a.wav"), 0.25 * TONE, atol=1e-6)


def test_probe_reads_the_header_alone(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", np.zeros((4410, 2)), 44_100)
    info = probe(tmp_path / "a.flac")
    assert (info.sample_rate, info.channels, info.frames, info.format) == (44_100, 2, 4410, "FLAC")
    assert info.seconds == pytest.approx(0.1)
    with pytest.raises(AudioError, match="no such file"):
        probe(tmp_path / "gone.wav")


def _shorten(path: Path, by: int) -> None:
    path.write_bytes(path.read_bytes()[:-by])


def _nan(path: Path) -> None:
    wave = TONE.copy()
    wave[7] = np.nan
    soundfile.write(path, wave, RATE, subtype="FLOAT")


BAD: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "missing": ("a.wav", lambda p: p.unlink(), "cannot be opened"),
    "0 bytes": ("a.wav", lambda p: p.write_bytes(b""), "0 bytes"),
    "0 s": ("a.wav", lambda p: soundfile.write(p, np.zeros(0), RATE), "0 s"),
    "text": ("a.wav", lambda p: p.write_text("hello"), "not readable"),
    "cut by one sample": ("a.wav", lambda p: _shorten(p, 2), "truncated"),
    "cut flac": ("a.flac", lambda p: _shorten(p, 4000), "not readable|truncated"),
    "8 channels": ("a.wav", lambda p: soundfile.write(p, np.zeros((99, 8)), RATE), "8 channels"),
    "192 kHz": ("a.wav", lambda p: soundfile.write(p, TONE, 192_000), "192000 Hz"),
    "2 kHz": ("a.wav", lambda p: soundfile.write(p, TONE, 2_000), "2000 Hz"),
    "NaN": ("a.wav", _nan, "1 NaN"),
    "too long": ("a.wav", lambda p: soundfile.write(p, np.tile(TONE, 11), RATE), "11 s, the limit is 10 s"),
    "too large": ("a.wav", lambda p: p.write_bytes(bytes(10**6 + 1)), "limit is 1000000"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used_is_refused_by_name(tmp_path: Path, case: str) -> None:
    name, spoil, reason = BAD[case]
    path = tmp_path / name
    soundfile.write(path, TONE, RATE)
    spoil(path)
    with pytest.raises(AudioError, match=reason) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_writing_is_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write"):
        write_wav(tmp_path / "file" / "a.wav", TONE)
    write_wav(tmp_path / "new" / "a.wav", TONE)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.wav"]


def test_a_rate_that_would_cost_hundreds_of_megabytes_is_refused_and_usual_ones_are_read(
    tmp_path: Path,
) -> None:
    path = tmp_path / "clip.wav"
    for rate in (
        4000,
        8000,
        11_025,
        12_000,
        16_000,
        22_050,
        24_000,
        32_000,
        37_800,
        44_100,
        48_000,
        88_200,
        96_000,
    ):
        write_wav(path, np.full(rate // 2, 0.1, np.float32), rate)
        assert abs(len(read_audio(path, max_seconds=5, max_bytes=10**6)) - 8000) <= 1
    for rate in (44_102, 15_999, 4001, 95_999):
        write_wav(path, np.full(rate // 2, 0.1, np.float32), rate)
        began = time.process_time()
        with pytest.raises(AudioError, match=f"{rate} Hz is no rate that recorders use"):
            read_audio(path, max_seconds=5, max_bytes=10**6)
        assert time.process_time() - began < 0.5
