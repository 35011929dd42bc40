"""Recordings that were damaged or made to harm: read whole or refused as an `AudioError`, in bounded memory, without a crash.

The reading happens in a process of its own, so that a crash inside libsndfile is a failed test and not the end of all tests.
"""

from __future__ import annotations

import io
import multiprocessing
import random
import resource
import struct
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from infra.data.audio import read_audio
from infra.edge.listen.sources import Block, file_blocks
from models.errors import AudioError

MAX_SECONDS = 60.0
MAX_BYTES = 2**20
HANGS_S = 60.0  # on one mutant: they take milliseconds
GROWTH_MIB = (
    256.0  # what 60 s of 96 kHz stereo float32 take, decoded, averaged and resampled, and as much again
)
KINDS = (
    ("WAV", "PCM_16", 16_000, 1),
    ("WAV", "PCM_24", 44_100, 2),
    ("WAV", "FLOAT", 8_000, 1),
    ("WAV", "ULAW", 8_000, 1),
    ("WAV", "IMA_ADPCM", 16_000, 1),
    ("WAV", "GSM610", 8_000, 1),
    ("WAVEX", "PCM_16", 16_000, 2),
    ("FLAC", "PCM_16", 16_000, 1),
)
Mutation = Callable[[bytearray, random.Random], None]


def recordings() -> list[bytes]:
    """A quarter of a second in every encoding."""
    made = []
    for container, subtype, rate, channels in KINDS:
        wave = 0.5 * np.sin(2 * np.pi * 400 * np.arange(rate // 4) / rate)
        file = io.BytesIO()
        soundfile.write(file, np.tile(wave[:, None], (1, channels)), rate, format=container, subtype=subtype)
        made.append(file.getvalue())
    return made


def flip(data: bytearray, rng: random.Random) -> None:
    """A bit, in the header more often than not."""
    at = rng.randrange(min(len(data), 80) if rng.random() < 0.7 else len(data))
    data[at] ^= 1 << rng.randrange(8)


def number(data: bytearray, rng: random.Random) -> None:
    """A header's field becomes a number at some edge."""
    value = rng.choice([0, 1, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF])
    at = rng.randrange(min(len(data), 80))
    data[at : at + 4] = struct.pack(rng.choice(["<I", ">I"]), value)


def cut(data: bytearray, rng: random.Random) -> None:
    """The end is missing."""
    del data[rng.randrange(len(data)) :]


def drop(data: bytearray, rng: random.Random) -> None:
    """Some bytes are missing in the middle."""
    at = rng.randrange(len(data))
    del data[at : at + rng.choice([1, 2, 4, 16, 256])]


def chunk(data: bytearray, rng: random.Random) -> None:
    """A chunk more, with a size of its own choice."""
    name = rng.choice(
        [b"fmt ", b"data", b"fact", b"LIST", b"cue ", b"smpl", b"bext", b"PEAK", b"JUNK", b"RIFF"]
    )
    size = rng.choice([0, 1, 16, 40, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF])
    at = rng.choice([0, 12, 36, 44, len(data)])
    data[at:at] = name + struct.pack("<I", size) + rng.randbytes(rng.choice([0, 4, 16, 40]))


def poison(data: bytearray, rng: random.Random) -> None:
    """Samples become NaN or infinite, where samples are floats."""
    at = max(0, len(data) - 4 * rng.randrange(1, 1000))
    data[at : at + 4] = struct.pack("<f", rng.choice([np.nan, np.inf, -np.inf]))


MUTATIONS: tuple[Mutation, ...] = (flip, number, cut, drop, chunk, poison)


def whole(path: Path) -> None:
    """As training reads a clip."""
    wave = read_audio(path, max_seconds=MAX_SECONDS, max_bytes=MAX_BYTES)
    assert wave.dtype == np.float32
    assert wave.ndim == 1
    assert np.isfinite(wave).all()
    assert 0 < len(wave) <= MAX_SECONDS * 16_000 + 1


def in_blocks(path: Path) -> None:
    """As a device listens to a file."""
    for item in file_blocks(path):
        assert not isinstance(item, Block) or item.samples.ndim == 2


def outcomes(cases: int, seed: int, folder: Path) -> Counter[str]:
    """How many mutants were read and how many refused, by either reader; whatever else happens is an error."""
    rng, originals, seen = random.Random(seed), recordings(), Counter[str]()
    path = folder / "mutant.wav"
    for _ in range(cases):
        data = bytearray(rng.choice(originals))
        for _ in range(rng.randint(1, 3)):
            if data:
                rng.choice(MUTATIONS)(data, rng)
        path.write_bytes(data)
        for reader, done in ((whole, "read"), (in_blocks, "heard")):
            outcome, message = done, str(path)
            try:
                reader(path)
            except AudioError as err:
                outcome, message = f"not {done}", str(err)
            assert str(path) in message
            assert len(message) < 1000
            seen[outcome] += 1
    return seen


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def _child(
    cases: int, seed: int, folder: Path, answers: multiprocessing.Queue[tuple[Counter[str], float]]
) -> None:
    outcomes(20, 0, folder)  # what imports and first calls take is not a mutant's doing
    before = _peak_mib()
    answers.put((outcomes(cases, seed, folder), _peak_mib() - before))


def bounded(cases: int, seed: int, folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    child = context.Process(target=_child, args=(cases, seed, folder, answers), daemon=True)
    mutant, begun = folder / "mutant.wav", time.time()
    child.start()
    try:
        while child.is_alive():
            child.join(1.0)
            last = mutant.stat().st_mtime if mutant.exists() else begun  # it is written anew for every case
            assert not child.is_alive() or time.time() - last < HANGS_S, f"it hangs on {mutant}"
        assert child.exitcode == 0, f"exit code {child.exitcode}, below 0 it crashed; see {mutant}"
        seen, growth = answers.get(timeout=10)
    finally:
        child.kill()
        child.join()
    assert seen["read"] + seen["not read"] == seen["heard"] + seen["not heard"] == cases
    assert seen["read"] > cases // 20, seen
    assert seen["not read"] > cases // 3, seen
    assert growth < GROWTH_MIB, growth


def test_a_thousand_mutants(tmp_path: Path) -> None:
    bounded(1_000, 1, tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_mutants(tmp_path: Path) -> None:
    bounded(100_000, 2, tmp_path)
