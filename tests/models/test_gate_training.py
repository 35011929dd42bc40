"""Training the gate: what learns, what stays, and that the federation equals its own algebra."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.adapters import get_vector, set_vector
from models.config import preset
from models.errors import ConfigError, FederationError, UpdateRejected
from models.frames import TRAIN, SiteFrames
from models.gate_batches import AugmentConfig, GateBatches
from models.gate_step import GateConfig, GateLearner, gate_session, gate_step, memory_size
from models.gate_training import GATE_CODEC, train_gate, train_gate_federated, upload_bytes
from models.metrics import auroc
from models.network import CryNet
from models.predict import predict
from models.seeds import local_seed
from models.server_step import RoundSum, ServerConfig, ServerState, server_step

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


def test_a_site_in_a_round_is_a_pure_function_and_leaves_the_network_as_it_was(net: CryNet) -> None:
    theta = get_vector(net, "gate")
    before = {k: v.clone() for k, v in net.state_dict().items()}
    fresh = np.zeros(memory_size(theta.size))
    (one, memory), (two, _), (other, _), (later, _) = (
        gate_step(net, site("a", 1), theta, QUICK, seed, number, fresh)
        for seed, number in ((1, 2), (1, 2), (2, 2), (1, 7))
    )
    assert not fresh.any()
    assert memory[-1] == QUICK.local_steps
    assert (memory[theta.size : -1] >= 0).all()  # second moments
    on, _ = gate_step(net, site("a", 1), theta, QUICK, 1, 2, memory)
    assert not np.array_equal(on.delta, one.delta)
    assert np.array_equal(one.delta, two.delta)
    assert not np.array_equal(one.delta, other.delta)
    assert np.linalg.norm(later.delta) < 0.5 * np.linalg.norm(one.delta)  # the rate has fallen
    assert set(one.losses) == {"gate", "reason", "energy", "total"}
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    layouts = [p.is_contiguous() for p in net.parameters()]
    assert all(layouts)


def test_moments_survive_the_way_to_disk_and_back(net: CryNet) -> None:
    """Three steps and three more, with the memory between them, are six steps to the bit."""
    ends = []
    for stops in ((6,), (3, 3)):
        twin = CryNet(CFG, ("hungry", "tired"), seed=3)
        rng_kept, memory = None, np.zeros(memory_size(get_vector(twin, "gate").size))
        for steps in stops:
            with gate_session(twin, QUICK, 0):
                learner = GateLearner(twin, site("a", 1), QUICK, 5, 8)
                learner.remember(memory)
                learner._rng = rng_kept or learner._rng
                for _ in range(steps):
                    torch.manual_seed(1)  # of the masks
                    learner.step(1e-3)
                memory, rng_kept = learner.memory(), learner._rng
        ends.append((get_vector(twin, "gate"), memory))
    np.testing.assert_array_equal(ends[0][0], ends[1][0])
    np.testing.assert_array_equal(ends[0][1], ends[1][1])


def test_a_federation_of_one_site_is_that_site_alone(net: CryNet) -> None:
    """One round of one site, nothing averaged: the same steps as in one place with the same draws."""
    cfg = replace(QUICK, rounds=1, local_steps=8)
    start = get_vector(net, "gate")
    losses: list[float] = []
    train_gate_federated(
        net, {"a": site("a", 1)}, cfg, 7, lambda _n, _of, loss: losses.append(loss),
        server=ServerConfig(), codec=None,
    )  # fmt: skip
    end = get_vector(net, "gate")
    alone, _ = gate_step(
        net, site("a", 1), start, cfg, local_seed(7, "a", 1), 1, np.zeros(memory_size(start.size))
    )
    set_vector(net, end, "gate")
    np.testing.assert_allclose(end, start - alone.delta, atol=1e-6)
    assert losses == [alone.losses["total"]]


def test_eight_bits_change_little_and_are_a_quarter_of_the_bytes(net: CryNet) -> None:
    cfg = replace(QUICK, rounds=1, local_steps=3)
    start = get_vector(net, "gate")
    ends = []
    for codec in (GATE_CODEC, None):
        set_vector(net, start, "gate")
        train_gate_federated(net, {"a": site("a", 1), "b": site("b", 2)}, cfg, 1, codec=codec)
        ends.append(get_vector(net, "gate") - start)
    error = np.linalg.norm(ends[0] - ends[1]) / np.linalg.norm(ends[1])
    assert 0 < error < 0.2  # the first clipping norm is twice what these few steps move
    assert upload_bytes(net, cfg, 8, None) == 4 * start.size
    assert upload_bytes(net, cfg, 8) < 2.4 * start.size  # 11 bits a value, padded to blocks


def test_the_server_step_by_hand() -> None:
    cfg = ServerConfig("nesterov", lr=0.5, beta1=0.6)
    m = np.array([1.0, -2.0])
    state = server_step(ServerState.initial(np.zeros(2, np.float32)), RoundSum(2 * m, 2), cfg)
    np.testing.assert_allclose(state.theta, -0.5 * 1.6 * m, rtol=1e-6)
    state = server_step(state, RoundSum(2 * m, 2), cfg)
    np.testing.assert_allclose(state.momentum, 1.6 * m)
    np.testing.assert_allclose(state.theta, -0.5 * (1.6 + 1.0 + 0.6 * 1.6) * m, rtol=1e-6)


def test_equal_seeds_give_equal_bits_and_others_do_not(net: CryNet) -> None:
    cfg = replace(QUICK, rounds=2, local_steps=2)
    start = get_vector(net, "gate")
    results = []
    for seed in (1, 1, 2):
        set_vector(net, start, "gate")
        torch.manual_seed(seed + 40)  # the session's own state has no say
        train_gate_federated(net, {"a": site("a", 1), "b": site("b", 2)}, cfg, seed)
        results.append(get_vector(net, "gate"))
    assert np.array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


def test_the_denoiser_learns_only_where_its_loss_has_a_weight(net: CryNet) -> None:
    before = net.denoiser.up.weight.clone()
    train_gate(net, site("a", 1), replace(QUICK, steps=3, denoising_weight=0.5))
    assert not torch.equal(net.denoiser.up.weight, before)


def test_wrong_vectors_and_settings_are_refused(net: CryNet) -> None:
    theta = get_vector(net, "gate")
    with pytest.raises(FederationError, match="another preset"):
        gate_step(net, site("a", 1), theta[1:], QUICK, 1, 1, np.zeros(memory_size(theta.size)))
    with pytest.raises(ConfigError):
        GateConfig(steps=0)
    with pytest.raises(ConfigError):
        GateConfig(lr=0.0)


def test_a_training_that_diverges_says_so(net: CryNet) -> None:
    with pytest.raises(UpdateRejected, match="diverged"):
        train_gate(net, site("a", 1), replace(QUICK, lr=1e12, grad_clip=1e12, warmup=0.01))


def test_the_rate_warms_up_and_falls_to_nothing() -> None:
    cfg = GateConfig(lr=1.0, warmup=0.1)
    assert cfg.rate(0.05) == pytest.approx(0.5)
    assert cfg.rate(0.1) == pytest.approx(1.0)
    assert cfg.rate(0.55) == pytest.approx(0.5)
    assert cfg.rate(1.0) == pytest.approx(0.0)


def test_default_augmentation_is_what_is_used() -> None:
    assert site("a", 1).cfg == AugmentConfig()
