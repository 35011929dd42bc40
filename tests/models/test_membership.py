"""Membership inference: it finds what was learned by heart, and nothing where there is nothing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from models.adapters import Vector, get_vector
from models.dp_step import PrivacyConfig, dp_local_step
from models.errors import DataError, FederationError
from models.infants import InfantTokens
from models.local_step import LocalConfig, local_step
from models.membership import (
    Attack,
    alignment_scores,
    calibrated_scores,
    infant_losses,
    judge,
    loss_scores,
    regression_scores,
    tpr_at_fpr,
    unit_gradients,
)
from models.metrics import auroc
from tests.models.helpers import made_up_tokens, tiny_net

CFG = LocalConfig(steps=100, batch_size=24, lr=0.15)


@pytest.fixture(scope="module")
def population() -> tuple[InfantTokens, np.ndarray]:
    """60 infants of three frames with labels drawn at random, every other one a member: only memory can tell."""
    rng = np.random.default_rng(0)
    data = made_up_tokens(5, 180)
    gate = rng.integers(0, 2, 180).astype(np.int8)
    reason = np.where(gate == 1, rng.integers(0, 3, 180), -1).astype(np.int16)
    infants = InfantTokens(dataclasses.replace(data, gate=gate, reason=reason), np.repeat(np.arange(60), 3))
    return infants, np.arange(60) % 2 == 0


@pytest.fixture(scope="module")
def learned(population: tuple[InfantTokens, np.ndarray]) -> Vector:
    """θ trained on the members until it knows them by heart."""
    infants, member = population
    net = tiny_net()
    theta = get_vector(net)
    return theta - local_step(net, infants.select(np.flatnonzero(member)).tokens, theta, CFG, 1).delta


def test_an_overfit_model_is_attacked(population, learned) -> None:
    infants, member = population
    attack = judge(loss_scores(infant_losses(tiny_net(), infants, learned, CFG)), member, seed=0)
    assert attack.auc.value > 0.9
    assert attack.auc.low > 0.7
    assert attack.tpr.value > 0.3
    assert (attack.members, attack.others) == (30, 30)


def test_the_sum_of_a_round_is_attacked(population) -> None:
    """A round of 15 steps from a θ that has learned other infants' frames: each member has left its own direction in Δ."""
    infants, member = population
    net = tiny_net()
    start = get_vector(net)
    theta = (
        start
        - local_step(net, made_up_tokens(77, 180), start, dataclasses.replace(CFG, steps=30, lr=0.1), 3).delta
    )
    members = infants.select(np.flatnonzero(member)).tokens
    update = local_step(net, members, theta, dataclasses.replace(CFG, steps=15, lr=0.1), 1).delta
    units = unit_gradients(net, infants, theta, CFG)
    np.testing.assert_allclose(np.linalg.norm(units, axis=1), 1.0, rtol=1e-5)
    assert auroc(alignment_scores(units, update), member) > 0.6
    assert auroc(regression_scores(units, update), member) > 0.7
    np.testing.assert_allclose(
        alignment_scores(units, 7 * update), alignment_scores(units, update), rtol=1e-5
    )


def test_regression_sees_past_what_all_infants_share() -> None:
    """Gradients 0.95 alike, Δ the members' sum with lengths of their own: the cosine is lost in the shared part."""
    rng = np.random.default_rng(0)
    member = np.arange(80) % 2 == 0
    own, shared = rng.standard_normal((80, 2000)), 4.0 * rng.standard_normal(2000)
    units = (own + shared * rng.uniform(0.5, 1.5, (80, 1))).astype(np.float32)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    update = units[member].sum(0)
    assert auroc(alignment_scores(units, update), member) < 0.7
    assert auroc(regression_scores(units, update), member) > 0.95


def test_an_untrained_model_gives_nothing_away(population) -> None:
    """Random membership, no training: the interval holds 0.5, for the losses and for a random update."""
    infants, _ = population
    net = tiny_net()
    theta = get_vector(net)
    rng = np.random.default_rng(3)
    member = rng.permutation(np.arange(60) % 2 == 0)
    units, update = unit_gradients(net, infants, theta, CFG), rng.standard_normal(theta.shape)
    for scores in (
        loss_scores(infant_losses(net, infants, theta, CFG)),
        alignment_scores(units, update),
        regression_scores(units, update),
    ):
        attack = judge(scores, member, seed=0)
        assert attack.auc.low < 0.5 < attack.auc.high
        assert 0.3 < attack.auc.value < 0.7


