"""The fleet's simulator, small: the same sections as `python -m benchmarks.fleet`, whose assertions are its promises."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import fleet
from infra.store import embedded

pytestmark = pytest.mark.slow


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[fleet.Bench]:
    server = embedded.ensure_running(tmp_path)
    folder = tmp_path / "bench"
    folder.mkdir()
    yield fleet.Bench(folder, server)
    embedded.stop_running(tmp_path)


def test_a_fleet_of_forty(bench: fleet.Bench) -> None:
    """Two of forty devices are bad, and two failures are enough in every ring after the first: the rollout goes back."""
    args = argparse.Namespace(devices=40, whole=1, seeds=5)
    found = fleet.bad(bench, args)
    assert (found["devices_that_tried_it"], found["on_the_old_release"]) == (1, 40)
    runs = fleet.some(bench, args)["runs"]
    assert [(r["phase"], r["running"]) for r in runs] == [("rolled back", 0)]
    assert fleet.rotation(bench, args)["followed"] == 40


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_thousand_devices(bench: fleet.Bench) -> None:
    args = argparse.Namespace(devices=1000, whole=3, seeds=200)
    fleet.good(bench, args)
    fleet.bad(bench, args)
    fleet.some(bench, args)
    shares = fleet.chances(bench, args)["bad_on_5_percent"]
    assert shares["5 %"]["by_then"] >= 0.70
    assert shares["25 %"]["by_then"] >= 0.98
    assert fleet.rotation(bench, args)["followed"] == 1000
