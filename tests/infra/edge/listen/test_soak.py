"""Hours of listening with a real graph; the ten-hour run is `benchmarks.listen memory`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import psutil
import pytest

from infra.edge.bundle import Bundle
from infra.edge.listen.detector import Detector
from infra.edge.scorer import Scorer
from tests.infra.edge.listen.sounds import noise, odd, tone


@pytest.mark.soak
def test_two_hours_take_no_more_memory_than_ten_minutes(make_bundle: Callable[..., Bundle]) -> None:
    listening = Detector.of(Scorer(make_bundle()))
    minute = np.concatenate([noise(30), tone(15), odd(10), np.full(80_000, np.nan, np.float32)])
    held = []
    for turn in range(120):
        for block in np.array_split(minute, 600):
            listening.feed(block)
        if turn in (9, 119):
            held.append(psutil.Process().memory_info().rss / 2**20)
    assert listening.seconds == 7200.0
    assert held[1] - held[0] < 4.0
