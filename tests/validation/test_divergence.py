"""PSI, KL and their null: exact on shares computed by hand, and honest about how many clips there really are."""

from __future__ import annotations

import math

import numpy as np
import pytest

from validation.divergence import (
    effective_size,
    expected_psi,
    kl_of_shares,
    null_psi,
    psi,
    psi_of_shares,
    smoothed_shares,
)

HALVES, SKEWED = (0.5, 0.5), (0.25, 0.75)


def test_psi_by_hand() -> None:
    """(¼ − ½) ln(½) + (¾ − ½) ln(3/2) = ¼ ln 2 + ¼ ln 1.5 = ¼ ln 3."""
    assert psi_of_shares(SKEWED, HALVES) == pytest.approx(math.log(3) / 4, abs=1e-15)
    assert psi_of_shares(HALVES, SKEWED) == pytest.approx(float(psi_of_shares(SKEWED, HALVES)), abs=1e-15)
    assert psi_of_shares(HALVES, HALVES) == 0


def test_kl_by_hand_and_the_two_ways_make_psi() -> None:
    """¼ ln(½) + ¾ ln(3/2) = ¾ ln 3 − ln 2; the other way ½ ln 2 + ½ ln(2/3) = ½ ln(4/3)."""
    one, other = kl_of_shares(SKEWED, HALVES), kl_of_shares(HALVES, SKEWED)
    assert one == pytest.approx(0.75 * math.log(3) - math.log(2), abs=1e-15)
    assert other == pytest.approx(0.5 * math.log(4 / 3), abs=1e-15)
    assert one + other == pytest.approx(float(psi_of_shares(SKEWED, HALVES)), abs=1e-15)


def test_half_a_count_is_added() -> None:
    assert smoothed_shares([0, 3]).tolist() == [0.125, 0.875]
    assert psi([0, 3], [3, 0]) == pytest.approx(1.5 * math.log(7))
    assert psi([[0, 3], [3, 0]], [3, 0]).tolist() == [psi([0, 3], [3, 0]), 0.0]


def test_expected_without_drift_by_simulation() -> None:
    assert expected_psi(10, 300, 60) == pytest.approx(9 * (1 / 300 + 1 / 60))
    null = null_psi(
        [200] * 10, [1000] * 10, effective_new=2000, effective_reference=10_000, draws=4000, seed=1
    )
    assert null.mean() == pytest.approx(expected_psi(10, 10_000, 2000), rel=0.03)
    again = null_psi(
        [200] * 10, [1000] * 10, effective_new=2000, effective_reference=10_000, draws=4000, seed=1
    )
    assert (null == again).all()


def test_independent_clips_count_as_they_are() -> None:
    rng = np.random.default_rng(0)
    cell = rng.integers(4, size=2000)
    assert effective_size(cell, np.arange(2000)) == pytest.approx(2000, rel=0.01)
    assert effective_size(cell, rng.integers(500, size=2000)) == pytest.approx(2000, rel=0.1)


def test_copies_of_a_clip_count_once() -> None:
    """Five equal clips of each of 60 groups: δ = 5 · 60/59, to the digit."""
    cell, group = np.repeat(np.arange(60) % 3, 5), np.repeat(np.arange(60), 5)
    assert effective_size(cell, group) == pytest.approx(59)


def test_what_shows_no_spread_counts_by_its_groups() -> None:
    assert effective_size([0] * 10, ["a"] * 5 + ["b"] * 5) == pytest.approx(2)
    assert effective_size([0] * 10, ["a"] * 8 + ["b", "c"]) == pytest.approx(100 / 66)
    assert effective_size([0, 1, 2], ["a"] * 3) == 1
    assert effective_size([], []) == 0
