"""DP-SGD by infant: by hand without noise, one infant's influence, the noise's size, and what a sample is."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from models.adapters import Vector, adapter_schema, get_vector, trained_parameters
from models.dp_step import Noise, PrivacyConfig, clipped_sum, dp_local_step, draw_frames
from models.errors import ConfigError, DataError, FederationError, UpdateRejected
from models.infants import InfantTokens, PerInfant, gather, infant_loss
from models.local_step import LocalConfig, TokenSet, losses, normaliser, pool_tokens
from models.network import CryNet, Outputs
from tests.models.helpers import REASONS, made_up_tokens, tiny_net

CFG = LocalConfig(steps=1, lr=0.1, momentum=0.0, prox_mu=0.0)
ALL = PrivacyConfig(noise_multiplier=0.0, clip=math.inf, infants_per_step=1000, frames_per_infant=1000)


def bytes_of(seed: int):
    return np.random.default_rng(seed).bytes


def made_up_infants(seed: int, n: int = 6, cries: int = 1, others: int = 1) -> InfantTokens:
    """`n` infants with as many cries (all with a reason) and other frames each."""
    rng = np.random.default_rng(seed)
    data = made_up_tokens(seed, n * (cries + others))
    gate = np.tile([1] * cries + [0] * others, n).astype(np.int8)
    reason = np.where(gate == 1, rng.integers(0, len(REASONS), len(gate)), -1).astype(np.int16)
    return InfantTokens(
        dataclasses.replace(data, gate=gate, reason=reason), np.repeat(np.arange(n), cries + others)
    )


def joined(*parts: InfantTokens) -> InfantTokens:
    """Several groups of infants, renumbered."""
    infant, first = [], 0
    for part in parts:
        infant.append(np.unique(part.infant, return_inverse=True)[1] + first)
        first = int(infant[-1].max()) + 1
    return InfantTokens(pool_tokens([p.tokens for p in parts]), np.concatenate(infant))


def gradient(net: CryNet, data: TokenSet, cfg: LocalConfig) -> Vector:
    """∇ of `local_step`'s loss over all frames at once, where the network stands."""
    parameters = [p.requires_grad_(True) for _, p in trained_parameters(net)]
    terms = losses(
        net.classify(torch.from_numpy(data.tokens.astype(np.float32))),
        torch.from_numpy(data.gate),
        torch.from_numpy(data.reason.astype(np.int64)),
        cfg,
    )
    total = (
        cfg.gate_weight * terms["gate"]
        + cfg.reason_weight * terms["reason"]
        + cfg.energy_weight * terms["energy"]
    )
    parts = torch.autograd.grad(total, parameters, allow_unused=True, materialize_grads=True)
    return torch.cat([x.reshape(-1) for x in parts]).numpy()


def one_sum(data: InfantTokens, clip: float, frames: int = 1000) -> np.ndarray:
    """Σ_j clip(∇L_j) as one whole step without noise gives it: Δ = η Σ / n with η = 1."""
    net = tiny_net()
    privacy = dataclasses.replace(ALL, clip=clip, frames_per_infant=frames)
    cfg = dataclasses.replace(CFG, lr=1.0)
    step = dp_local_step(net, data, get_vector(net), cfg, privacy, source=bytes_of(0))
    return step.delta.astype(np.float64) * len(data.rows)


def test_without_noise_and_clipping_it_is_full_batch_sgd() -> None:
    """σ = 0, S = ∞, q = 1, every infant with one cry and one other: all means are means of infants' means, so L = mean L_j."""
    net, data = tiny_net(), made_up_infants(1)
    theta = get_vector(net)
    result = dp_local_step(net, data, theta, CFG, ALL)
    np.testing.assert_allclose(result.delta, 0.1 * gradient(net, data.tokens, CFG), atol=1e-6)
    assert result.losses == {}
    assert (result.steps, result.normaliser) == (1, pytest.approx(0.1))
    np.testing.assert_array_equal(get_vector(net), theta)


def test_three_steps_with_momentum_prox_and_control_by_hand() -> None:
    net, data = tiny_net(), made_up_infants(2, cries=2, others=2)
    theta = get_vector(net)
    control = 0.01 * np.random.default_rng(0).standard_normal(theta.shape).astype(np.float32)
    cfg = LocalConfig(steps=3, lr=0.05, momentum=0.9, prox_mu=0.3)
    result = dp_local_step(net, data, theta, cfg, ALL, control)
    mirror = tiny_net()
    y, v = theta.copy(), np.zeros_like(theta)
    for _ in range(3):
        g = gradient(mirror, data.tokens, cfg) + control + 0.3 * (y - theta)
        v = 0.9 * v + g
        y = y - 0.05 * v
        with torch.no_grad():
            offset = 0
            for _, p in trained_parameters(mirror):
                p.copy_(torch.from_numpy(y[offset : offset + p.numel()]).view_as(p))
                offset += p.numel()
    np.testing.assert_allclose(result.delta, theta - y, atol=2e-6)
    assert result.normaliser == pytest.approx(normaliser(3, 0.05, 0.9))


