"""The same filter as training's, in pieces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.data.audio import resample
from infra.edge.listen.resample import Resampler
from models.audio_ops import torchaudio
from models.errors import AudioError

RATES = [4_000, 8_000, 11_025, 12_345, 22_050, 32_000, 44_100, 48_000, 96_000]


def _rows(wave: np.ndarray, marks: np.ndarray | None = None) -> np.ndarray:
    return np.stack([wave, np.zeros_like(wave) if marks is None else marks]).astype(np.float32)


def _all(rate: int, rows: np.ndarray, cuts: list[int]) -> np.ndarray:
    resampler = Resampler(rate)
    parts = [resampler.feed(p) for p in np.split(rows, sorted(cuts), axis=1)]
    return np.concatenate([*parts, resampler.finish()], axis=1)


@pytest.mark.parametrize("rate", RATES)
def test_agrees_with_the_resampler_of_training(rate: int) -> None:
    wave = np.random.default_rng(rate).normal(size=rate + 17).astype(np.float32)
    ours = _all(rate, _rows(wave), [])[0]
    theirs = resample(wave, rate)
    assert ours.shape == theirs.shape
    # torchaudio computes its kernel in single precision, which is worst where the rates have no common divisor
    assert np.sqrt(np.mean((ours - theirs) ** 2)) < (1e-4 if rate == 12_345 else 2e-5)
    exact = torchaudio.functional.resample(torch.from_numpy(wave.astype(np.float64)), rate, 16_000).numpy()
    assert np.abs(ours - exact).max() < 1e-6


@settings(max_examples=40, deadline=None)
@given(
    rate=st.sampled_from([8_000, 11_025, 16_000, 44_100, 48_000]),
    n=st.integers(0, 9_000),
    cuts=st.lists(st.integers(0, 9_000), max_size=12),
)
def test_the_same_bits_however_they_arrive(rate: int, n: int, cuts: list[int]) -> None:
    rows = _rows(*np.random.default_rng(n).normal(size=(2, n)))
    whole = _all(rate, rows, [])
    assert np.array_equal(_all(rate, rows, [min(c, n) for c in cuts]), whole)
    assert whole.shape == (2, -(-n * 16_000 // rate))


def test_what_16_khz_cannot_hold_is_gone() -> None:
    t = np.arange(48_000) / 48_000
    high = _all(48_000, _rows(np.sin(2 * np.pi * 11_000 * t)), [])[0][500:-500]
    low = _all(48_000, _rows(np.sin(2 * np.pi * 1_000 * t)), [])[0][500:-500]
    assert np.sqrt(np.mean(high**2)) < 0.01
    assert np.sqrt(np.mean(low**2)) == pytest.approx(np.sqrt(0.5), rel=0.01)


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_marks_stay_with_their_samples(rate: int) -> None:
    n = rate
    marks = np.zeros(n)
    marks[n // 2 : n // 2 + n // 10] = 1
    out = _all(rate, _rows(np.zeros(n), marks), [100, 5_000])[1]
    places = np.flatnonzero(out > 0.5)
    assert places[0] == pytest.approx(8_000, abs=2)
    assert len(places) == pytest.approx(1_600, abs=2)


def test_it_can_begin_afresh() -> None:
    resampler = Resampler(44_100)
    rows = _rows(np.random.default_rng(0).normal(size=5_000))
    first = np.concatenate([resampler.feed(rows), resampler.finish()], axis=1)
    again = np.concatenate([resampler.feed(rows), resampler.finish()], axis=1)
    assert np.array_equal(first, again)


@pytest.mark.parametrize("rate", [0, -16_000, 3_999, 192_000])
def test_rates_that_nobody_records_at(rate: int) -> None:
    with pytest.raises(AudioError, match="16000 at best"):
        Resampler(rate)
