"""Golden clips: the same everywhere, varied, no one's recording, and answered by the reference."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from infra.digest import digest_bytes
from infra.edge.golden import (
    COUNT,
    INPUTS,
    MAX_DIFFERENCE,
    OUTPUTS,
    Frames,
    choose,
    synthesise_frames,
    write_golden,
)
from infra.edge.runtime import Graph

FROZEN = "f794cedb2dd249d6"


@pytest.fixture(scope="module")
def frames() -> Frames:
    return synthesise_frames()


def test_the_frames_are_frozen(frames: Frames) -> None:
    """Raise FORMAT where they change: the digest of every release hangs on them."""
    assert (frames.shape, frames.dtype) == ((2 * COUNT, 16_000), np.float32)
    assert digest_bytes(frames.astype("<f4").tobytes()).startswith(FROZEN)
    assert np.array_equal(synthesise_frames(6), frames[:6])


def test_they_are_varied_and_on_the_16_bit_grid(frames: Frames) -> None:
    assert np.array_equal(frames * 32768, np.round(frames * 32768))
    assert np.abs(frames).max() <= 1
    level = 20 * np.log10(np.sqrt((frames.astype(float) ** 2).mean(1)))
    assert np.isfinite(level).all()
    assert level.max() - level.min() > 20
    assert len({f.tobytes() for f in frames}) == len(frames)


def test_undecided_frames_come_last() -> None:
    p = np.full(6, 0.9, np.float32)
    p[0] = 0.5 + MAX_DIFFERENCE / 2
    share = np.array([[0.8, 0.1, 0.1]] * 6, np.float32)
    share[2] = [0.4, 0.39, 0.21]
    assert choose({"gate_probability": p}, 3).tolist() == [1, 2, 3]
    assert choose({"gate_probability": p, "reason_probabilities": share}, 3).tolist() == [1, 3, 4]
    assert choose({"gate_probability": p, "reason_probabilities": share}, 5).tolist() == [0, 1, 3, 4, 5]
    one = np.ones((6, 1), np.float32)
    assert choose({"gate_probability": p, "reason_probabilities": one}, 3).tolist() == [1, 2, 3]


@pytest.mark.parametrize("which", ["tiny_graph", "gate_graph"])
def test_the_files_hold_what_the_reference_answers(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    graph = request.getfixturevalue(which)
    paths = write_golden(tmp_path / "a", graph)
    assert set(paths) == {INPUTS, OUTPUTS}
    assert paths[INPUTS].stat().st_size == COUNT * 16_000 * 4
    inputs = np.frombuffer(paths[INPUTS].read_bytes(), "<f4").reshape(COUNT, 16_000)
    answers = json.loads(paths[OUTPUTS].read_bytes())
    outputs = Graph(graph.read_bytes()).run(inputs)
    names = {"gate_probability", "energy"} | ({"reason_probabilities"} if which == "tiny_graph" else set())
    assert set(answers) == {"format", "frames", "max_difference", *names}
    for name in names:
        assert np.abs(outputs[name] - np.array(answers[name])).max() < 1e-5
    again = write_golden(tmp_path / "b", graph)
    assert {n: p.read_bytes() for n, p in paths.items()} == {n: p.read_bytes() for n, p in again.items()}
