"""Alarms against bouts: counted by hand."""

from __future__ import annotations

import numpy as np

from infra.evidence.alarm_matching import exposure_hours, match
from infra.evidence.alarms import Alarms
from infra.evidence.soundscape import TrueBout


def alarms(*rows: tuple[float, float, float]) -> Alarms:
    return (
        Alarms(*(np.array(c, float) for c in zip(*rows, strict=True))) if rows else Alarms(*[np.zeros(0)] * 3)
    )


def bout(begin: float, end: float) -> TrueBout:
    return TrueBout(begin, end, "infant", "real", 10.0)


def test_found_false_latency_and_the_tolerance(track_of) -> None:
    track = track_of(
        [0.0] * 200, bouts=(bout(10, 20), bout(40, 50), bout(70, 80)), background=[0] * 150 + [1] * 51
    )
    m = match(
        alarms((5, 7, 6), (12, 21, 13.5), (51.5, 53, 52.5), (54, 60, 55), (90, 92, 91)),
        track,
        tolerance_s=2.0,
    )
    # the first ends 3 s before its bout, the third begins 1.5 s after the second bout, the fourth 4 s after
    assert m.found.tolist() == [True, True, False]
    assert m.false.tolist() == [True, False, False, True, True]
    np.testing.assert_array_equal(m.latency, [3.5, 12.5, np.nan])
    # 5 and 54 s lie in the first group's 75 s, 90 s in the second's
    assert m.false_by_group.tolist() == [2.0, 1.0]
    # outside of [8, 22], [38, 52] and [68, 82]: 5–7, 52–53, 54–60 and 90–92
    assert m.false_seconds_by_group.tolist() == [9.0, 2.0]


def test_intervals_that_only_touch_do_not_overlap(track_of) -> None:
    track = track_of([0.0] * 60, bouts=(bout(10, 20),))
    m = match(alarms((7, 8, 8), (22, 25, 23)), track, tolerance_s=2.0)
    assert not m.found.any()
    assert m.false.all()
    assert match(alarms((7, 8.001, 8)), track, tolerance_s=2.0).found.all()


def test_one_alarm_can_find_two_bouts_and_is_early_for_the_second(track_of) -> None:
    track = track_of([0.0] * 60, bouts=(bout(5, 10), bout(14, 20)))
    m = match(alarms((4, 21, 6)), track, tolerance_s=0.0)
    assert m.found.all()
    assert m.latency.tolist() == [1.0, 0.0]
    assert not m.false.any()


def test_an_endless_alarm_is_not_free(track_of) -> None:
    track = track_of([0.0] * 200, bouts=(bout(10, 20),))
    m = match(alarms((0, 100, 1)), track, tolerance_s=0.0)
    assert m.found.all()
    assert m.false_by_group.sum() == 0
    assert m.false_seconds_by_group.sum() == 90.0


def test_without_alarms_all_is_missed_and_without_bouts_all_is_false(track_of) -> None:
    assert not match(alarms(), track_of([0.0] * 60, bouts=(bout(5, 6),))).found.any()
    m = match(alarms((1, 2, 2)), track_of([0.0] * 60))
    assert (len(m.found), m.false.tolist()) == (0, [True])


def test_hours_without_crying_by_group(track_of) -> None:
    track = track_of([0.0] * 79, bouts=(bout(10.2, 19.7),), background=[0] * 40 + [1] * 40)
    # half seconds that a bout touches are no quiet: 10 to 20 s, of the first group's 20
    np.testing.assert_allclose(exposure_hours(track) * 3600, [10.0, 20.0])
    assert track.quiet_hours * 3600 == 30.0