def test_gradients_of_infants_of_any_size_are_their_own() -> None:
    """Padding and neighbours do not matter: nine infants (more than one chunk) of 2 to 18 frames, each alone by autograd."""
    net = tiny_net()
    data = joined(*[made_up_infants(k, n=1, cries=k, others=k) for k in range(1, 10)])
    theta = torch.from_numpy(get_vector(net))
    cfg = LocalConfig()
    found = list(PerInfant(net, data.tokens, cfg).gradients(theta, data.rows))
    assert len(found) == 9
    for k, g in enumerate(found):
        np.testing.assert_allclose(g, gradient(net, data.select([k]).tokens, cfg), atol=2e-6)


def test_loss_of_one_infant_by_hand() -> None:
    """Logits 0: cross-entropies ln 2 and ln 3, energy −ln 3. Two cries, one with a reason, one other frame, one left out.

    gate ½ ln 2 + ½ ln 2; reason ln 3; energy (2 − ln 3)² for the cries (margin −2) and (ln 3 − 1)² for the other (margin −1).
    A cry alone: ½ ln 2 and nothing of the other side.
    """
    data = made_up_tokens(0, 4)
    data = dataclasses.replace(
        data, gate=np.array([1, 1, 0, -1], np.int8), reason=np.array([-1, 2, -1, -1], np.int16)
    )
    infants = InfantTokens(data, np.zeros(4, np.int64))
    assert [r.tolist() for r in infants.rows] == [[0, 1, 2]]
    cfg = LocalConfig(energy_in=-2.0, energy_out=-1.0, label_smoothing=0.0, energy_weight=1.0)

    def value(rows: list[int]) -> float:
        batch = gather(data, [np.array(rows)])
        zero = torch.zeros(len(rows))
        out = Outputs(zero, torch.zeros(len(rows), 3), zero - math.log(3))
        return infant_loss(out, batch.gate[0], batch.reason[0], batch.share[0], cfg).item()

    inside, outside = (2 - math.log(3)) ** 2, (math.log(3) - 1) ** 2
    assert value([0, 1, 2]) == pytest.approx(math.log(2) + math.log(3) + inside + outside, rel=1e-5)
    assert value([0]) == pytest.approx(0.5 * math.log(2) + inside, rel=1e-5)


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    clip=st.floats(0.01, 3.0),
    cries=st.integers(0, 3),
    others=st.integers(0, 3),
    scale=st.sampled_from([0.0, 1.0, 100.0]),
    copies=st.sampled_from([1, 100]),
)
def test_one_infant_moves_the_sum_by_at_most_the_clip(
    seed: int, clip: float, cries: int, others: int, scale: float, copies: int
) -> None:
    """However many frames it has, and whatever is in them."""
    if cries + others == 0:
        cries = 1
    base = made_up_infants(seed, n=3)
    extra = made_up_infants(seed + 1, n=1, cries=cries, others=others)
    tokens = pool_tokens([extra.tokens] * copies)
    loud = dataclasses.replace(tokens, tokens=(tokens.tokens * np.float16(scale)).astype(np.float16))
    bigger = joined(base, InfantTokens(loud, np.zeros(len(loud), np.int64)))
    moved = one_sum(bigger, clip) - one_sum(base, clip)
    assert np.linalg.norm(moved) <= clip * (1 + 1e-3) + 1e-5


def test_frames_copied_a_hundred_times_change_nothing() -> None:
    infant = made_up_infants(3, n=1, cries=2, others=1)
    copied = InfantTokens(pool_tokens([infant.tokens] * 100), np.zeros(300, np.int64))
    np.testing.assert_allclose(one_sum(copied, 1.0), one_sum(infant, 1.0), atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), clip=st.floats(1e-3, 1e3), n=st.integers(1, 12))
def test_clipped_sum_moves_by_at_most_the_clip(seed: int, clip: float, n: int) -> None:
    rng = np.random.default_rng(seed)
    gs = (rng.standard_normal((n, 50)) * 10.0 ** rng.uniform(-3, 6, (n, 1))).astype(np.float32)
    with_all, without = clipped_sum(iter(gs), clip, 50), clipped_sum(iter(gs[1:]), clip, 50)
    assert np.linalg.norm(with_all - without) <= clip * (1 + 1e-9)


