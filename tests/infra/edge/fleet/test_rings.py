"""Rings: who is asked first, and in which steps."""

from __future__ import annotations

import pytest

from infra.edge.fleet import rings

FLEET = [f"device-{i:04d}" for i in range(1000)]


def test_a_thousand_devices_in_four_rings_and_one_in_doubt() -> None:
    steps = rings.plan(1000)
    assert [(r.name, r.until, r.in_doubt) for r in steps] == [
        ("1 device", 1, False),
        ("5 %", 50, False),
        ("10 %", 100, True),
        ("25 %", 250, False),
        ("100 %", 1000, False),
    ]


@pytest.mark.parametrize("devices", [*range(1, 60), 999, 12_345])
def test_every_ring_grows_and_the_last_is_everyone(devices: int) -> None:
    steps = rings.plan(devices)
    sizes = [r.until for r in steps]
    assert sizes[0] == 1
    assert sizes[-1] == devices
    assert sizes == sorted(set(sizes))
    assert not steps[-1].in_doubt


def test_no_device_no_rings() -> None:
    with pytest.raises(ValueError, match="0 devices"):
        rings.plan(0)


def test_the_order_is_the_rollouts_own_and_repeats() -> None:
    once = rings.order(FLEET, "ward/1")
    assert once == rings.order(reversed(FLEET), "ward/1")
    assert sorted(once) == FLEET
    other = rings.order(FLEET, "ward/2")
    assert len(set(once[:50]) & set(other[:50])) < 12  # 2.5 expected of 50 in 1,000; P[≥ 12] < 1e-5


def test_over_rollouts_every_device_is_first_equally_often() -> None:
    """2,000 rollouts on 10 devices: 200 firsts each, and a χ² of 9 degrees of freedom below its 0.1 % point."""
    firsts = [rings.order(FLEET[:10], f"ward/{n}")[0] for n in range(2000)]
    chi2 = sum((firsts.count(d) - 200) ** 2 / 200 for d in FLEET[:10])
    assert chi2 < 27.9


def test_those_that_would_decide_nothing_come_last() -> None:
    away = set(FLEET[::7])
    found = rings.order(FLEET, "ward/1", last=away)
    assert set(found[-len(away) :]) == away
    assert [d for d in rings.order(FLEET, "ward/1") if d not in away] == list(found[: -len(away)])
