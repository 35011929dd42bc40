"""The probe: noise at the nominal rate, planted signal found, counts that add up, and no group on both sides."""

import json
from dataclasses import replace

import numpy as np
import pytest

from models.metrics import confusion
from models.permutation import relabellings
from models.probe import DRAWS, FOLDS, ProbeCounts, grouped_probe, judge_probe, pool_probes


def clips(rng, groups=40, each=3, dimensions=12, signal=0.0, classes=3):
    """Clips of infants who sound alike to themselves, `signal` deviations between neighbouring reasons."""
    group = np.repeat(np.arange(groups), each)
    y = rng.integers(classes, size=group.size)
    x = rng.normal(size=(group.size, dimensions)) + rng.normal(size=(groups, dimensions))[group]
    x[:, 0] += signal * y
    return x, y, group


def test_labels_that_are_noise_are_found_out_at_about_the_nominal_rate():
    found, runs = 0, 200
    for seed in range(runs):
        x, y, group = clips(np.random.default_rng(seed))
        found += judge_probe(grouped_probe(x, y, group, 3, seed=seed, draws=99)).signal
    assert 0.01 < found / runs < 0.10  # 0.05 ± 3 standard errors


def test_planted_signal_is_found():
    found = [
        judge_probe(grouped_probe(*clips(np.random.default_rng(s), signal=2.0), 3, seed=s, draws=99)).signal
        for s in range(20)
    ]
    assert all(found)


def test_a_label_that_only_names_the_infant_is_no_signal():
    """Every infant has one reason and a voice of its own: other infants' voices say nothing of it."""
    found, runs = 0, 100
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        x, _, group = clips(rng)
        found += judge_probe(
            grouped_probe(x, rng.integers(3, size=40)[group], group, 3, seed=seed, draws=99)
        ).signal
    assert found / runs < 0.12


def test_sites_add_up_to_a_test_that_none_could_make():
    parts = []
    for site in range(12):
        x, y, group = clips(np.random.default_rng(site), groups=9, signal=2.0)
        parts.append(grouped_probe(x, y, group, 3, seed=site, draws=199))
    assert not any(judge_probe(p).judged for p in parts)  # nine infants are too few
    pooled = pool_probes(parts)
    assert pooled.clips == 12 * 27
    assert pooled.observed.sum() == 12 * 27
    assert judge_probe(pooled).signal
    assert pool_probes([]) is None
    assert (pool_probes(parts[:1]).null == parts[0].null).all()


def test_counts_keep_the_truth_and_travel_as_json():
    x, y, group = clips(np.random.default_rng(0), signal=1.0)
    counts = grouped_probe(x, y, group, 3, draws=20)
    for each in (counts.observed, *counts.null):
        assert each.sum(1).tolist() == np.bincount(y, minlength=3).tolist()
    assert counts.resampled.sum((1, 2)).tolist() == [120.0] * 20  # 40 draws of groups of 3
    back = ProbeCounts.from_dict(json.loads(json.dumps(counts.to_dict())))
    assert judge_probe(back) == judge_probe(counts)


def test_the_null_is_the_probe_fitted_anew_to_relabelled_clips():
    """Fitted to the relabelled clips as if they were the labels, it counts what its null says."""
    x, y, group = clips(np.random.default_rng(1), signal=1.5)
    counts = grouped_probe(x, y, group, 3, seed=4, draws=5)
    for r, rows in enumerate(relabellings(group, np.zeros(len(y), int), 5, 4)):
        assert (grouped_probe(x, y[rows], group, 3, seed=4, draws=5).observed == counts.null[r]).all()


def test_a_clip_is_judged_without_its_own_group():
    """An infant's own label, changed, changes no answer about that infant."""
    x, y, group = clips(np.random.default_rng(2), groups=FOLDS, each=6)  # every infant is a fold
    mine = group == 0
    changed = np.where(mine, (y + 1) % 3, y)
    told = [grouped_probe(x, labels, group, 3, draws=1).observed for labels in (y, changed)]
    # the answers about the others may differ: compare the infant's own, whose rows moved by one class
    alone = [
        o - grouped_answers(x, labels, group, ~mine) for o, labels in zip(told, (y, changed), strict=True)
    ]
    assert (np.roll(alone[0], 1, axis=0) == alone[1]).all()


def grouped_answers(x, y, group, keep):
    """Confusion of the clips in `keep`, from the probe itself."""
    from models.probe import _out_of_fold

    names, member = np.unique(group, return_inverse=True)
    rng = np.random.Generator(np.random.PCG64(0))
    fold = rng.permutation(np.arange(len(names)) % FOLDS)[member]
    return confusion(y[keep], _out_of_fold(x, y[None], fold, 3)[0][keep], 3)


def test_the_answer_ignores_units_and_offsets():
    x, y, group = clips(np.random.default_rng(3), signal=1.0)
    moved = x * np.geomspace(1e-2, 1e3, x.shape[1]) + 7
    assert judge_probe(grouped_probe(moved, y, group, 3)) == judge_probe(grouped_probe(x, y, group, 3))


def test_nothing_is_said_of_little():
    x, y, group = clips(np.random.default_rng(4), groups=9)
    few = judge_probe(grouped_probe(x, y, group, 3))
    assert (few.judged, few.signal, few.p) == (False, False, None)
    x, y, group = clips(np.random.default_rng(4), groups=12)
    assert judge_probe(grouped_probe(x, y, group, 3)).judged
    assert not judge_probe(grouped_probe(x, np.zeros_like(y), group, 3)).judged  # one reason
    nobody = grouped_probe(np.zeros((0, 12)), np.zeros(0, int), np.zeros(0, int), 3)
    assert nobody.clips == nobody.observed.sum() == 0
    assert not judge_probe(nobody).judged
    same = grouped_probe(np.ones_like(x), y, group, 3)  # features that never differ
    assert judge_probe(same).judged


def test_the_result_holds_its_numbers():
    x, y, group = clips(np.random.default_rng(5), signal=2.0)
    told = judge_probe(grouped_probe(x, y, group, 3))
    assert told.low < told.macro_f1 < told.high
    assert told.chance == pytest.approx(1 / 3, abs=0.03)
    assert told.chance < told.needed < told.macro_f1
    assert told.p == 1 / (1 + DRAWS)
    assert replace(told, judged=True) == told
