"""Synthetic calls: seeded, bounded, of every kind, and frames that a network takes as non-cries."""

from __future__ import annotations

import numpy as np
import pytest

from infra.data.calls import _KINDS, call, call_frames
from models.config import SAMPLE_RATE, preset
from models.frames import TRAIN, concat_frames
from models.segmentation import VadConfig

MEL = preset("tiny").log_mel


@pytest.mark.parametrize("seed", range(2 * len(_KINDS)))
def test_every_kind_sounds_within_bounds_and_the_same_again(seed: int) -> None:
    wave = call(seed, 2.0)
    assert wave.shape == (2 * SAMPLE_RATE,)
    assert wave.dtype == np.float32
    assert np.isfinite(wave).all()
    assert 0.05 < np.abs(wave).max() < 1.0
    np.testing.assert_array_equal(wave, call(seed, 2.0))


def test_two_of_a_kind_differ() -> None:
    one, other = call(0, 1.0), call(len(_KINDS), 1.0)
    assert abs(float(np.corrcoef(one, other)[0, 1])) < 0.5


def test_frames_are_training_non_cries_of_no_site() -> None:
    frames = call_frames(("a", "b"), MEL, VadConfig(), 7)
    assert frames.site == ""
    assert (frames.gate == 0).all()
    assert (frames.part == TRAIN).all()
    assert (frames.reason == -1).all()
    assert set(frames.clip.tolist()) == set(range(7))
    assert frames.log_mel.shape[1:] == (MEL.n_mels, MEL.n_frames)
    both = concat_frames([frames, frames])
    assert len(both.gate) == 14
    assert both.clip.max() == 13
    np.testing.assert_array_equal(both.log_mel[len(frames.clip) :], frames.log_mel)
