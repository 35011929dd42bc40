"""The leaky protocol scores near 1 on labels that say nothing, where minority classes were there to be repeated."""

from dataclasses import replace

import numpy as np
import pytest

from infra.baselines import ClipTable
from infra.leaky import leaky_protocol, oversampled

REASONS = ("a", "b", "c")


def noise(counts, dimensions=80, seed=0):
    """Clips of pure noise, with that many labels of each reason."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int16)
    n, name = len(y), np.array([f"{i}" for i in range(len(y))])
    return ClipTable(
        REASONS, rng.normal(size=(n, dimensions)).astype(np.float32), name, np.arange(n, dtype=np.int32), name, name, name,
        np.zeros(n, np.int8), np.ones(n, np.int8), y,
    )  # fmt: skip


def test_oversampling_keeps_every_clip_and_levels_the_classes():
    y = np.array([0] * 7 + [1] * 2 + [2])
    rows = oversampled(y, np.random.default_rng(0))
    assert set(rows) == set(range(10))
    assert np.bincount(y[rows]).tolist() == [7, 7, 7]
    assert (rows[:10] == np.arange(10)).all()


def test_noise_scores_near_one_where_classes_are_rare():
    told = leaky_protocol(noise((180, 8, 6)))
    for system in told["systems"].values():
        assert system["macro_f1"]["value"] > 0.95
        assert system["shuffled_labels"]["value"] > 0.95
    assert (told["clips"], told["clips_after_oversampling"]) == (194, 540)
    assert told["warning"].startswith("not a result")


def test_it_is_the_copies_that_do_it():
    """Equally frequent labels leave nothing to copy, and the same protocol scores by chance."""
    told = leaky_protocol(noise((90, 90, 90)))
    assert told["clips_after_oversampling"] == told["clips"]
    for system in told["systems"].values():
        assert system["macro_f1"]["value"] == pytest.approx(1 / 3, abs=0.08)


def test_it_is_repeatable_and_looks_at_cries_alone():
    table = noise((60, 8, 6))
    mute = replace(table, gate=np.where(np.arange(74) % 2, table.gate, 0).astype(np.int8))
    assert leaky_protocol(table) == leaky_protocol(table)
    assert leaky_protocol(mute)["clips"] == 37


def test_too_little_to_warn_with():
    assert leaky_protocol(noise((60, 0, 0))) is None
    assert leaky_protocol(noise((6, 3, 2))) is None
