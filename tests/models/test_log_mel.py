"""The convolutional front end against torchaudio's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.audio_ops import torchaudio
from models.config import LogMelConfig, preset
from models.errors import ConfigError
from models.log_mel import LogMel


def reference(wave: torch.Tensor, cfg: LogMelConfig) -> torch.Tensor:
    pad = (cfg.n_fft - cfg.win_length) // 2
    mel = torchaudio.transforms.MelSpectrogram(
        sample_rate=cfg.sample_rate,
        n_fft=cfg.n_fft,
        win_length=cfg.win_length,
        hop_length=cfg.hop_length,
        f_min=cfg.f_min,
        f_max=cfg.f_max,
        n_mels=cfg.n_mels,
        power=2.0,
        center=False,
        norm=None,
        mel_scale="htk",
    )
    return torch.log(mel(torch.nn.functional.pad(wave, (pad, pad))) + cfg.floor)


def waves() -> torch.Tensor:
    rng = np.random.default_rng(0)
    t = np.arange(16_000) / 16_000
    rows = [
        0.1 * rng.standard_normal(16_000),
        np.sin(2 * np.pi * 440 * t),
        0.3 * np.sin(2 * np.pi * (400 * t + 300 * t**2)) * (np.sin(2 * np.pi * 3 * t) > 0),
        1e-3 * rng.standard_normal(16_000),
    ]
    return torch.from_numpy(np.stack(rows).astype(np.float32))


@pytest.mark.parametrize("n_mels", [64, 128])
def test_agrees_with_torchaudio(n_mels: int) -> None:
    cfg = preset("tiny", n_mels=n_mels).log_mel
    front_end = LogMel(cfg)
    x = waves()
    ours, theirs = front_end(x), reference(front_end.normalise(x), cfg)
    assert ours.shape == (4, n_mels, 98)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("samples", [400, 401, 16_000, 24_321])
def test_any_length_of_at_least_one_window(samples: int) -> None:
    assert LogMel(LogMelConfig())(torch.randn(2, samples)).shape == (2, 64, (samples - 400) // 160 + 1)


def test_too_short_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 400 samples, got 399"):
        LogMel(LogMelConfig())(torch.zeros(1, 399))


def test_gain_does_not_matter() -> None:
    x = waves()[:3]
    front_end = LogMel(LogMelConfig())
    # rms_floor leaves a little: 20 dB down, the quietest row here loses 1 % of its level
    torch.testing.assert_close(front_end(0.1 * x), front_end(x), atol=0.03, rtol=0)


def test_silence_is_the_floor() -> None:
    cfg = LogMelConfig()
    assert torch.allclose(LogMel(cfg)(torch.zeros(1, 16_000)), torch.tensor(cfg.floor).log())


def test_power_stays_inside_fp16() -> None:
    """The worst case is all energy in one window: a device that computes in fp16 must not overflow at 65504."""
    x = torch.zeros(1, 16_000)
    x[0, 4000:4400] = torch.sin(torch.arange(400) * 0.4)
    front_end = LogMel(LogMelConfig())
    assert front_end.mel_power(front_end.normalise(x)).max() < 65_504 / 4


def test_buffers_are_not_weights() -> None:
    front_end = LogMel(LogMelConfig())
    assert not list(front_end.parameters())
    assert not front_end.state_dict()