def test_a_small_gradient_is_not_blown_up_and_a_zero_one_is_zero() -> None:
    g = np.array([3e-3, 4e-3], np.float32)
    np.testing.assert_allclose(clipped_sum(iter([g, 0 * g]), 1.0, 2), g, rtol=1e-6)
    np.testing.assert_allclose(clipped_sum(iter([1000 * g]), 1.0, 2), [0.6, 0.8], rtol=1e-6)


def test_noise_has_the_standard_deviation_it_should() -> None:
    """No loss, 4 of 8 infants expected: Δ = η N(0, σ²S²) / 4 with σS = 3, η = 0.1: 0.075 a coordinate; K steps: √K times that."""
    net, data = tiny_net(), made_up_infants(0, n=8)
    silent = LocalConfig(
        steps=1, lr=0.1, momentum=0.0, prox_mu=0.0, gate_weight=0, reason_weight=0, energy_weight=0
    )
    privacy = PrivacyConfig(noise_multiplier=1.5, clip=2.0, infants_per_step=4)
    theta = get_vector(net)
    for steps in (1, 9):
        cfg = dataclasses.replace(silent, steps=steps)
        delta = dp_local_step(net, data, theta, cfg, privacy, source=bytes_of(1)).delta
        assert delta.std() == pytest.approx(0.075 * math.sqrt(steps), rel=0.04)
        assert abs(delta.mean()) < 4 * delta.std() / math.sqrt(delta.size)
        assert stats.kstest(delta / delta.std(), "norm").pvalue > 1e-3


def test_normals_are_normal_and_uniforms_uniform() -> None:
    noise = Noise(bytes_of(7))
    normal = noise.normal(100_001)
    assert normal.shape == (100_001,)
    assert stats.kstest(normal, "norm").pvalue > 1e-3
    assert abs(stats.kurtosis(normal)) < 0.08
    uniform = noise.uniform(100_000)
    assert 0 < uniform.min() <= uniform.max() < 1
    assert stats.kstest(uniform, "uniform").pvalue > 1e-3
    for extreme in (b"\x00", b"\xff"):
        edge = Noise(lambda n, b=extreme: b * n)
        assert 0 < edge.uniform(1)[0] < 1
        assert np.isfinite(edge.normal(2)).all()


def test_noise_is_fresh_and_owes_nothing_to_any_seed() -> None:
    net, data = tiny_net(), made_up_infants(0)
    privacy = PrivacyConfig(noise_multiplier=1.0, infants_per_step=3)
    theta = get_vector(net)
    deltas = []
    for _ in range(2):
        torch.manual_seed(0)
        np.random.seed(0)
        deltas.append(dp_local_step(net, data, theta, CFG, privacy).delta)
    assert np.abs(deltas[0] - deltas[1]).max() > 0


def test_every_infant_is_drawn_by_itself() -> None:
    """20 equal infants, clipped to S = 0.01: ‖Δ‖·E|batch| / S counts the drawn. Binomial: mean 5, variance 20·¼·¾ = 3.75."""
    one = made_up_infants(5, n=1)
    data = joined(*[one] * 20)
    net = tiny_net()
    theta, cfg = get_vector(net), dataclasses.replace(CFG, lr=1.0)
    privacy = PrivacyConfig(noise_multiplier=0.0, clip=1e-2, infants_per_step=5)
    source = bytes_of(3)
    drawn = [
        np.linalg.norm(dp_local_step(net, data, theta, cfg, privacy, source=source).delta) * 5 / 1e-2
        for _ in range(100)
    ]
    np.testing.assert_allclose(drawn, np.round(drawn), atol=0.01)
    assert np.mean(drawn) == pytest.approx(5, abs=0.6)
    assert np.var(drawn) == pytest.approx(3.75, abs=1.6)


def test_an_empty_sample_is_noise_alone() -> None:
    net, data = tiny_net(), made_up_infants(0)
    privacy = PrivacyConfig(noise_multiplier=1.0, infants_per_step=1)
    # all bits one: no uniform lies below q, and every normal is next to zero
    result = dp_local_step(net, data, get_vector(net), CFG, privacy, source=lambda n: b"\xff" * n)
    assert np.abs(result.delta).max() < 1e-6


