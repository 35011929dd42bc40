"""Shapes, sizes and masks of the network and its presets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.adapters import adapter_schema
from models.config import ModelConfig, preset
from models.denoiser import Denoiser, denoising_loss
from models.errors import ConfigError
from models.network import CryNet
from models.state import count_parameters

REASONS = ("hungry", "tired", "discomfort", "belly_pain", "burping")


def test_paper_preset_has_the_papers_size() -> None:
    """18.7 M in all and 1.86 M in adapters and heads, each within 2 %, and at most 458 blocks of 4096."""
    net = CryNet(preset("paper"), REASONS)
    count = count_parameters(net)
    assert count.total == pytest.approx(18.7e6, rel=0.02)
    assert count.trained == pytest.approx(1.86e6, rel=0.02)
    assert count.trained <= 1_875_968
    assert adapter_schema(net).size == count.trained
    assert count.total == count.trained + count.denoiser + count.tokenizer + count.transformer
    assert count_parameters(CryNet(preset("paper", n_mels=128), REASONS)).total == pytest.approx(
        18.7e6, rel=0.02
    )


@pytest.mark.parametrize("name", ["tiny", "compact"])
@pytest.mark.parametrize("n_mels", [64, 128])
@pytest.mark.parametrize("causal", [False, True])
def test_shapes(name: str, n_mels: int, causal: bool) -> None:
    net = CryNet(preset(name, n_mels=n_mels, causal=causal), REASONS).eval()
    wave = torch.randn(3, 16_000)
    log_mel = net.log_mel(wave)
    assert log_mel.shape == (3, n_mels, 98)
    assert net.denoise(log_mel).shape == (3, n_mels, 98)
    tokens = net.tokens(log_mel)
    assert tokens.shape == (3, 24 * n_mels // 64, net.cfg.d_model)
    out = net.classify(tokens)
    assert out.gate_logit.shape == (3,)
    assert out.reason_logits.shape == (3, 5)
    torch.testing.assert_close(out.energy, -torch.logsumexp(out.reason_logits, dim=1))
    torch.testing.assert_close(net(wave).gate_logit, out.gate_logit)


@pytest.mark.parametrize("n_mels", [64, 128])
def test_causal_mask_hides_the_future(n_mels: int) -> None:
    """A change at time step 10 of every band moves outputs from step 10 on and none before; unmasked, all move."""
    for causal in (True, False):
        net = CryNet(preset("tiny", n_mels=n_mels, causal=causal), REASONS)
        length, bands = net.cfg.n_tokens, net.cfg.n_bands
        steps = length // bands
        tokens = torch.randn(1, length, net.cfg.d_model)
        changed = tokens.clone()
        # a random change: LayerNorm would swallow a constant one
        changed[:, [b * steps + 10 for b in range(bands)]] = torch.randn(1, bands, net.cfg.d_model)
        with torch.no_grad():
            difference = (net.transformer(changed) - net.transformer(tokens)).abs()
        moved = difference.amax(dim=(0, 2)).reshape(bands, steps)
        assert (moved[:, 10:] > 1e-6).all()
        assert (moved[:, :10] == 0).all() if causal else (moved[:, :10] > 1e-6).all()


def test_same_seed_same_network() -> None:
    a, b, c = (CryNet(preset("tiny"), REASONS, seed=s) for s in (1, 1, 2))
    for (name, x), y in zip(a.named_parameters(), b.parameters(), strict=True):
        assert torch.equal(x, y), name
    assert not torch.equal(a.tokenizer.project.weight, c.tokenizer.project.weight)


def test_building_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    CryNet(preset("tiny"), REASONS, seed=3)
    assert torch.equal(torch.rand(1), expected)


def test_untrained_denoiser_is_the_identity() -> None:
    x = torch.randn(2, 64, 98)
    torch.testing.assert_close(Denoiser(8, 64)(x), x)


def test_denoising_loss_by_hand() -> None:
    """Error [[1, 0], [0, 0]]: mean square 1/4; differences along time and along frequency (-1, 0): 1/2 each."""
    error = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    loss = denoising_loss(error, torch.zeros_like(error), lambda_t=0.1, lambda_f=10.0)
    assert loss.item() == pytest.approx(0.25 + 0.1 * 0.5 + 10.0 * 0.5)


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown model preset 'huge'"):
        preset("huge")
    with pytest.raises(ConfigError, match="n_mels=80"):
        preset("tiny", n_mels=80)
    with pytest.raises(ConfigError, match="two distinct labels"):
        CryNet(preset("tiny"), ["hungry"])


def test_config_round_trip() -> None:
    cfg = preset("paper", n_mels=128, causal=True)
    assert ModelConfig.from_dict(cfg.to_dict()) == cfg
    assert np.isfinite(cfg.log_mel.mean)
