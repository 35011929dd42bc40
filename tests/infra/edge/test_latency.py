"""Times: the median and its interval by hand, and a real graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from infra.edge.latency import measure_latency, noise_frames, summarise_times


def test_median_and_interval_by_order_statistics() -> None:
    """n = 10: P(B ≤ 1) = 11/1024 ≤ 2.5 % < P(B ≤ 2) = 56/1024, so the 2nd and the 9th value are the ends."""
    found = summarise_times([10, 9, 8, 7, 6, 5, 4, 3, 2, 1])
    assert (found["low"], found["p50"], found["high"], found["n"]) == (2.0, 5.5, 9.0, 10)


def test_too_few_times_have_no_interval() -> None:
    """n = 5: even the extremes cover the median in 1 − 2/32 = 94 % of all cases only."""
    found = summarise_times([1, 2, 3, 4, 5])
    assert (found["low"], found["high"]) == (None, None)
    assert summarise_times([1, 2, 3, 4, 5, 6])["low"] == 1.0  # 1 − 2/64 = 97 %


def test_the_interval_covers_the_median_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    draws = rng.exponential(size=(600, 40))
    hit = [f["low"] <= np.log(2) <= f["high"] for f in map(summarise_times, draws)]
    assert np.mean(hit) > 0.93


def test_a_graph_is_timed(tiny_graph: Path) -> None:
    found = measure_latency(tiny_graph.read_bytes(), noise_frames(8), warm_up=2)
    assert 0 < found["low"] <= found["p50"] <= found["high"] <= 1000
    assert found["n"] == 8
    assert "cores" in found["on"]


def test_frames_are_the_same_twice() -> None:
    assert np.array_equal(noise_frames(3), noise_frames(3))
    assert noise_frames(3).shape == (3, 16000)


@pytest.mark.parametrize("bad", [b"", b"no graph"])
def test_what_is_no_graph_is_refused(bad: bytes) -> None:
    from models.errors import BundleError

    with pytest.raises(BundleError):
        measure_latency(bad, noise_frames(1))
