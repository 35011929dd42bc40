"""Alarms: each rule by hand, and hysteresis event for event as the device's."""

from __future__ import annotations

import numpy as np
import pytest

from infra.edge.listen.bouts import Bouts, Scores
from infra.edge.listen.config import ListenConfig
from infra.edge.listen.events import Bout
from infra.evidence.alarms import Replay, Rule
from models.calibration import SiteCalibration
from models.config import SAMPLE_RATE
from models.errors import ConfigError
from models.metrics import sigmoid

LOW, HIGH, GONE = -2.0, 2.0, np.nan


def test_a_frame_rule_joins_what_is_closer_than_the_pause(track_of) -> None:
    # frames end at 1, 1.5, 2 … s; high ones end at 2, 2.5 and, 2 s on, 4.5: a pause of 3 s joins them
    logit = [LOW, LOW, HIGH, HIGH, LOW, LOW, LOW, HIGH, *[LOW] * 8, HIGH]
    alarms = Replay(track_of(logit)).alarms(Rule("frame"), 0.0)
    assert alarms.begin.tolist() == [1.0, 8.0]
    assert alarms.end.tolist() == [4.5, 9.0]
    assert alarms.at.tolist() == [2.0, 9.0]


def test_what_was_not_scored_supports_nothing_and_counts_for_no_mean(track_of) -> None:
    replay = Replay(track_of([HIGH, GONE, GONE, LOW]))
    mean = replay.smoothed(Rule("mean", window_s=2.0))
    # the first frame ends 1.5 s before the last: within two seconds
    np.testing.assert_array_equal(mean, [HIGH, 0.0])
    short = replay.smoothed(Rule("mean", window_s=1.5))
    np.testing.assert_array_equal(short, [HIGH, LOW])


def test_an_exponential_mean_by_hand(track_of) -> None:
    decay = np.exp(-0.5 / 2.0)
    ema = Replay(track_of([HIGH, LOW])).smoothed(Rule("ema", window_s=2.0))
    np.testing.assert_allclose(ema, [HIGH, (HIGH * decay + LOW) / (decay + 1.0)])


def test_an_alarm_is_told_when_it_has_lasted_long_enough(track_of) -> None:
    rule = Rule("frame", least_s=1.5)
    assert len(Replay(track_of([LOW, HIGH, *[LOW] * 9])).alarms(rule, 0.0)) == 0
    alarms = Replay(track_of([LOW, HIGH, HIGH, *[LOW] * 9])).alarms(rule, 0.0)
    assert (alarms.begin[0], alarms.at[0], alarms.end[0]) == (0.5, 2.0, 2.0)


def test_the_temperature_divides_the_logits(track_of) -> None:
    replay = Replay(track_of([HIGH, LOW]), temperature=2.0)
    assert len(replay.alarms(Rule("frame"), 1.0)) == 1
    assert len(replay.alarms(Rule("frame"), 1.01)) == 0


@pytest.mark.parametrize("seed", range(40))
def test_hysteresis_is_the_devices_event_for_event(track_of, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 400
    logit = np.repeat(rng.normal(0.0, 2.0, n // 8), 8) + rng.normal(0.0, 1.5, n)
    logit[np.repeat(rng.random(n // 10) < 0.3, 10)] = np.nan
    rule = Rule(
        "hysteresis", window_s=float(rng.choice([1.0, 2.0, 4.0, 6.0])), off_margin=float(rng.choice([0.0, 1.0, 2.5])),
        least_s=float(rng.choice([0.0, 1.5, 2.5])), pause_s=float(rng.choice([0.5, 1.7, 3.0])),
    )  # fmt: skip
    threshold, temperature = float(rng.normal(0.5, 0.7)), float(rng.choice([1.0, 1.7]))
    alarms = Replay(track_of(logit), temperature).alarms(rule, threshold)
    told = device(logit, rule, threshold, temperature)
    assert told
    assert np.stack([alarms.begin, alarms.end, alarms.at], 1).tolist() == told


def device(logit: np.ndarray, rule: Rule, threshold: float, temperature: float) -> list[list[float]]:
    """What the device's own `Bouts` tells: begin, end, and when it was told."""
    calibration = SiteCalibration(
        "ward", gate_threshold=float(sigmoid(threshold)), gate_temperature=temperature
    )
    cfg = ListenConfig(
        smooth_s=rule.window_s, off_margin=rule.off_margin, least_s=rule.least_s, pause_s=rule.pause_s
    )
    bouts, events = Bouts(calibration, (), cfg), []
    end = SAMPLE_RATE
    for z in logit:
        if np.isnan(z):
            events += bouts.quiet(end)
        else:
            events += bouts.heard(Scores(end - SAMPLE_RATE, end, float(z), 0.0, np.zeros(0)))[1]
        end += SAMPLE_RATE // 2
    events += bouts.finish(end)
    told, ended = ([e for e in events if isinstance(e, Bout) and e.phase == p] for p in ("begin", "end"))
    return [[e.begin, e.end, b.at] for b, e in zip(told, ended, strict=True)]


def test_nothing_scored_gives_no_alarm(track_of) -> None:
    for name in ("frame", "mean", "ema", "hysteresis"):
        assert len(Replay(track_of([GONE, GONE])).alarms(Rule(name, window_s=2.0), 0.0)) == 0


@pytest.mark.parametrize(
    "change", [{"name": "median"}, {"name": "mean", "off_margin": 1.0}, {"name": "mean", "window_s": 0.2}]
)
def test_a_rule_that_cannot_be_is_refused(change: dict) -> None:
    with pytest.raises(ConfigError):
        Rule(**change)
