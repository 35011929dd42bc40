"""What a site sends, and what it keeps: the same vector, to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from models.adapters import get_vector
from models.control_variates import Control
from models.errors import UpdateRejected
from models.local_step import LocalConfig, LocalResult, local_step, normaliser
from models.quantise import Quantiser, QuantiserConfig
from models.seeds import rotation_seed
from models.site_update import encode_update, site_update
from tests.models.helpers import made_up_tokens, tiny_net

LOCAL = LocalConfig(steps=3, batch_size=8, lr=0.05)
REFERENCE = normaliser(LOCAL.steps, LOCAL.lr, LOCAL.momentum)


def quantiser(size: int, clip: float = 1.0, bits: int = 8) -> Quantiser:
    return Quantiser(size, QuantiserConfig(clip=clip, bits=bits), rotation_seed(1, 1))


def test_without_a_codec_it_is_the_local_step() -> None:
    net, data = tiny_net(), made_up_tokens(1)
    theta = get_vector(net)
    update = site_update(net, data, theta, LOCAL, 5)
    assert update.levels is None
    assert update.variate is None
    np.testing.assert_array_equal(update.update, local_step(net, data, theta, LOCAL, 5).delta)


def test_the_variate_holds_what_the_server_decodes() -> None:
    net, data = tiny_net(), made_up_tokens(1)
    theta = get_vector(net)
    rng = np.random.default_rng(0)
    control = Control(
        (0.01 * rng.standard_normal(theta.size)).astype(np.float32), 0.01 * rng.standard_normal(theta.size)
    )
    q = quantiser(theta.size, clip=0.02)
    update = site_update(net, data, theta, LOCAL, 5, control=control, quantiser=q)
    assert update.levels is not None
    decoded = q.decode_sum(update.levels, 1)
    np.testing.assert_array_equal(update.update, decoded)
    expected = control.own - control.server + decoded / normaliser(3, 0.05, LOCAL.momentum)
    np.testing.assert_array_equal(update.variate, expected)
    assert not update.inside
    assert np.linalg.norm(decoded) == pytest.approx(0.02, rel=0.05)


def test_control_changes_the_step_by_its_correction() -> None:
    """One plain step: y = θ − η (g + c − c_i), so û grows by η (c − c_i)."""
    net, data = tiny_net(), made_up_tokens(1)
    theta = get_vector(net)
    one = LocalConfig(steps=1, batch_size=8, lr=0.05, momentum=0.0, prox_mu=0.0)
    server = np.full(theta.size, 0.25, np.float32)
    own = np.full(theta.size, 0.05)
    plain = site_update(net, data, theta, one, 5).update
    moved = site_update(net, data, theta, one, 5, control=Control(server, own)).update
    np.testing.assert_allclose(moved - plain, 0.05 * 0.2, atol=1e-6)


def test_unequal_steps_are_put_on_one_scale() -> None:
    """With a constant gradient K steps move A_K; û = A_ref/A_K · Δ is then the same for every K."""
    direction = np.linspace(-1, 1, 50).astype(np.float32)
    updates = []
    for steps in (1, 3, 9):
        a = normaliser(steps, LOCAL.lr, LOCAL.momentum)
        result = LocalResult((a * direction).astype(np.float32), a, {}, steps)
        updates.append(encode_update(result, REFERENCE, 1).update)
    np.testing.assert_allclose(updates[0], updates[1], rtol=1e-5)
    np.testing.assert_allclose(updates[2], updates[1], rtol=1e-5)


def test_equal_inputs_give_equal_levels_and_other_seeds_other_rounding() -> None:
    net, data = tiny_net(), made_up_tokens(1)
    theta = get_vector(net)
    q = quantiser(theta.size)
    one, two = (site_update(net, data, theta, LOCAL, 5, quantiser=q).levels for _ in range(2))
    assert one is not None
    assert two is not None
    np.testing.assert_array_equal(one, two)
    result = local_step(net, data, theta, LOCAL, 5)
    other = encode_update(result, REFERENCE, 6, quantiser=q).levels
    assert other is not None
    assert 0.05 < (other != one).mean() < 0.95


def test_a_movement_that_overflows_is_not_sent() -> None:
    result = LocalResult(np.full(4, 1e38, np.float32), 1e-300, {}, 1)
    with np.errstate(over="ignore"), pytest.raises(UpdateRejected, match="common scale"):
        encode_update(result, REFERENCE, 1)
