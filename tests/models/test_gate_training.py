"""Training the gate: what learns, what stays, and that the federation equals its own algebra."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.config import preset
from models.errors import ConfigError, DataError
from models.frames import TRAIN, SiteFrames
from models.gate_batches import AugmentConfig, GateBatches
from models.gate_training import (
    GateConfig,
    gate_vector,
    nesterov,
    set_gate_vector,
    train_gate,
    train_gate_federated,
    upload_bytes,
)
from models.metrics import auroc
from models.network import CryNet
from models.predict import predict

CFG = preset("tiny")
MEL = CFG.log_mel
QUICK = GateConfig(steps=40, batch_size=8, rounds=8, local_steps=4, local_batch_size=8, lr=3e-3)


def frames(name: str, gate: list[int], seed: int) -> SiteFrames:
    """Noise; a cry has a band of its own, a little louder."""
    rng = np.random.default_rng(seed)
    mel = rng.normal(-2.0, 1.0, (4 * len(gate), MEL.n_mels, MEL.n_frames))
    clip = np.repeat(np.arange(len(gate)), 4)
    mel[np.array(gate)[clip] == 1, 20:30] += 1.5
    return SiteFrames(
        site=name, reasons=("hungry", "tired"), log_mel=mel.astype(np.float16), clip=clip.astype(np.int32),
        view=np.zeros(len(clip), np.int16), snr_db=np.full(len(clip), np.nan, np.float32), gate=np.array(gate, np.int8),
        reason=np.where(np.array(gate) == 1, 0, -1).astype(np.int16), part=np.full(len(gate), TRAIN, np.int8),
        group=np.array([f"{name}{i}" for i in range(len(gate))]), clip_id=np.array([f"{name}{i}" for i in range(len(gate))]),
        label=np.array(["x"] * len(gate)),
    )  # fmt: skip


@pytest.fixture
def net() -> CryNet:
    return CryNet(CFG, ("hungry", "tired"), seed=3)


def site(name: str, seed: int) -> GateBatches:
    return GateBatches([frames(name, [1, 0] * 6, seed)], frames("", [0] * 6, 99), MEL)


@pytest.mark.parametrize("how", ["central", "federated"])
def test_learns_to_tell_cries_and_leaves_the_rest_alone(net: CryNet, how: str) -> None:
    before = {k: v.clone() for k, v in net.state_dict().items()}
    if how == "central":
        train_gate(net, site("a", 1), replace(QUICK, steps=160))
    else:
        train_gate_federated(net, {"a": site("a", 1), "b": site("b", 2)}, replace(QUICK, rounds=30))
    test = predict(net, frames("t", [1, 0] * 20, 5))
    assert auroc(test.gate_logit, test.gate == 1) > 0.95
    assert auroc(-test.energy, test.gate == 1) > 0.9
    for name, value in net.state_dict().items():
        stays = name.startswith(("front_end", "denoiser")) or "lora_" in name
        assert torch.equal(value, before[name]) == stays, name
    assert not any(p.requires_grad for p in net.parameters())


def test_a_federation_of_one_site_is_that_site_alone(net: CryNet) -> None:
    """25 rounds of 8 steps, nothing averaged: the same steps as in one place."""
    cfg = replace(QUICK, steps=32, batch_size=8)
    twin = CryNet(CFG, ("hungry", "tired"), seed=3)
    one = replace(cfg, rounds=8, local_steps=4, server_lr=1.0, server_momentum=0.0, codec=None)
    losses: list[float] = []
    train_gate_federated(net, {"central": site("a", 1)}, one, 7, lambda _n, _of, loss: losses.append(loss))
    train_gate(twin, site("a", 1), cfg, 7)
    # θ goes through float32 sums θ + (y − θ), so the last bits may differ
    np.testing.assert_allclose(gate_vector(net, cfg), gate_vector(twin, cfg), atol=2e-4)
    assert len(losses) == 8


def test_eight_bits_change_little_and_are_a_quarter_of_the_bytes(net: CryNet) -> None:
    cfg = replace(QUICK, rounds=1, local_steps=3)
    start = gate_vector(net, cfg)
    ends = []
    for codec in (cfg.codec, None):
        set_gate_vector(net, cfg, start)
        train_gate_federated(net, {"a": site("a", 1), "b": site("b", 2)}, replace(cfg, codec=codec), 1)
        ends.append(gate_vector(net, cfg) - start)
    error = np.linalg.norm(ends[0] - ends[1]) / np.linalg.norm(ends[1])
    assert 0 < error < 0.1
    assert upload_bytes(net, replace(cfg, codec=None), 8) == 4 * start.size
    assert upload_bytes(net, cfg, 8) < 2.4 * start.size  # 11 bits a value, padded to blocks


def test_the_server_step_by_hand() -> None:
    cfg = replace(QUICK, server_lr=0.5, server_momentum=0.6)
    m = np.array([1.0, -2.0])
    theta, velocity = nesterov(np.zeros(2, np.float32), np.zeros(2), m, cfg)
    np.testing.assert_allclose(theta, 0.5 * 1.6 * m, rtol=1e-6)
    theta, velocity = nesterov(theta, velocity, m, cfg)
    np.testing.assert_allclose(velocity, 1.6 * m)
    np.testing.assert_allclose(theta, 0.5 * (1.6 + 1.0 + 0.6 * 1.6) * m, rtol=1e-6)


def test_equal_seeds_give_equal_bits_and_others_do_not(net: CryNet) -> None:
    cfg = replace(QUICK, rounds=2, local_steps=2)
    start = gate_vector(net, cfg)
    results = []
    for seed in (1, 1, 2):
        set_gate_vector(net, cfg, start)
        torch.manual_seed(seed + 40)  # the session's own state has no say
        train_gate_federated(net, {"a": site("a", 1), "b": site("b", 2)}, cfg, seed)
        results.append(gate_vector(net, cfg))
    assert np.array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


def test_the_denoiser_learns_only_where_its_loss_has_a_weight(net: CryNet) -> None:
    before = net.denoiser.up.weight.clone()
    train_gate(net, site("a", 1), replace(QUICK, steps=3, denoising_weight=0.5))
    assert not torch.equal(net.denoiser.up.weight, before)


def test_wrong_vectors_and_settings_are_refused(net: CryNet) -> None:
    vector = gate_vector(net, QUICK)
    with pytest.raises(DataError, match="another preset"):
        set_gate_vector(net, QUICK, vector[1:])
    vector[0] = np.nan
    with pytest.raises(DataError, match="finite"):
        set_gate_vector(net, QUICK, vector)
    with pytest.raises(ConfigError):
        GateConfig(steps=0)
    with pytest.raises(ConfigError):
        GateConfig(lr=0.0)


def test_a_training_that_diverges_says_so(net: CryNet) -> None:
    with pytest.raises(DataError, match="diverged"):
        train_gate(net, site("a", 1), replace(QUICK, lr=1e12, grad_clip=1e12, warmup=0.01))


def test_the_rate_warms_up_and_falls_to_nothing() -> None:
    cfg = GateConfig(lr=1.0, warmup=0.1)
    assert cfg.rate(0.05) == pytest.approx(0.5)
    assert cfg.rate(0.1) == pytest.approx(1.0)
    assert cfg.rate(0.55) == pytest.approx(0.5)
    assert cfg.rate(1.0) == pytest.approx(0.0)


def test_default_augmentation_is_what_is_used() -> None:
    assert site("a", 1).cfg == AugmentConfig()
