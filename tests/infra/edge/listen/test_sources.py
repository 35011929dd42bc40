"""Files of any length, pipes that stall, and a microphone's recorder with its troubles."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import soundfile

from infra.edge.listen.sources import Block, Lost, Microphone, Pcm, Pipe, file_blocks, paced
from models.errors import AudioError, ConfigError
from tests.infra.edge.listen.sounds import noise, tone

# files


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg"])
def test_files_come_in_blocks(name: str, tmp_path: Path) -> None:
    wave = np.stack([tone(2.34, rate=22_050), noise(2.34, rate=22_050)], 1)
    soundfile.write(tmp_path / name, wave, 22_050)
    blocks = list(file_blocks(tmp_path / name))
    assert all(isinstance(b, Block) and b.rate == 22_050 and len(b.samples) <= 2_205 for b in blocks)
    whole, _ = soundfile.read(tmp_path / name, dtype="float32")
    assert np.array_equal(np.concatenate([b.samples for b in blocks]), whole)  # type: ignore[union-attr]


def test_a_float_file_may_hold_nan(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.array([0.1, np.nan, 0.1], np.float32), 16_000, subtype="FLOAT")
    (block,) = file_blocks(tmp_path / "a.wav")
    assert isinstance(block, Block)
    assert np.isnan(block.samples[1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "no such file"),
        (lambda p: p.write_bytes(b""), "not readable"),
        (lambda p: p.write_text("not audio"), "not readable"),
        (lambda p: soundfile.write(p, np.zeros((0, 1)), 16_000), "0 s of audio"),
        (lambda p: soundfile.write(p, np.zeros((100, 4)), 16_000), "4 channels"),
        (lambda p: soundfile.write(p, np.zeros(100), 192_000), "192000 Hz"),
    ],
)
def test_files_that_cannot_be_heard(make, message: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    make(tmp_path / "a.wav")
    with pytest.raises(AudioError, match=message):
        list(file_blocks(tmp_path / "a.wav"))


def test_what_comes_before_the_damage_is_heard(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", noise(5), 16_000)
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    (tmp_path / "a.flac").write_bytes(data)
    heard = 0
    with pytest.raises(AudioError, match="damaged after"):  # noqa: PT012
        for block in file_blocks(tmp_path / "a.flac"):
            heard += len(block.samples)  # type: ignore[union-attr]
    assert 16_000 < heard < 64_000


def test_pacing_is_that_of_the_recording() -> None:
    blocks = [Block(tone(0.1)[:, None], 16_000)] * 3 + [Lost(0.1, "test")]
    began = time.monotonic()
    assert len(list(paced(iter(blocks)))) == 4
    assert 0.38 <= time.monotonic() - began < 1.5


# raw samples


@pytest.mark.parametrize(
    ("encoding", "raw", "value"),
    [("s16", np.int16(-(2**15)), -1.0), ("s32", np.int32(2**30), 0.5), ("f32", np.float32(0.25), 0.25)],
)
def test_encodings(encoding: str, raw: np.generic, value: float) -> None:
    block = Pcm(8_000, 2, encoding).decode(np.array([raw, 0, 0, raw]).astype(raw.dtype).tobytes())  # type: ignore[arg-type]
    assert np.array_equal(block.samples, np.array([[value, 0], [0, value]], np.float32))
    assert block.rate == 8_000


@pytest.mark.parametrize("pcm", [{"rate": 100}, {"channels": 3}, {"channels": 0}, {"encoding": "u8"}])
def test_layouts_that_are_refused(pcm: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"choose"):
        Pcm(**pcm)  # type: ignore[arg-type]


@pytest.fixture
def pipe() -> Iterator[tuple[IO[bytes], Pipe]]:
    reading, writing = os.pipe()
    source = Pipe(os.fdopen(reading, "rb", buffering=0), Pcm(), stall_s=0.5)
    with os.fdopen(writing, "wb", buffering=0) as end:
        yield end, source
    source.release()


def test_a_pipe_of_odd_pieces(pipe: tuple[IO[bytes], Pipe]) -> None:
    """Pieces that cut samples in two; the half sample at the end is dropped."""
    writing, source = pipe
    wave = (1000 * noise(0.5, level=1.0)).astype("<i2")

    def write() -> None:
        data = wave.tobytes() + b"x"
        for at in range(0, len(data), 777):
            writing.write(data[at : at + 777])
        writing.close()

    threading.Thread(target=write, daemon=True).start()
    heard = np.concatenate([b.samples[:, 0] for b in source if isinstance(b, Block)])
    assert np.array_equal((heard * 2**15).astype("<i2"), wave)


def test_a_stall_is_told_as_it_lasts(pipe: tuple[IO[bytes], Pipe]) -> None:
    writing, source = pipe

    def write() -> None:
        writing.write(bytes(3_200))
        time.sleep(1.3)
        writing.write(bytes(3_200))
        writing.close()

    threading.Thread(target=write, daemon=True).start()
    items = list(source)
    assert isinstance(items[0], Block)
    assert isinstance(items[-1], Block)
    lost = [i for i in items if isinstance(i, Lost)]
    assert len(lost) >= 2
    assert all(i.why == "no samples arrive" for i in lost)
    assert sum(i.seconds for i in lost) == pytest.approx(1.2, abs=0.4)


def test_closing_ends_a_pipe_that_waits(pipe: tuple[IO[bytes], Pipe]) -> None:
    _, source = pipe
    threading.Timer(0.2, source.close).start()
    assert all(isinstance(i, Lost) for i in source)


def test_a_pipe_that_nobody_reads_does_not_fill_memory() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    source = Pipe(os.fdopen(reading, "rb", buffering=0), Pcm())
    written = 0
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        try:
            written += os.write(writing, bytes(32_000))
        except BlockingIOError:
            time.sleep(0.02)
    os.close(writing)
    source.release()
    assert written < 32_000 * 10 + 70_000 + 3_200  # the queue of 10 s, the pipe, the block in between


# the microphone: `arecord` played by a script


@pytest.fixture
def arecord(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """`arecord(script)` puts a shell script in its place."""

    def make(script: str) -> Path:
        program = tmp_path / "bin/arecord"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\necho "$@" > "{tmp_path}/arguments"\n{script}\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        return tmp_path / "arguments"

    return make


def _hear(microphone: Microphone) -> tuple[list[Block | Lost], str]:
    items: list[Block | Lost] = []
    with pytest.raises(AudioError) as err:  # noqa: PT012
        for item in microphone:
            items.append(item)
    return items, str(err.value)


def test_the_microphone(arecord) -> None:  # type: ignore[no-untyped-def]
    arguments = arecord("head -c 32000 /dev/zero; echo 'arecord: main: no such device' >&2")
    items, error = _hear(Microphone(device="plughw:1", pcm=Pcm(48_000, 2)))
    assert arguments.read_text().split() == [
        "-t",
        "raw",
        "-f",
        "S16_LE",
        "-r",
        "48000",
        "-c",
        "2",
        "-D",
        "plughw:1",
    ]
    assert sum(len(i.samples) for i in items if isinstance(i, Block)) == 8_000
    assert "no such device" in error
    assert "arecord -l" in error


def test_dropped_samples_are_counted(arecord) -> None:  # type: ignore[no-untyped-def]
    arecord(
        "head -c 3200 /dev/zero; echo 'overrun!!! (at least 1234.500 ms long)' >&2; sleep 0.5; head -c 3200 /dev/zero"
    )
    items, _ = _hear(Microphone())
    assert [i.seconds for i in items if isinstance(i, Lost)] == [1.2345]


def test_another_rate_than_asked_for_is_an_error(arecord) -> None:  # type: ignore[no-untyped-def]
    arecord("echo 'Warning: rate is not accurate (requested = 16000Hz, got = 48000Hz)' >&2; exec sleep 30")
    _, error = _hear(Microphone())
    assert "records at 48000 Hz, not 16000" in error
    assert "--rate 48000" in error


def test_closing_ends_the_recorder(arecord) -> None:  # type: ignore[no-untyped-def]
    arecord("exec cat /dev/zero")
    microphone = Microphone()
    items = iter(microphone)
    assert isinstance(next(items), Block)
    microphone.close()
    assert microphone._process.poll() is not None
    for _ in items:
        pass


def test_without_a_recorder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AudioError, match="install alsa-utils"):
        Microphone()
