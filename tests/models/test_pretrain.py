"""Pretraining on a made-up pool: it learns, touches what it should, and repeats bit for bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.adapters import is_trained
from models.errors import ConfigError, DataError
from models.network import CryNet
from models.pretrain import (
    BackboneConfig,
    DenoiserConfig,
    PretrainSet,
    Progress,
    lowest_snr,
    pretrain_backbone,
    pretrain_denoiser,
)
from models.state import to_arrays
from tests.models.helpers import tiny_net

DENOISER = DenoiserConfig(steps=40, batch_size=16, threads=1)
BACKBONE = BackboneConfig(steps=150, batch_size=16, lr=3e-3, threads=1)


def made_up_pool(n: int = 60, seed: int = 0) -> PretrainSet:
    """Cries are ridges whose height over the mel axis moves with the first attribute; noise is flat."""
    rng = np.random.default_rng(seed)
    gate = (np.arange(n) % 3 != 0).astype(np.int8)
    slope = rng.uniform(-1, 1, n)
    time = np.linspace(-1, 1, 98)
    ridge = 32 + 20 * slope[:, None] * time[None, :]
    power = np.exp(-0.5 * ((np.arange(64)[None, :, None] - ridge[:, None, :]) / 2) ** 2) * gate[:, None, None]
    log_mel = np.log(3 * power + 0.02 * rng.exponential(1, power.shape) + 1e-4)
    noise = np.log(0.3 * rng.exponential(1, (20, 64, 98)) + 1e-4)
    attributes = np.where(gate[:, None] == 1, np.stack([slope, rng.uniform(-1, 1, n)], axis=1), np.nan)
    return PretrainSet(
        log_mel.astype(np.float16), gate, attributes.astype(np.float32), noise.astype(np.float16)
    )


def changed(net: CryNet, before: dict[str, np.ndarray]) -> set[str]:
    return {name for name, value in to_arrays(net).items() if not np.array_equal(value, before[name])}


def test_denoiser_learns_and_touches_nothing_else() -> None:
    net, seen = tiny_net(), list[Progress]()
    before = to_arrays(net)
    last = pretrain_denoiser(net, made_up_pool(), DENOISER, seen.append)
    assert {n.split(".")[0] for n in changed(net, before)} == {"denoiser"}
    assert last["total"] < 0.8 * seen[0].losses["total"]
    assert seen[-1].step == DENOISER.steps
    assert last == seen[-1].losses


def test_backbone_learns_and_leaves_denoiser_adapters_and_reasons_alone() -> None:
    net, seen = tiny_net(), list[Progress]()
    before = to_arrays(net)
    last = pretrain_backbone(net, made_up_pool(), BACKBONE, seen.append)
    touched = changed(net, before)
    assert {n.split(".")[0] for n in touched} == {"tokenizer", "transformer", "gate_head"}
    assert not [n for n in touched if "lora_" in n]
    assert {n for n in before if "transformer" in n and "lora_" not in n} <= touched
    assert last["gate"] < 0.8 * seen[0].losses["gate"]
    assert last["attributes"] < seen[0].losses["attributes"]


def test_equal_inputs_equal_bits() -> None:
    made = []
    for threads_before in (1, 2):
        torch.set_num_threads(threads_before)
        torch.manual_seed(threads_before)
        net = tiny_net()
        pretrain_denoiser(net, made_up_pool(), replace(DENOISER, steps=3, threads=2))
        pretrain_backbone(net, made_up_pool(), replace(BACKBONE, steps=3, threads=2))
        assert torch.get_num_threads() == threads_before
        made.append(to_arrays(net))
    torch.set_num_threads(1)
    for name in made[0]:
        assert made[0][name].tobytes() == made[1][name].tobytes(), name


def test_federated_parameters_are_the_ones_left() -> None:
    """After both stages only adapters and the reason head still hold their initial values."""
    net = tiny_net()
    before = to_arrays(net)
    pretrain_denoiser(net, made_up_pool(), DENOISER)
    pretrain_backbone(net, made_up_pool(), BACKBONE)
    kept = set(before) - changed(net, before)
    assert all(is_trained(n, freeze_a=False) for n in kept)


def test_noise_grows() -> None:
    """From 20 to −5 dB over 40 of 100 steps: half way at 20, at the bottom from 40 on; without a ramp at once."""
    cfg = BackboneConfig(steps=100, noise_ramp=0.4, snr_low=-5.0, snr_high=20.0)
    assert [lowest_snr(k, cfg) for k in (20, 40, 100)] == pytest.approx([7.5, -5.0, -5.0])
    assert lowest_snr(1, replace(cfg, noise_ramp=0.0)) == -5.0


def test_refusals() -> None:
    net, pool = tiny_net(), made_up_pool()
    with pytest.raises(ConfigError, match="batch_size ≥ 4"):
        pretrain_denoiser(net, pool, replace(DENOISER, batch_size=2))
    with pytest.raises(DataError, match="noise is \\(0, 64, 98\\)"):
        pretrain_denoiser(net, replace(pool, noise=pool.noise[:0]), DENOISER)
    with pytest.raises(DataError, match="different lengths"):
        pretrain_backbone(net, replace(pool, gate=pool.gate[1:]), BACKBONE)
    with pytest.raises(DataError, match="cries with attributes and non-cries"):
        pretrain_backbone(net, replace(pool, gate=np.ones_like(pool.gate)), BACKBONE)
    broken = pool.log_mel.copy()
    broken[:] = np.nan
    with pytest.raises(DataError, match="diverged at step 1 of 40"):
        pretrain_denoiser(net, replace(pool, log_mel=broken), DENOISER)