def test_frames_are_drawn_from_both_sides_without_replacement() -> None:
    gate = np.array([1] * 40 + [0] * 4, np.int8)
    rows, noise = np.arange(44), Noise(bytes_of(0))
    others = 0
    for _ in range(300):
        drawn = draw_frames(gate, rows, 6, noise)
        assert len(set(drawn.tolist())) == 6
        others += int((gate[drawn] == 0).sum())
    assert 2.0 < others / 300 < 3.0  # 6 · ½ less what runs out; 6 · 4/44 = 0.55 if sides did not count
    np.testing.assert_array_equal(draw_frames(gate, rows[:6], 6, noise), rows[:6])


def test_no_more_than_the_given_frames_of_an_infant_are_used() -> None:
    """With m = 1 an infant's gradient is that of one of its frames."""
    net = tiny_net()
    data = made_up_infants(4, n=1, cries=3, others=0)
    engine = PerInfant(net, data.tokens, CFG)
    theta = torch.from_numpy(get_vector(net))
    singles = np.stack(list(engine.gradients(theta, [np.array([i]) for i in range(3)])))
    step = one_sum(data, math.inf, frames=1)
    assert min(np.linalg.norm(singles - step, axis=1)) < 1e-4


def test_it_learns_with_noise() -> None:
    net, data = tiny_net(), made_up_infants(1, n=40, cries=1, others=1)
    theta = get_vector(net)
    cfg = LocalConfig(steps=25, lr=0.2)
    privacy = PrivacyConfig(noise_multiplier=0.3, infants_per_step=16, delta=1e-3)
    y = theta - dp_local_step(net, data, theta, cfg, privacy, source=bytes_of(1)).delta
    engine = PerInfant(net, data.tokens, cfg)
    before, after = (engine.losses(torch.from_numpy(t), data.rows).mean() for t in (theta, y))
    assert after < 0.9 * before


def test_what_does_not_fit_is_refused() -> None:
    net, data = tiny_net(), made_up_infants(0)
    theta, privacy = get_vector(net), PrivacyConfig(noise_multiplier=1.0)
    with pytest.raises(FederationError, match="needs float32"):
        dp_local_step(net, data, theta[:-1], CFG, privacy)
    with pytest.raises(FederationError, match="control variate"):
        dp_local_step(net, data, theta, CFG, privacy, theta[:-1])
    with pytest.raises(ConfigError, match="promises nothing to 6 infants"):
        dp_local_step(net, data, theta, CFG, dataclasses.replace(privacy, delta=0.2))
    t = data.tokens
    cut = InfantTokens(dataclasses.replace(t, tokens=t.tokens[:, :, :-1]), data.infant)
    with pytest.raises(DataError, match="another network"):
        dp_local_step(net, cut, theta, CFG, privacy)
    odd = InfantTokens(dataclasses.replace(t, reason=t.reason + 5), data.infant)
    with pytest.raises(DataError, match="reasons below 3"):
        dp_local_step(net, odd, theta, CFG, privacy)
    with pytest.raises(DataError, match="infants of shape"):
        InfantTokens(t, data.infant[:-1])
    with pytest.raises(DataError, match="labelled frame"):
        InfantTokens(dataclasses.replace(t, gate=np.full(len(t), -1, np.int8)), data.infant)
    assert adapter_schema(net).size == theta.size


def test_a_broken_frame_or_an_exploding_step_is_refused() -> None:
    net, data = tiny_net(), made_up_infants(0)
    theta = get_vector(net)
    with pytest.raises(UpdateRejected, match="lower lr"):
        dp_local_step(net, data, theta, LocalConfig(steps=3, lr=1e38), PrivacyConfig(1.0))
    data.tokens.tokens[0, 0, 0] = np.nan
    with pytest.raises(UpdateRejected, match="not finite"):
        dp_local_step(net, data, theta, CFG, ALL)
    np.testing.assert_array_equal(get_vector(net), theta)


@pytest.mark.parametrize(
    "wrong",
    [
        {"noise_multiplier": -1.0},
        {"noise_multiplier": math.nan},
        {"noise_multiplier": math.inf},
        {"clip": 0.0},
        {"clip": math.nan},
        {"clip": math.inf},
        {"infants_per_step": 0},
        {"frames_per_infant": 0},
        {"delta": 0.0},
        {"delta": 1.0},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="privacy"):
        PrivacyConfig(**{"noise_multiplier": 1.0, **wrong})


def test_sampling_rate() -> None:
    privacy = PrivacyConfig(noise_multiplier=1.0, infants_per_step=16)
    assert privacy.sampling_rate(300) == pytest.approx(16 / 300)
    assert privacy.sampling_rate(10) == 1.0
