"""The whole of listening, without I/O: the same events however samples arrive, and every mishap."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from infra.edge.listen.config import ListenConfig
from infra.edge.listen.detector import Detector
from models.calibration import SiteCalibration
from models.errors import AudioError
from tests.infra.edge.listen.sounds import (
    CALIBRATION,
    REASONS,
    detector,
    hear,
    noise,
    odd,
    score,
    silence,
    told,
    tone,
)


def _stream(seed: int, rate: int) -> np.ndarray:
    """Ten seconds or so of everything that may happen, in two channels."""
    rng = np.random.default_rng(seed)
    kinds = [
        lambda s: tone(s, rate=rate),
        lambda s: tone(s, 1500.0, rate=rate),
        lambda s: noise(s, rate=rate, seed=seed),
        lambda s: silence(s, rate),
        lambda s: tone(s, level=1.0, rate=rate).round(),
        lambda s: np.full(round(s * rate), np.nan, np.float32),
    ]
    parts = [kinds[rng.integers(len(kinds))](float(rng.uniform(0.01, 3.0))) for _ in range(8)]
    wave = np.concatenate(parts)
    return np.stack([wave, 0.5 * wave], 1)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rate=st.sampled_from([8_000, 16_000, 44_100]),
    cuts=st.lists(st.integers(0, 200_000), max_size=40),
)
def test_the_same_events_whatever_the_block_size(seed: int, rate: int, cuts: list[int]) -> None:
    stream = _stream(seed, rate)
    whole, pieces = detector(), detector()
    expected = whole.feed(stream, rate) + whole.finish()
    blocks = np.split(stream, sorted(c % len(stream) for c in cuts))
    found = [e for b in blocks for e in pieces.feed(b, rate)]
    assert found + pieces.finish() == expected
    assert pieces.seconds == whole.seconds == pytest.approx(len(stream) / rate, abs=1e-3)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
@example(seed=585)  # a bout that ends with the first frame behind a gap
@example(seed=97)  # … and one that ends in the last half second, behind a gap
def test_what_begins_ends_and_time_never_runs_back(seed: int) -> None:
    rows = [e.to_dict() for e in hear(_stream(seed, 16_000))]
    times = [r["at"] for r in rows]
    assert times == sorted(times)
    begun: dict[str, float] = {}
    for row in rows:
        key = row["event"] + row.get("problem", "")
        if row.get("phase") == "begin":
            assert key not in begun
            begun[key] = row.get("begin", row["at"])
        elif row.get("phase") == "end":
            began = begun.pop(key)
            assert began == row.get("begin", began)  # the end of a problem does not repeat its begin
            assert began <= row.get("end", row["at"]) <= row["at"]
        assert not {"bout", "abstain"} <= set(begun)
    assert not begun


def test_one_sample_at_a_time() -> None:
    wave = np.concatenate([noise(0.5), tone(1.6)])
    listening = detector()
    single = [e for x in wave for e in listening.feed(np.array([x], np.float32))]
    assert single + listening.finish() == hear(wave)


def test_a_cry_in_a_noisy_room() -> None:
    """Noise up to 6 s, a cry up to 12 s, then noise again."""
    begin, end = told(hear(noise(6), tone(6), noise(6, seed=1)), "bout", "abstain")
    assert (begin["phase"], begin["reason"]) == ("begin", "hungry")
    assert begin["begin"] == pytest.approx(6.0, abs=0.6)
    assert begin["at"] - 6.0 <= 2.5
    assert end["end"] == pytest.approx(12.0, abs=1.0)
    assert end["ended_by"] == "pause"
    assert end["confidence"] > 0.99


def test_a_sound_unlike_any_cry_is_abstained_from() -> None:
    rows = told(hear(noise(3), odd(5), noise(5, level=1e-5)))
    assert [(r["event"], r.get("phase")) for r in rows] == [("abstain", "begin"), ("abstain", "end")]
    assert all("reason" not in r for r in rows)


def test_every_frame_says_what_it_rests_on() -> None:
    frames = told(hear(silence(2), tone(2)), "frame")
    assert [f["at"] for f in frames] == [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0]
    assert [f.get("decision") for f in frames] == [None, None, None, "cry", "cry", "cry", "cry"]
    assert set(frames[-1]["reasons"]) == set(REASONS)
    assert {"confidence", "own", "energy", "why", "rms_dbfs", "active", "clipped"} <= set(frames[-1])


def test_levels_come_ten_times_a_second() -> None:
    levels = told(hear(tone(1.0, level=0.5)), "level")
    assert [r["at"] for r in levels] == [round(0.1 * k, 1) for k in range(1, 11)]
    assert levels[3]["rms_dbfs"] == pytest.approx(20 * np.log10(0.5) - 3.0, abs=0.1)
    assert levels[3]["peak_dbfs"] == pytest.approx(20 * np.log10(0.5), abs=0.1)


# what may happen to a stream


def test_it_ends_mid_frame() -> None:
    """2.8 s: frames end at 1, 1.5, 2 and 2.5 s, and one is aligned to the end."""
    events = hear(tone(2.8))
    assert [f["end"] for f in told(events, "frame")] == [1.0, 1.5, 2.0, 2.5, 2.8]
    _, end = told(events, "bout")
    assert (end["end"], end["ended_by"]) == (2.8, "end of stream")


def test_it_ends_before_it_began() -> None:
    assert hear() == []
    assert hear(np.zeros(0, np.float32)) == []


def test_a_stall_is_a_gap_that_ends_the_bout() -> None:
    """3 s of crying, 5 s without samples, told one by one, then crying again: known from its first whole second."""
    listening = detector()
    rows = told(listening.feed(tone(3)))
    for _ in range(5):
        rows += told(listening.lost(1.0, "no samples arrive"))
    rows += told(listening.feed(tone(2))) + told(listening.finish())
    assert [(r["event"], r["phase"], r["at"]) for r in rows] == [
        ("bout", "begin", 1.5), ("gap", "begin", 3.0), ("bout", "end", 6.0), ("gap", "end", 9.0),
        ("bout", "begin", 9.5), ("bout", "end", 10.0),
    ]  # fmt: skip
    assert rows[2]["ended_by"] == "gap"
    assert rows[2]["end"] == 3.0
    assert (rows[3]["begin"], rows[3]["end"], rows[3]["seconds"]) == (3.0, 8.0, 5.0)
    assert rows[4]["begin"] == 8.0


def test_a_short_gap_does_not_end_a_bout_and_no_frame_touches_it() -> None:
    wave = tone(8)
    wave[64_000:65_600] = np.nan  # 4.0 to 4.1 s
    events = hear(wave)
    assert [(r["event"], r["phase"]) for r in told(events)] == [
        ("bout", "begin"), ("gap", "begin"), ("gap", "end"), ("bout", "end"),
    ]  # fmt: skip
    assert [r["seconds"] for r in told(events, "gap") if r["phase"] == "end"] == [0.1]
    spans = [(f["begin"], f["end"]) for f in told(events, "frame")]
    assert not [s for s in spans if s[0] < 4.1 and s[1] > 4.0]
    assert (3.0, 4.0) in spans
    assert (4.1, 5.1) in spans


def test_a_stuttering_source_is_one_gap() -> None:
    """Every 200 ms a sample that is not finite: no whole second anywhere, so nothing is known, once."""
    wave = tone(20)
    wave[::3_200] = np.nan
    rows = told(hear(wave))
    assert [(r["event"], r["phase"]) for r in rows] == [("gap", "begin"), ("gap", "end")]
    assert rows[1]["seconds"] == pytest.approx(100 / 16_000, abs=1e-3)
    assert rows[1]["end"] == pytest.approx(19.8, abs=0.01)


def test_nothing_but_nan() -> None:
    rows = told(hear(np.full(160_000, np.nan, np.float32)), "gap", "frame", "level", "bout")
    assert [(r["event"], r["phase"]) for r in rows] == [("gap", "begin"), ("gap", "end")]
    assert rows[1]["seconds"] == 10.0


def test_clipping_is_told_once_and_its_end_too() -> None:
    rows = told(hear(tone(8, level=3.0).clip(-1, 1), tone(12)), "quality")
    assert [(r["problem"], r["phase"]) for r in rows] == [("clipping", "begin"), ("clipping", "end")]
    assert rows[0]["at"] == 5.0
    assert "lower the recording level" in rows[0]["why"]
    assert 12.0 < rows[1]["at"] <= 13.1


def test_a_dead_microphone_is_no_quiet_room() -> None:
    rows = told(hear(noise(2), silence(8), noise(2)), "quality")
    assert [(r["problem"], r["phase"], r["at"]) for r in rows] == [
        ("silence", "begin", 7.0),
        ("silence", "end", 10.1),
    ]
    assert told(hear(noise(20, level=1e-6)), "quality") == []


def test_the_rate_may_change_on_the_way() -> None:
    listening = detector()
    events = [
        *listening.feed(tone(2, rate=48_000), 48_000),
        *listening.feed(tone(2, rate=8_000), 8_000),
        *listening.feed(tone(2, rate=44_100), 44_100),
        *listening.finish(),
    ]
    assert listening.seconds == 6.0
    begin, end = told(events)
    assert (begin["begin"], end["end"]) == (0.0, 6.0)


def test_a_block_that_cannot_be_heard_changes_nothing() -> None:
    listening = detector()
    events = listening.feed(tone(2))
    for block, rate in ((np.zeros((100, 5), np.float32), 16_000), (np.zeros(100, np.float32), 1)):
        with pytest.raises(AudioError):
            listening.feed(block, rate)
    assert events + listening.feed(tone(3)) + listening.finish() == hear(tone(2), tone(3))


def test_a_model_that_gives_no_finite_score() -> None:
    def broken(frames: np.ndarray) -> dict[str, np.ndarray]:
        out = score(frames)
        return {**out, "energy": np.full_like(out["energy"], np.nan)} if frames.std() > 0.25 else out

    listening = Detector(broken, CALIBRATION, REASONS)
    rows = told(listening.feed(tone(4, level=0.5)) + listening.feed(tone(4)) + listening.finish())
    assert [(r["event"], r.get("problem"), r["phase"]) for r in rows] == [
        ("quality", "score", "begin"), ("quality", "score", "end"), ("bout", None, "begin"), ("bout", None, "end"),
    ]  # fmt: skip


def test_without_a_reason_head() -> None:
    def gate_only(frames: np.ndarray) -> dict[str, np.ndarray]:
        out = score(frames)
        return {"gate_logit": out["gate_logit"], "energy": out["energy"]}

    listening = Detector(gate_only, SiteCalibration(""), ())
    begin, end = told(listening.feed(tone(3)) + listening.finish())
    assert "reason" not in begin
    assert end["reasons"] == {}


def test_a_long_cry_is_one_bout() -> None:
    """Bursts of 0.8 s with breaths of 0.6 s, two minutes long."""
    burst = np.concatenate([tone(0.8), noise(0.6, level=0.001)])
    rows = told(hear(np.tile(burst, 86), noise(5, level=1e-5)))
    assert [r["phase"] for r in rows] == ["begin", "end"]
    assert rows[1]["seconds"] == pytest.approx(120.0, abs=1.0)


def test_memory_is_flat() -> None:
    """What is held after 6 minutes is what was held after 2."""
    listening = Detector(score, CALIBRATION, REASONS, cfg=ListenConfig())
    minute = np.concatenate([noise(20), tone(20), odd(5), silence(10), np.full(80_000, np.nan, np.float32)])
    held = []
    tracemalloc.start()
    try:
        for turn in range(6):
            for block in np.array_split(minute, 60):
                listening.feed(block)
            if turn in (1, 5):
                held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert listening.seconds == 6 * 60.0
    assert held[1] - held[0] < 50_000
