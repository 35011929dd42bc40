"""The test per ring: its error rates, exactly and by simulation."""

from __future__ import annotations

import math
import random
import re

import pytest

from infra.edge.fleet import abort
from infra.edge.fleet.abort import AbortRule, slow_at, stop_at, stopping, too_slow
from infra.edge.fleet.rings import plan

RULE = AbortRule()
RINGS = plan(1000)


def by_ring(failing: set[int]) -> int | None:
    """Which ring stops a rollout in which exactly these of 1,000 devices fail; written independently of `stopping`."""
    asked = 0
    for number, ring in enumerate(RINGS):
        if ring.in_doubt and not any(d in failing for d in range(asked)):
            continue
        asked = ring.until
        if sum(d in failing for d in range(asked)) >= stop_at(asked, RULE):
            return number
    return None


def test_bounds_are_the_smallest_at_their_level() -> None:
    """By definition: P[Bin(n, 0.002) ≥ c] ≤ 1 % < P[Bin(n, 0.002) ≥ c − 1]; and 1 of 1, though c = 0 would not be enough."""
    assert [stop_at(n, RULE) for n in (1, 50, 100, 250, 1000)] == [1, 2, 3, 4, 7]
    for n in (1, 2, 5, 50, 100, 250, 1000, 4000):
        c = stop_at(n, RULE)
        tail = [sum(math.comb(n, k) * 0.002**k * 0.998 ** (n - k) for k in range(c - d)) for d in (0, 1)]
        assert 1 - tail[0] <= 0.01 < 1 - tail[1]


def test_a_high_base_rate_never_lets_the_first_failure_pass() -> None:
    assert stop_at(1, AbortRule(base_rate=0.05)) == 1


def test_two_of_fifty_by_hand() -> None:
    """50 bad of 1,000, 50 asked: 1 − [C(950,50) + 50·C(950,49)]/C(1000,50) = 0.7271; a bad first device adds its 5 % where no
    other of the 50 is bad: 0.0052. So one in four slips past this ring."""
    p0 = math.comb(950, 50) / math.comb(1000, 50)
    p1 = 50 * math.comb(950, 49) / math.comb(1000, 50)
    expected = 1 - p0 - p1 + p1 * (1 / 50)
    assert stopping(RINGS, RULE, failing=50)[1] == pytest.approx(expected, abs=1e-12)


def test_the_promises_hold_exactly() -> None:
    everywhere, some = stopping(RINGS, RULE, failing=1000), stopping(RINGS, RULE, failing=50)
    good = stopping(RINGS, RULE, rate=RULE.base_rate)
    assert everywhere[0] == pytest.approx(1.0)
    assert some[1] >= 0.70
    assert some[2] >= 0.85  # ring 2 with its second sample
    assert some[3] >= 0.98
    assert good[-1] <= 0.02


def test_the_table_in_the_docstring_is_what_the_code_computes() -> None:
    cells = {
        row[0].strip(): [float(x) for x in row[1:]]
        for line in (abort.__doc__ or "").splitlines()
        if len(row := [c for c in line.split("|") if c]) == 6 and re.fullmatch(r"\s*[\d.]+\s*", row[1])
    }
    computed = {
        "fails everywhere": stopping(RINGS, RULE, failing=1000),
        "fails on 50 of 1,000": stopping(RINGS, RULE, failing=50),
        "good; a device fails at 0.2 %": stopping(RINGS, RULE, rate=0.002),
    }
    assert cells.keys() == computed.keys()
    for name, row in computed.items():
        assert cells[name] == [round(x, 4) for x in row]


@pytest.mark.parametrize(("failing", "rate"), [(50, None), (None, 0.002)])
def test_simulation_agrees_with_the_exact_chances(failing: int | None, rate: float | None) -> None:
    """4,000 rollouts; every ring's share within 4 standard errors of what `stopping` says."""
    draw, runs = random.Random(11), 4000
    found = []
    for _ in range(runs):
        bad = (
            set(draw.sample(range(1000), failing))
            if failing
            else {d for d in range(1000) if draw.random() < (rate or 0)}
        )
        found.append(by_ring(bad))
    for ring, chance in enumerate(stopping(RINGS, RULE, failing=failing, rate=rate)):
        share = sum(f is not None and f <= ring for f in found) / runs
        assert abs(share - chance) <= 4 * math.sqrt(chance * (1 - chance) / runs) + 1e-9, ring


def test_small_fleets_keep_their_level() -> None:
    for devices in (1, 2, 3, 5, 8, 10, 20, 40, 100, 333):
        assert stopping(plan(devices), RULE, rate=RULE.base_rate)[-1] < 0.03


@pytest.mark.parametrize(("failing", "rate"), [(None, None), (3, 0.1), (1001, None), (-1, None)])
def test_a_question_without_one_meaning_is_refused(failing: int | None, rate: float | None) -> None:
    with pytest.raises(ValueError, match="name either"):
        stopping(RINGS, RULE, failing=failing, rate=rate)


def test_sign_test_bounds_by_hand() -> None:
    """Seven of seven: 1/128 < 1 %; six can't: 1/64. 34 of 50: P[Bin(50, ½) ≥ 34] = 0.0077, ≥ 33: 0.0164."""
    assert [slow_at(n, RULE) for n in (0, 1, 6)] == [None, None, None]
    assert (slow_at(7, RULE), slow_at(50, RULE)) == (7, 34)
    assert abort.binomial_tail(50, 0.5, 34) == pytest.approx(0.00767, abs=1e-5)
    assert abort.binomial_tail(50, 0.5, 33) == pytest.approx(0.01642, abs=1e-5)


def noisy(draw: random.Random, n: int, true: float) -> list[float]:
    """Ratios of p95s whose noise has heavy tails: a Student t of 3 degrees of freedom, scale 0.15, on the log of the ratio."""

    def student() -> float:
        return draw.gauss(0, 1) / math.sqrt(draw.gammavariate(1.5, 2) / 3)

    return [true * math.exp(0.15 * student()) for _ in range(n)]


@pytest.mark.parametrize(
    ("true", "n", "low", "high"),
    [
        (1.0, 50, 0.0, 0.002),  # a build that is as fast
        (1.0, 250, 0.0, 0.002),
        (1.2, 50, 0.0, 0.02),  # just the allowed regression: at most the level
        (1.35, 50, 0.75, 1.0),
        (1.35, 250, 0.999, 1.0),
        (1.3, 250, 0.97, 1.0),
    ],
)
def test_the_latency_rule_under_heavy_tailed_noise(true: float, n: int, low: float, high: float) -> None:
    draw = random.Random(5)
    share = sum(too_slow(noisy(draw, n, true), RULE) for _ in range(1000)) / 1000
    assert low <= share <= high


@pytest.mark.parametrize("wrong", [{"base_rate": 0.0}, {"level": 0.6}, {"slower": 0.9}, {"slower": 3.0}])
def test_senseless_rules_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        AbortRule(**wrong)
