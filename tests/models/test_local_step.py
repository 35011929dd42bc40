"""One site's step: by hand where it can be, bit for bit where it must be."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.adapters import adapter_schema, get_vector
from models.errors import ConfigError, DataError, FederationError, UpdateRejected
from models.local_step import (
    LocalConfig,
    draw_chances,
    local_step,
    losses,
    normaliser,
    pool_tokens,
    select_tokens,
)
from models.network import Outputs
from models.seeds import derive_seed, local_seed
from tests.models.helpers import made_up_frames, made_up_tokens, tiny_net

CFG = LocalConfig(steps=3, batch_size=8, lr=0.05)


def test_equal_inputs_equal_bits() -> None:
    net, data = tiny_net(), made_up_tokens(1)
    theta = get_vector(net)
    one = local_step(net, data, theta, CFG, 5)
    torch.set_num_threads(2)
    two = local_step(tiny_net(), data, theta, CFG, 5)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    assert one.delta.tobytes() == two.delta.tobytes()
    assert one.losses == two.losses
    assert local_step(net, data, theta, CFG, 6).delta.tobytes() != one.delta.tobytes()


@pytest.mark.slow
def test_equal_bits_in_another_process() -> None:
    program = (
        "import hashlib, torch; torch.set_num_threads(2)\n"
        "from tests.models.helpers import made_up_tokens, tiny_net\n"
        "from models.adapters import get_vector\n"
        "from models.local_step import LocalConfig, local_step\n"
        "net = tiny_net()\n"
        "r = local_step(net, made_up_tokens(1), get_vector(net), LocalConfig(steps=3, batch_size=8, lr=0.05), 5)\n"
        "print(hashlib.sha256(r.delta.tobytes()).hexdigest())"
    )
    root = Path(__file__).resolve().parents[2]
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    net = tiny_net()
    import hashlib

    here = local_step(net, made_up_tokens(1), get_vector(net), CFG, 5)
    assert run.stdout.strip() == hashlib.sha256(here.delta.tobytes()).hexdigest()


def test_leaves_the_network_as_it_was() -> None:
    net = tiny_net()
    theta = get_vector(net)
    given = theta + np.float32(0.01)
    local_step(net, made_up_tokens(1), given, CFG, 5)
    np.testing.assert_array_equal(get_vector(net), given)


def test_one_step_is_the_gradient() -> None:
    """One step without momentum or clipping: Δ = η (∇L + control), so two controls' Δ differ by η times their difference."""
    net, data = tiny_net(), made_up_tokens(1)
    theta = get_vector(net)
    cfg = LocalConfig(steps=1, batch_size=8, lr=0.1, momentum=0.0, prox_mu=0.5, grad_clip=0.0)
    control = np.random.default_rng(0).standard_normal(theta.shape).astype(np.float32)
    plain = local_step(net, data, theta, cfg, 5)
    moved = local_step(net, data, theta, cfg, 5, control)
    np.testing.assert_allclose(moved.delta - plain.delta, 0.1 * control, atol=1e-5)


def test_momentum_and_prox_by_hand() -> None:
    """Loss weights 0, control 1: g_k = 1 + μ (y_k − θ) with η = 0.1, ρ = 0.5, μ = 2.

    v1 = 1, y1 − θ = −0.1; g2 = 1 − 0.2 = 0.8, v2 = 0.5 + 0.8 = 1.3, y2 − θ = −0.23, so Δ = 0.23.
    """
    net = tiny_net()
    theta = np.zeros(adapter_schema(net).size, dtype=np.float32)
    cfg = LocalConfig(
        steps=2,
        batch_size=4,
        lr=0.1,
        momentum=0.5,
        prox_mu=2.0,
        gate_weight=0,
        reason_weight=0,
        energy_weight=0,
    )
    result = local_step(net, made_up_tokens(1), theta, cfg, 5, np.ones_like(theta))
    np.testing.assert_allclose(result.delta, 0.23, atol=1e-6)


def test_normaliser_by_hand() -> None:
    """Plain SGD: K η. Momentum ½, K = 2, η = 0.1: velocities 1 and 1.5 along a constant gradient, so 0.25."""
    assert normaliser(7, 0.1, 0.0) == pytest.approx(0.7)
    assert normaliser(2, 0.1, 0.5) == pytest.approx(0.25)


def test_losses_by_hand() -> None:
    """Cry with logits 0 (energy −ln 3 ≈ −1.0986) and a non-cry with energy −3, margins −2 and −1."""
    out = Outputs(torch.tensor([0.0, 0.0]), torch.zeros(2, 3), torch.tensor([-1.0986, -3.0]))
    cfg = LocalConfig(energy_in=-2.0, energy_out=-1.0, label_smoothing=0.0)
    terms = losses(out, torch.tensor([1, 0]), torch.tensor([2, -1]), cfg)
    assert terms["gate"].item() == pytest.approx(np.log(2))
    assert terms["reason"].item() == pytest.approx(np.log(3), rel=1e-5)
    assert terms["energy"].item() == pytest.approx((2 - 1.0986) ** 2 + 4.0)


