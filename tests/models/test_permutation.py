"""Permutation tests: exact small cases, what never moves, and the nominal rate under the null."""

from collections import Counter
from itertools import permutations
from math import factorial

import numpy as np
import pytest

from models.metrics import confusion, macro_f1
from models.permutation import PermutationTest, movable, permutation_p, permute_macro_f1, relabellings


def test_p_counts_ties_and_never_is_zero():
    assert permutation_p(0.5, [0.1, 0.5, 0.6]) == (1 + 2) / (1 + 3)
    assert permutation_p(1.0, np.zeros(999)) == 1 / 1000
    assert permutation_p(0.0, np.zeros(99)) == 1.0
    assert np.isnan(permutation_p(np.nan, [0.1]))
    assert PermutationTest(1.0, np.zeros(9)).p == 0.1


def test_a_perfect_predictor_has_the_least_p():
    """Distinct groups, balanced classes: a relabelling scores 1 only if it is the truth itself, 1 in 40!/(20! 20!)."""
    y = np.repeat([0, 1], 20)
    test = permute_macro_f1(y, y, 2, group=np.arange(40), stratum=np.zeros(40), n=999, seed=0)
    assert test.observed == 1.0
    assert test.p == 1 / 1000


def test_a_constant_predictor_ties_with_every_relabelling():
    y = np.repeat([0, 1], [30, 10])
    test = permute_macro_f1(y, np.zeros(40, int), 2, group=np.arange(40), stratum=np.zeros(40), n=99, seed=0)
    assert test.p == 1.0
    assert (test.null == test.observed).all()


def test_all_relabellings_of_four_clips_are_equally_likely():
    rows = relabellings(np.arange(4), np.zeros(4), 24_000, seed=1)
    seen = Counter(map(tuple, rows.tolist()))
    assert set(seen) == set(permutations(range(4)))
    assert max(abs(n - 1000) for n in seen.values()) < 5 * np.sqrt(1000)


def test_p_is_the_share_of_all_relabellings():
    """A perfect predictor of 6 clips, 3 a class: 3! 3! of 6! relabellings are as good."""
    y = np.array([0, 0, 0, 1, 1, 1])
    test = permute_macro_f1(y, y, 2, group=np.arange(6), stratum=np.zeros(6), n=5_000, seed=2)
    assert test.p == pytest.approx(factorial(3) ** 2 / factorial(6), abs=0.012)


def test_labels_stay_in_their_stratum_and_groups_move_whole():
    group = np.array(["a", "a", "b", "b", "c", "d", "e", "e", "f", "f", "f"])
    stratum = np.array(["ios"] * 6 + ["android"] * 5)
    rows = relabellings(group, stratum, 500, seed=0)
    assert (np.sort(rows, 1) == np.arange(11)).all()
    assert (stratum[rows] == stratum).all()
    for name in np.unique(group):
        taken = group[rows][:, group == name]
        assert (taken == taken[:, :1]).all(), "a group's labels come of one group"
    assert {tuple(g) for g in group[rows][:, 4:6].tolist()} == {("c", "d"), ("d", "c")}
    assert set(group[rows][:, 8:].ravel()) == {"f"}  # no other group has three clips
    assert len({tuple(r) for r in rows[:, 8:].tolist()}) == 6  # but its own clips change places


def test_a_group_in_two_strata_is_two_blocks():
    rows = relabellings(["a", "a", "b", "b"], ["x", "y", "x", "y"], 200, seed=0)
    assert {tuple(r) for r in rows.tolist()} == {(0, 1, 2, 3), (2, 1, 0, 3), (0, 3, 2, 1), (2, 3, 0, 1)}


def test_the_answer_is_that_of_the_clips_not_of_their_names_or_order():
    rng = np.random.default_rng(0)
    y, p, group = rng.integers(3, size=60), rng.integers(3, size=60), np.repeat(np.arange(20), 3)
    names = np.array([f"device {g:02d}" for g in group])
    same = {"stratum": np.zeros(60), "n": 200, "seed": 5}
    one = permute_macro_f1(y, p, 3, group=group, **same)
    assert (one.null == permute_macro_f1(y, p, 3, group=names, **same).null).all()
    order = rng.permutation(60)
    other = permute_macro_f1(y[order], p[order], 3, group=names[order], **same)
    assert other.observed == one.observed
    assert other.p == pytest.approx(one.p, abs=0.12)
    swap = np.array([2, 0, 1])  # reasons by other numbers
    assert permute_macro_f1(swap[y], swap[p], 3, group=group, **same).null == pytest.approx(one.null)


def test_platform_alone_is_no_evidence():
    """Answers that only know the platform, labels that go with it: found without strata, not within them."""
    rng = np.random.default_rng(1)
    platform = np.repeat([0, 1], 60)
    y = np.where(rng.random(120) < 0.85, platform, 1 - platform)
    group = np.arange(120)
    free = permute_macro_f1(y, platform, 2, group=group, stratum=np.zeros(120), n=199, seed=0)
    assert free.p == 1 / 200
    assert permute_macro_f1(y, platform, 2, group=group, stratum=platform, n=199, seed=0).p == 1.0


def test_infants_who_are_always_labelled_alike_do_not_make_a_finding():
    """Answers and labels both go by the infant, independently: permuting single clips would reject far too often."""
    group = np.repeat(np.arange(24), 5)
    found = {"blocks": 0, "clips": 0}
    runs = 200
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        y, p = rng.integers(3, size=24)[group], rng.integers(3, size=24)[group]
        for name, unit in (("blocks", group), ("clips", np.arange(120))):
            test = permute_macro_f1(y, p, 3, group=unit, stratum=np.zeros(120), n=99, seed=seed)
            found[name] += test.p <= 0.05
    assert 0.01 < found["blocks"] / runs < 0.10  # 0.05 ± 3 standard errors
    assert found["clips"] / runs > 0.15


def test_movable_is_the_share_that_can_change():
    assert movable(["a", "b", "b", "c"], ["x"] * 4) == 1.0
    assert movable(["a", "b", "b"], ["x"] * 3) == pytest.approx(2 / 3)  # a is the only group of one
    assert movable(["a", "b"], ["x", "y"]) == 0.0
    assert np.isnan(movable([], []))


def test_the_null_is_macro_f1_of_the_relabelled_truth():
    rng = np.random.default_rng(3)
    y, p, group = rng.integers(4, size=50), rng.integers(4, size=50), rng.integers(15, size=50)
    test = permute_macro_f1(y, p, 4, group=group, stratum=np.zeros(50), n=20, seed=9)
    rows = relabellings(group, np.zeros(50), 20, 9)
    assert test.null.tolist() == [float(macro_f1(confusion(y[r], p, 4))) for r in rows]
