"""Noise at an SNR, gain, masks, and mixing in mel power."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.augment import apply_gain, mask_bands, mix_at_snr, mix_log_mel
from models.config import LogMelConfig
from models.errors import DataError
from models.log_mel import LogMel


def tone(seconds: float = 1.0) -> np.ndarray:
    return (0.2 * np.sin(2 * np.pi * 500 * np.arange(round(16_000 * seconds)) / 16_000)).astype(np.float32)


def hiss(seed: int, n: int = 16_000) -> np.ndarray:
    return (0.05 * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 20.0])
def test_snr_is_what_was_asked_for(snr_db: float) -> None:
    wave = tone()
    added = mix_at_snr(wave, hiss(0, 5_000), snr_db) - wave
    assert 10 * np.log10(np.mean(wave**2) / np.mean(added**2)) == pytest.approx(snr_db, abs=0.05)


def test_silence_cannot_be_mixed() -> None:
    silent = np.zeros(16_000, dtype=np.float32)
    np.testing.assert_array_equal(mix_at_snr(silent, hiss(0), 0.0), silent)
    np.testing.assert_array_equal(mix_at_snr(tone(), silent, 0.0), tone())
    with pytest.raises(DataError, match="empty"):
        mix_at_snr(tone(), np.zeros(0, dtype=np.float32), 0.0)


def test_gain_clips() -> None:
    assert np.abs(apply_gain(tone(), 20.0)).max() == 1.0
    np.testing.assert_allclose(apply_gain(tone(), -20.0), 0.1 * tone(), rtol=1e-5)


@pytest.mark.parametrize("snr_db", [-5.0, 5.0, 20.0])
def test_mixing_log_mel_is_mixing_waves(snr_db: float) -> None:
    """Against the exact way: add in the waveform, then log-mel. The cross terms that power addition leaves out average away."""
    cfg, n = LogMelConfig(), 16
    front_end = LogMel(cfg)
    a = np.stack([hiss(i) for i in range(n)])
    # two independent noises of different colour
    b = np.stack(
        [np.convolve(hiss(100 + i, 16_003), [0.5, 0.5, 0.5, 0.5], "valid") for i in range(n)]
    ).astype(np.float32)
    exact = front_end(
        torch.from_numpy(np.stack([mix_at_snr(x, y, snr_db) for x, y in zip(a, b, strict=True)]))
    )
    ours, clean = mix_log_mel(
        front_end(torch.from_numpy(a)), front_end(torch.from_numpy(b)), torch.full((n,), snr_db), cfg
    )
    assert torch.allclose(ours.exp().mean((0, 2)), exact.exp().mean((0, 2)), rtol=0.06)
    # the signal lies below the mixture by its share of the power
    share = 10 * torch.log10(clean.exp().sum() / front_end(torch.from_numpy(a)).exp().sum())
    assert share.item() == pytest.approx(-10 * np.log10(1 + 10 ** (-snr_db / 10)), abs=0.05)


def test_infinite_snr_is_clean() -> None:
    cfg = LogMelConfig()
    x = LogMel(cfg)(torch.from_numpy(np.stack([tone(), hiss(1)])))
    mixed, clean = mix_log_mel(x, torch.zeros_like(x), torch.full((2,), torch.inf), cfg)
    torch.testing.assert_close(mixed, x, atol=2e-3, rtol=0)
    torch.testing.assert_close(clean, mixed)


def test_masks_are_bands() -> None:
    torch.manual_seed(0)
    x = torch.ones(200, 10, 20)
    masked = mask_bands(x, max_rows=4, max_steps=6, value=-1.0)
    assert masked.shape == x.shape
    rows = (masked == -1).all(dim=2).sum(dim=1)
    steps = (masked == -1).all(dim=1).sum(dim=1)
    assert 1 <= rows.max() <= 4
    assert 1 <= steps.max() <= 6
    assert torch.equal(mask_bands(x, max_rows=0, max_steps=0, value=-1.0), x)
