"""The group bootstrap: draws groups, not clips."""

import time

import numpy as np
import pytest

from models import metrics
from models.bootstrap import group_bootstrap, group_draws, mean_interval


def _mean_of(x):
    def statistic(w):
        w = np.ones_like(x) if w is None else w
        return (w * x).sum(-1) / w.sum(-1)

    return statistic


def test_the_interval_of_a_mean_is_that_of_the_statistic_written_out():
    values, group = np.arange(12.0) ** 2, np.repeat(["a", "b", "c", "d"], 3)
    same = group_bootstrap(_mean_of(values), group, seed=3, resamples=40)
    assert mean_interval(values, group, seed=3, resamples=40) == same


def test_every_resample_draws_as_many_groups_as_there_are():
    draws = group_draws(7, 50, np.random.Generator(np.random.PCG64(0)))
    assert draws.shape == (50, 7)
    assert (draws.sum(1) == 7).all()


def test_interval_is_as_wide_as_the_groups_say():
    """Ten copies of each of 40 infants carry 40 infants' worth of evidence: standard error σ/√40, not σ/√400."""
    x = np.random.default_rng(1).normal(size=40)
    grouped = group_bootstrap(_mean_of(np.repeat(x, 10)), np.repeat(np.arange(40), 10), seed=1)
    clips = group_bootstrap(_mean_of(np.repeat(x, 10)), np.arange(400), seed=1)
    expected = 2 * 1.96 * x.std() / np.sqrt(40)
    assert grouped.high - grouped.low == pytest.approx(expected, rel=0.1)
    assert clips.high - clips.low < 0.4 * expected
    assert grouped.low < grouped.value < grouped.high
    assert grouped.groups == 40


def test_coverage():
    """95 % intervals of the mean of 60 groups cover the truth in 88–99 % of 200 repeats."""
    rng = np.random.default_rng(2)
    covered = 0
    for k in range(200):
        x = rng.normal(size=60)
        interval = group_bootstrap(_mean_of(x), np.arange(60), seed=k, resamples=300)
        covered += interval.low <= 0 <= interval.high
    assert 176 <= covered <= 198


def test_paired_difference_is_narrower_than_the_parts():
    rng = np.random.default_rng(3)
    x = rng.normal(size=100)
    y = x + 0.1 + 0.01 * rng.normal(size=100)
    difference = group_bootstrap(_mean_of(y - x), np.arange(100), seed=0)
    assert difference.low > 0.09
    assert difference.high < 0.11


def test_same_seed_same_interval_and_chunks_do_not_matter(monkeypatch):
    rng = np.random.default_rng(4)
    score, y, group = rng.normal(size=90), rng.random(90) < 0.4, rng.integers(0, 30, 90)
    one = group_bootstrap(lambda w: metrics.auroc(score, y, w), group, seed=9)
    monkeypatch.setattr("models.bootstrap._CHUNK_VALUES", 1000)
    assert group_bootstrap(lambda w: metrics.auroc(score, y, w), group, seed=9) == one


@pytest.mark.parametrize("group", [[], ["a", "a", "a"]])
def test_too_few_groups_give_no_interval(group):
    interval = group_bootstrap(_mean_of(np.ones(len(group))), group, seed=0)
    assert np.isnan(interval.low)
    assert interval.to_dict()["low"] is None


def test_an_undefined_statistic_gives_no_interval():
    y = np.zeros(10)
    interval = group_bootstrap(lambda w: metrics.auroc(np.arange(10.0), y, w), np.arange(10), seed=0)
    assert interval.used == 0
    assert interval.to_dict() == {"value": None, "low": None, "high": None, "groups": 10}


def test_a_thousand_resamples_of_two_thousand_clips_take_seconds():
    rng = np.random.default_rng(5)
    score, y, group = rng.normal(size=2000), rng.random(2000) < 0.4, rng.integers(0, 300, 2000)
    start = time.perf_counter()
    group_bootstrap(lambda w: metrics.auroc(score, y, w), group, seed=0)
    assert time.perf_counter() - start < 5