def test_losses_with_one_side_missing_are_finite() -> None:
    out = Outputs(torch.zeros(2), torch.zeros(2, 3), torch.zeros(2))
    for gate in (0, 1):
        terms = losses(out, torch.tensor([gate, gate]), torch.tensor([-1, -1]), LocalConfig())
        assert all(torch.isfinite(t) for t in terms.values())
        assert terms["reason"].item() == 0.0


def test_chances_are_balanced() -> None:
    """4 cries of reason 0, 1 of reason 1, 5 non-cries: each reason a quarter, the non-cries a half; left-out frames never."""
    data = made_up_tokens(0, 11)
    data = replace(
        data,
        gate=np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0, -1], dtype=np.int8),
        reason=np.array([0, 0, 0, 0, 1, -1, -1, -1, -1, -1, -1], dtype=np.int16),
    )
    chances = draw_chances(data)
    np.testing.assert_allclose(chances, [1 / 16] * 4 + [1 / 4] + [1 / 10] * 5 + [0])


def test_chances_with_only_cries() -> None:
    data = made_up_tokens(0, 4)
    data = replace(data, gate=np.ones(4, dtype=np.int8), reason=np.array([0, 0, 2, -1], dtype=np.int16))
    np.testing.assert_allclose(draw_chances(data), [1 / 6, 1 / 6, 1 / 3, 1 / 3])


def test_it_learns() -> None:
    net, data = tiny_net(), made_up_tokens(1)
    cfg = LocalConfig(steps=150, batch_size=16, lr=0.1)
    early = local_step(net, data, get_vector(net), replace(cfg, steps=5), 5)
    late = local_step(net, data, get_vector(net), cfg, 5)
    assert late.losses["gate"] < 0.8 * early.losses["gate"]
    assert late.losses["reason"] < 0.8 * early.losses["reason"]


def test_a_loss_that_is_not_finite_is_refused() -> None:
    net, data = tiny_net(), made_up_tokens(1)
    theta = get_vector(net)
    data.tokens[:, 0, 0] = np.nan
    with pytest.raises(UpdateRejected, match="not finite"):
        local_step(net, data, theta, CFG, 5)
    np.testing.assert_array_equal(get_vector(net), theta)


def test_an_exploding_step_is_refused() -> None:
    net = tiny_net()
    cfg = LocalConfig(steps=5, batch_size=8, lr=1e38, grad_clip=0.0)
    with pytest.raises(UpdateRejected, match="lower lr"):
        local_step(net, made_up_tokens(1), get_vector(net), cfg, 5)


def test_what_does_not_fit_is_refused() -> None:
    net, data = tiny_net(), made_up_tokens(1)
    theta = get_vector(net)
    with pytest.raises(FederationError, match="needs float32"):
        local_step(net, data, theta[:-1], CFG, 5)
    with pytest.raises(FederationError, match="control variate"):
        local_step(net, data, theta, CFG, 5, theta[:-1])
    with pytest.raises(DataError, match="another network"):
        local_step(net, replace(data, tokens=data.tokens[:, :, :-1]), theta, CFG, 5)
    with pytest.raises(DataError, match="reasons below 3"):
        local_step(net, replace(data, reason=data.reason + 5), theta, CFG, 5)
    with pytest.raises(ConfigError, match="steps ≥ 1"):
        LocalConfig(steps=0)
    with pytest.raises(ConfigError, match="lr > 0"):
        LocalConfig(lr=-1.0)


def test_seed_is_the_houses() -> None:
    assert local_seed(3, "ward1", 12) == derive_seed(3, "local", "ward1", 12)


def test_select_tokens_weighs_clips_equally() -> None:
    frames = made_up_frames(clips=6)
    tokens = np.arange(18, dtype=np.float16).reshape(18, 1, 1)
    data = select_tokens(tokens, frames, part=1)  # clips 1 and 4
    assert data.tokens[:, 0, 0].tolist() == [3, 4, 5, 12, 13, 14]
    assert data.gate.tolist() == [1, 1, 1, 0, 0, 0]
    np.testing.assert_allclose(data.weight, 1 / 3)


def test_select_tokens_refuses() -> None:
    frames = made_up_frames(clips=6)
    with pytest.raises(DataError, match="cache is stale"):
        select_tokens(np.zeros((17, 1, 1), dtype=np.float16), frames)
    with pytest.raises(DataError, match="no labelled frame"):
        select_tokens(
            np.zeros((18, 1, 1), dtype=np.float16), replace(frames, gate=np.full(6, -1, dtype=np.int8))
        )


def test_pool() -> None:
    pooled = pool_tokens([made_up_tokens(1, 5), made_up_tokens(2, 7)])
    assert len(pooled) == 12
    assert pooled.tokens.shape[0] == 12
