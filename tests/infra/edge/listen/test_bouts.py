"""Hysteresis, least duration, pauses and abstention, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from infra.edge.listen.bouts import Bouts, Scores
from infra.edge.listen.config import ListenConfig
from infra.edge.listen.events import Bout, Event
from models.calibration import SiteCalibration
from models.errors import ConfigError

CALIBRATION = SiteCalibration("", gate_temperature=2.0, gate_threshold=0.5, energy_threshold=0.0)
CRY, ODD, NO = (6.0, -5.0), (6.0, 5.0), (-6.0, 0.0)


def play(
    script: list[tuple[float, float] | None], calibration: SiteCalibration = CALIBRATION, **changes: float
) -> list[Event]:
    """A frame a half second: (gate logit, energy), or None where nothing stands out."""
    bouts = Bouts(calibration, ("hungry", "tired"), ListenConfig(**changes))
    out: list[Event] = []
    end = 0
    for k, frame in enumerate(script):
        begin, end = 8_000 * k, 8_000 * k + 16_000
        if frame is None:
            out += bouts.quiet(end)
        else:
            out += bouts.heard(Scores(begin, end, *frame, np.array([1.0, float(k)])))[1]
    return out + bouts.finish(end)


def spans(events: list[Event]) -> list[tuple[str, float, float, str]]:
    return [(e.name, e.begin, e.end, e.ended_by) for e in events if isinstance(e, Bout) and e.phase == "end"]  # type: ignore[misc]


def test_a_bout_begins_and_ends_with_its_frames() -> None:
    """Five cries from 0 s: frames end at 1, 1.5, … 3; told at 1.5 s, when two frames make 1.5 s; over 3 s after the last."""
    events = play([CRY] * 5 + [None] * 8)
    begin, end = events
    assert isinstance(begin, Bout)
    assert isinstance(end, Bout)
    assert (begin.phase, begin.at, begin.begin) == ("begin", 1.5, 0.0)
    assert (end.phase, end.at, end.begin, end.end, end.seconds, end.ended_by) == (
        "end",
        6.0,
        0.0,
        3.0,
        3.0,
        "pause",
    )


def test_shorter_than_least_is_never_told() -> None:
    assert play([NO, NO] + [CRY] + [None] * 9) == []
    assert play([CRY] * 4, least_s=3.0) == []
    assert spans(play([CRY] * 5, least_s=3.0)) == [("bout", 0.0, 3.0, "end of stream")]


def test_pauses_join_or_part() -> None:
    """Two cries end at 1.5 s. The sixth frame without ends at 4.5 s, 3 s later."""
    joined = play([CRY] * 2 + [None] * 5 + [CRY] * 2)
    parted = play([CRY] * 2 + [None] * 6 + [CRY] * 2)
    assert spans(joined) == [("bout", 0.0, 5.0, "end of stream")]
    assert spans(parted) == [("bout", 0.0, 1.5, "pause"), ("bout", 4.0, 5.5, "end of stream")]


def test_the_mean_over_the_last_seconds_decides() -> None:
    """Eight frames in 4 s. After eight of −6, five of +6: the mean of the last eight passes 0 with the fourth (equal: p = 0.5).

    The bout is told then, from the first of the four on: they say so themselves.
    """
    events = play([NO] * 8 + [CRY] * 5)
    begin = events[0]
    assert isinstance(begin, Bout)
    assert (begin.at, begin.begin, begin.frames) == (6.5, 4.0, 4)
    assert begin.confidence == pytest.approx(0.5)


def test_one_loud_frame_does_not_make_a_bout() -> None:
    assert play([NO] * 6 + [(60.0, -5.0)] + [NO] * 6, smooth_s=1.0, least_s=1.5) == []


def test_hysteresis() -> None:
    """off_margin 1: a sound that passed at p = 0.5 passes down to p = 0.269, a logit of −2 at T = 2."""
    assert ListenConfig().off_threshold(0.5) == pytest.approx(1 / (1 + math.e))
    wavering = [CRY, CRY, CRY, *[(-1.8, -5.0)] * 20]
    assert spans(play(wavering, smooth_s=1.0)) == [("bout", 0.0, 12.0, "end of stream")]
    assert spans(play(wavering, smooth_s=1.0, off_margin=0.0)) == [("bout", 0.0, 2.0, "pause")]
    assert play([(-1.8, -5.0)] * 20) == []


def test_abstention_is_a_bout_of_its_own_kind() -> None:
    events = play([ODD] * 6)
    assert spans(events) == [("abstain", 0.0, 3.5, "end of stream")]
    assert all(e.reason is None and e.reasons == {} for e in events if isinstance(e, Bout))


def test_crying_that_grows_odd_ends_where_the_oddness_begins() -> None:
    """Energy is the mean of the last 4 s of cry-like frames: −5 (8 frames), then +5: above 0 with the fifth odd one, at 7.0 s."""
    events = play([CRY] * 8 + [ODD] * 8)
    (_, cry_end, odd_begin, _) = [e for e in events if isinstance(e, Bout)]
    assert (cry_end.name, cry_end.ended_by, cry_end.end) == ("bout", "other decision", 6.0)
    assert (odd_begin.name, odd_begin.begin, odd_begin.at) == ("abstain", 6.0, 7.5)


def test_noise_before_a_cry_does_not_make_it_odd() -> None:
    """Noise has an energy of 9. The mean of all frames would abstain at the onset."""
    events = play([(-3.0, 9.0)] * 8 + [CRY] * 8)
    assert [e.name for e in events] == ["bout", "bout"]


def test_the_end_scores_the_bout_as_one_clip() -> None:
    """Reason logits (1, k) for k = 0 … 3: mean (1, 1.5). Gate and energy: log mean exp, at a temperature of 2."""
    *_, end = play([(4.0, -1.0), (6.0, -2.0), (8.0, -3.0), (10.0, -4.0)])
    assert isinstance(end, Bout)
    assert end.frames == 4
    top = math.log(sum(math.exp(x) for x in (4.0, 6.0, 8.0, 10.0)) / 4)
    assert end.confidence == pytest.approx(1 / (1 + math.exp(-top / 2.0)))
    assert end.energy == pytest.approx(-math.log(sum(math.exp(x) for x in (1.0, 2.0, 3.0, 4.0)) / 4))
    assert end.reason == "tired"
    assert end.reasons["tired"] == pytest.approx(1 / (1 + math.exp(-0.5)))


def test_without_an_energy_threshold_nothing_is_odd() -> None:
    assert spans(play([ODD] * 4, SiteCalibration("", gate_threshold=0.5))) == [
        ("bout", 0.0, 2.5, "end of stream")
    ]


@pytest.mark.parametrize(("threshold", "expected"), [(0.0, 1), (1.0, 0)])
def test_thresholds_at_the_ends(threshold: float, expected: int) -> None:
    assert len(spans(play([NO] * 6, SiteCalibration("", gate_threshold=threshold)))) == expected


def test_sums_are_all_that_is_kept_of_a_long_bout() -> None:
    bouts = Bouts(CALIBRATION, ("hungry", "tired"), ListenConfig())
    for k in range(10_000):
        bouts.heard(Scores(8_000 * k, 8_000 * k + 16_000, *CRY, np.zeros(2)))
    assert len(bouts._recent) <= 9
    (end,) = bouts.finish(80_000_000)
    assert isinstance(end, Bout)
    assert end.frames == 10_000


@pytest.mark.parametrize(
    "change", [{"smooth_s": 0.5}, {"pause_s": -1.0}, {"least_s": float("nan")}, {"clipped_share": 2.0}]
)
def test_settings_out_of_range(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        ListenConfig(**change)