def test_noise_defeats_the_attack(population) -> None:
    """The same infants under DP-SGD with σ = 4: nothing left to find."""
    infants, member = population
    net = tiny_net()
    theta = get_vector(net)
    privacy = PrivacyConfig(noise_multiplier=4.0, infants_per_step=8, delta=1e-3)
    cfg = dataclasses.replace(CFG, steps=15, lr=0.05)
    source = np.random.default_rng(0).bytes
    step = dp_local_step(net, infants.select(np.flatnonzero(member)), theta, cfg, privacy, source=source)
    attack = judge(loss_scores(infant_losses(net, infants, theta - step.delta, cfg)), member, seed=0)
    assert attack.auc.low < 0.5 < attack.auc.high


def test_calibration_sees_through_difficulty() -> None:
    """Infants differ by 3 in difficulty, members gain 1: hardly seen in the loss, plainly against references."""
    rng = np.random.default_rng(0)
    member = np.arange(400) % 2 == 0
    difficulty = 3 * rng.standard_normal(400)
    losses = difficulty - member + 0.3 * rng.standard_normal(400)
    used = rng.random((8, 400)) < 0.5
    used[0], used[1] = True, False
    reference = difficulty - used + 0.3 * rng.standard_normal((8, 400))
    assert auroc(loss_scores(losses), member) < 0.7
    assert auroc(calibrated_scores(losses, reference, used), member) > 0.95


def test_calibration_by_hand() -> None:
    """Infant 0 is out of both references (mean 3), infant 1 out of the second alone (5)."""
    scores = calibrated_scores([1.0, 2.0], [[2.0, 9.0], [4.0, 5.0]], [[False, True], [False, False]])
    assert scores.tolist() == [2.0, 3.0]
    with pytest.raises(DataError, match="every reference model"):
        calibrated_scores([1.0], [[2.0]], [[True]])


def test_tpr_at_fpr_by_hand() -> None:
    """Falling scores: member, member, other, member, then 99 others: at 1 of 100 false accusations all three are found."""
    score = -np.arange(103.0)
    member = np.zeros(103, bool)
    member[[0, 1, 3]] = True
    assert tpr_at_fpr(score, member) == pytest.approx(1.0)
    assert tpr_at_fpr(score, member, fpr=0.005) == pytest.approx(2 / 3)
    weight = np.ones((2, 103))
    weight[1, 2] = 2  # that other was drawn twice: 2 of 101 is more than 1 %
    np.testing.assert_allclose(tpr_at_fpr(score, member, weight), [1.0, 2 / 3])


def test_equal_scores_find_no_one() -> None:
    attack = judge(np.zeros(20), np.arange(20) < 10, seed=0)
    assert attack.auc.value == 0.5
    assert attack.tpr.value == 0.0


def test_without_members_there_is_no_number() -> None:
    attack = judge(np.arange(5.0), np.zeros(5, bool), seed=0)
    assert np.isnan(attack.auc.value)
    assert np.isnan(attack.tpr.value)
    assert attack.to_dict()["auc"]["value"] is None  # type: ignore[index]


def test_json() -> None:
    attack = judge(np.arange(40.0), np.arange(40) > 15, seed=0)
    assert isinstance(attack, Attack)
    found = attack.to_dict()
    assert found["members"] == 24
    assert set(found) == {"auc", "tpr_at_1_percent_fpr", "members", "others"}


def test_what_does_not_fit_is_refused(population) -> None:
    infants, _ = population
    net = tiny_net()
    theta = get_vector(net)
    with pytest.raises(FederationError, match="needs float32"):
        infant_losses(net, infants, theta[:-1], CFG)
    with pytest.raises(FederationError, match="needs float32"):
        unit_gradients(net, infants, theta[:-1], CFG)
    with pytest.raises(DataError, match="against gradients"):
        alignment_scores(np.ones((2, 3), np.float32), np.ones(4))
