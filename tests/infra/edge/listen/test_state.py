"""What is going on now, from the events alone."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from infra.edge.listen.run import listen
from infra.edge.listen.sources import Block, Item, Lost
from infra.edge.listen.state import RECENT, State
from models.errors import AudioError
from tests.infra.edge.listen.sounds import detector, noise, odd, silence, tone

RELEASE = {"release": "0" * 64, "site": None, "trained_on_synthetic": True, "reasons": ["hungry", "tired"]}


def play(*items: Item) -> tuple[State, list[str], list[dict[str, Any]]]:
    """The state after a stream, the words on the way, and all events."""
    state = State()
    words: list[str] = []
    rows: list[dict[str, Any]] = []

    def sink(row: dict[str, Any]) -> None:
        state.apply(json.loads(json.dumps(row, allow_nan=False)))
        rows.append(row)
        if not words or words[-1] != state.word:
            words.append(state.word)

    listen(items, detector(), sink, source="test", release=RELEASE)
    return state, words, rows


def block(wave: np.ndarray) -> Block:
    return Block(wave[:, None], 16_000)


def test_the_words_of_a_night() -> None:
    state, words, _ = play(
        block(silence(2)), block(noise(5)), block(tone(5)), block(noise(5, level=1e-5)), Lost(4.0, "no samples arrive"),
        block(odd(4)),
    )  # fmt: skip
    assert words == [
        "starting",
        "quiet",
        "sound",
        "cry",
        "quiet",
        "no signal",
        "starting",
        "sound",
        "abstain",
        "sound",
        "ended",
    ]
    assert [r["event"] for r in state.snapshot()["recent"]] == ["bout", "gap", "abstain"]


def test_begin_and_end_of_the_stream() -> None:
    _, _, rows = play(block(tone(3)), Lost(5.0, "overrun"), block(tone(2)))
    first, last = rows[0], rows[-1]
    assert (first["event"], first["phase"], first["source"], first["release"]) == (
        "stream",
        "begin",
        "test",
        "0" * 64,
    )
    assert (last["seconds"], last["bouts"], last["gaps"], last["lost_s"], last["error"]) == (
        10.0,
        2,
        1,
        5.0,
        None,
    )


def test_an_error_ends_the_stream_and_what_was_open() -> None:
    def breaking() -> Any:
        yield block(tone(3))
        raise AudioError("the cable fell out")

    rows: list[dict[str, Any]] = []
    assert not listen(breaking(), detector(), rows.append, source="test", release=RELEASE)
    assert rows[-1]["error"] == "the cable fell out"
    assert [r["phase"] for r in rows if r["event"] == "bout"] == ["begin", "end"]
    state = State()
    for row in rows:
        state.apply(row)
    assert state.word == "failed"


def test_an_interrupt_is_told_and_passed_on() -> None:
    def interrupted() -> Any:
        yield block(tone(3))
        raise KeyboardInterrupt

    rows: list[dict[str, Any]] = []
    with pytest.raises(KeyboardInterrupt):
        listen(interrupted(), detector(), rows.append, source="test", release=RELEASE)
    assert rows[-1]["stopped"] is True
    assert [r["phase"] for r in rows if r["event"] == "bout"] == ["begin", "end"]


def test_a_new_stream_is_a_new_state() -> None:
    state, _, rows = play(block(tone(3)))
    state.apply(rows[0])
    assert state.word == "starting"
    assert state.snapshot()["recent"] == []


def test_a_problem_of_the_recording_stands_until_it_ends() -> None:
    state = State()
    state.apply({"event": "quality", "phase": "begin", "problem": "clipping", "why": "loud", "at": 1.0})
    assert list(state.snapshot()["open"]) == ["quality:clipping"]
    state.apply({"event": "quality", "phase": "end", "problem": "clipping", "why": "over", "at": 2.0})
    assert state.snapshot()["open"] == {}


def test_its_size_is_bounded() -> None:
    state = State()
    for k in range(10 * RECENT):
        for phase in ("begin", "end"):
            state.apply({"event": "gap", "phase": phase, "at": float(k), "begin": float(k), "why": "test"})
    assert len(state.snapshot()["recent"]) == RECENT
