"""Unbiased, as exact as its step allows, linear to the bit, and never surprised by a vector."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import ConfigError, FederationError, UpdateRejected
from models.quantise import Quantiser, QuantiserConfig, encode_with_feedback, next_clip
from models.ring import pack, ring_bits, unpack
from models.rotation import BLOCK, Rotation

SEED = hashlib.sha256(b"a round").digest()
EIGHT, FOUR = QuantiserConfig(bits=8), QuantiserConfig(bits=4)
LARGE = 100 * BLOCK


class InOrder(Rotation):
    """Signs and Hadamard blocks over 4096 consecutive coordinates each: what is not to be done."""

    def __init__(self, size: int, seed: bytes) -> None:
        super().__init__(size, seed)
        self._places = np.arange(self.padded).reshape(BLOCK, -1).T.ravel()[:size]


def unit(x: npt.NDArray) -> npt.NDArray[np.float64]:
    return x / np.linalg.norm(x)


def isotropic(size: int = LARGE, seed: int = 0) -> npt.NDArray[np.float64]:
    return unit(np.random.default_rng(seed).standard_normal(size))


def head_heavy(seed: int = 0) -> npt.NDArray[np.float64]:
    """90 % of the energy in the last 2 % of the coordinates, ‖u‖ = 1."""
    head = LARGE // 50
    u = isotropic(seed=seed)
    return np.concatenate([math.sqrt(0.1) * unit(u[:-head]), math.sqrt(0.9) * unit(u[-head:])])


def relative_error(quantiser: Quantiser, u: npt.NDArray[np.float64]) -> float:
    decoded = quantiser.decode(quantiser.encode(u, np.random.default_rng(1)).levels)
    return float(np.linalg.norm(decoded - u) / np.linalg.norm(u))


def drawn_levels(quantiser: Quantiser, sites: int) -> list[npt.NDArray[np.uint16]]:
    return [
        quantiser.encode(isotropic(quantiser.size, i), np.random.default_rng(i)).levels for i in range(sites)
    ]


@pytest.mark.parametrize("make", [isotropic, head_heavy])
def test_eight_bits_err_by_one_and_a_half_per_cent_wherever_the_energy_is(make: Any) -> None:
    """ρ/(h·√6) = 4.5/(127·√6) = 1.45 %."""
    assert 0.013 < relative_error(Quantiser(LARGE, EIGHT, SEED), make()) < 0.016


@pytest.mark.parametrize("make", [isotropic, head_heavy])
def test_four_bits_err_by_a_quarter(make: Any) -> None:
    """4.5/(7·√6) = 26.2 %."""
    assert 0.25 < relative_error(Quantiser(LARGE, FOUR, SEED), make()) < 0.275


def test_without_the_permutation_a_head_saturates() -> None:
    """Two of 100 blocks then hold 90 % of the energy: their coordinates deviate by √(0.9·50) = 6.7 units of C/√padded,
    beyond a range of 4.5."""
    quantiser = Quantiser(LARGE, EIGHT, SEED)
    assert quantiser.encode(head_heavy(), np.random.default_rng(1)).saturated < LARGE * 1e-4
    quantiser.rotation = InOrder(LARGE, SEED)
    assert relative_error(quantiser, isotropic()) < 0.016  # the same codec otherwise
    assert relative_error(quantiser, head_heavy()) > 0.4
    assert quantiser.encode(head_heavy(), np.random.default_rng(1)).saturated > 0.4 * 2 * BLOCK


@pytest.mark.parametrize("cfg", [EIGHT, FOUR])
def test_rounding_is_unbiased(cfg: QuantiserConfig) -> None:
    """At a tenth of C most coordinates lie within half a step of zero at 4 bits: rounding to the nearest would lose them all.
    The mean over 400 draws lies within its standard error, per coordinate and on average."""
    quantiser = Quantiser(500, cfg, SEED)
    u = 0.1 * isotropic(500)
    draws = 400
    rng = np.random.default_rng(2)
    decoded = np.stack([quantiser.decode(quantiser.encode(u, rng).levels) for _ in range(draws)])
    z = (decoded.mean(axis=0) - u) / (decoded.std(axis=0, ddof=1) / math.sqrt(draws))
    assert np.abs(z).max() < 4.5
    assert abs(z.mean()) < 4.0 / math.sqrt(z.size)
    assert 0.75 < np.square(z).mean() < 1.25


@pytest.mark.parametrize("cfg", [EIGHT, FOUR])
def test_decode_is_linear_to_the_bit(cfg: QuantiserConfig) -> None:
    sites = 8
    quantiser = Quantiser(2 * BLOCK + 77, cfg, SEED)
    levels = drawn_levels(quantiser, sites)
    single = [quantiser.rotation.inverse_int(x.astype(np.int64) - quantiser.half) for x in levels]
    total = np.sum(levels, axis=0, dtype=np.uint32)
    scale = quantiser.step / 64
    np.testing.assert_array_equal(quantiser.decode_sum(total, sites), np.sum(single, axis=0) * scale)
    np.testing.assert_array_equal(quantiser.decode(levels[3]), single[3] * scale)


@given(st.sampled_from([EIGHT, FOUR]), st.integers(1, 9), st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_masked_sums_in_the_packed_ring_give_the_plain_sum(
    cfg: QuantiserConfig, sites: int, seed: int
) -> None:
    """Site i adds a mask mod 2^k; the masks sum to zero mod 2^k; what is sent are packed bytes."""
    quantiser = Quantiser(700, cfg, SEED)
    bits = ring_bits(quantiser.levels, sites)
    mask = np.uint32((1 << bits) - 1)
    levels = drawn_levels(quantiser, sites)
    masks = np.random.default_rng(seed).integers(0, 1 << bits, (sites, quantiser.padded), dtype=np.uint32)
    masks[-1] = (0 - masks[:-1].sum(axis=0, dtype=np.uint32)) & mask
    sent = [pack((x + m) & mask, bits) for x, m in zip(levels, masks, strict=True)]
    total = np.zeros(quantiser.padded, dtype=np.uint32)
    for data in sent:
        total += unpack(data, quantiser.padded, bits)
    total &= mask
    np.testing.assert_array_equal(total, np.sum(levels, axis=0))
    np.testing.assert_array_equal(
        quantiser.decode_sum(total, sites),
        quantiser.decode_sum(np.sum(levels, axis=0, dtype=np.uint16), sites),
    )


@given(
    st.sampled_from([EIGHT, FOUR]),
    st.integers(1, 9000),
    st.floats(-12, 12),
    st.integers(0, 2**32),
    st.sampled_from(["gauss", "one", "equal", "zero"]),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_finite_vector_decodes_to_a_bounded_one(
    cfg: QuantiserConfig, size: int, exponent: float, seed: int, shape: str, clip: bool
) -> None:
    """Each coordinate is within the range, so ‖û‖ ≤ r·√padded = ρ·C, clipped before or not."""
    rng = np.random.default_rng(seed)
    u = np.zeros(size)
    if shape == "gauss":
        u = rng.standard_normal(size)
    elif shape == "one":
        u[rng.integers(size)] = 1.0
    elif shape == "equal":
        u[:] = 1.0
    u *= 10.0**exponent
    quantiser = Quantiser(size, cfg, SEED)
    if clip:
        u, inside = quantiser.clip_norm(u)
        assert np.linalg.norm(u) <= cfg.clip * (1 + 1e-12)
        assert inside or np.linalg.norm(u) == pytest.approx(cfg.clip)
    encoded = quantiser.encode(u, rng)
    assert encoded.levels.dtype == np.uint16
    assert encoded.levels.shape == (quantiser.padded,)
    assert int(encoded.levels.max()) <= quantiser.levels
    assert 0 <= encoded.saturated <= quantiser.padded
    assert np.linalg.norm(quantiser.decode(encoded.levels)) <= cfg.range_sigmas * cfg.clip * (1 + 1e-12)


def test_saturation_is_counted_and_decodes_to_the_edge_of_the_range() -> None:
    """One coordinate of 1 in 100 blocks: 4096 coordinates of 1/64, beyond r = 4.5/640; all others are 0, which rounds to 0.
    4096 coordinates of ±r turn back into one of 64·r = 0.45."""
    quantiser = Quantiser(LARGE, EIGHT, SEED)
    u = np.zeros(LARGE)
    u[4711] = 1.0
    encoded = quantiser.encode(u, np.random.default_rng(0))
    assert encoded.saturated == BLOCK
    expected = np.zeros(LARGE)
    expected[4711] = 0.45
    np.testing.assert_allclose(quantiser.decode(encoded.levels), expected, rtol=1e-14, atol=0)


def test_zero_stays_exactly_zero() -> None:
    quantiser = Quantiser(BLOCK, EIGHT, SEED)
    encoded = quantiser.encode(np.zeros(BLOCK, dtype=np.float32), np.random.default_rng(0))
    assert (encoded.levels == 127).all()
    assert not quantiser.decode(encoded.levels).any()


def test_largest_draw_of_the_generator_stays_in_range() -> None:
    """2h + (1 − 2⁻⁵³) rounds to 2h + 1 in float64."""

    class Highest(np.random.Generator):
        def random(self, *args: Any, out: Any = None, **kwargs: Any) -> Any:
            out[:] = 1.0 - 2.0**-53
            return out

    quantiser = Quantiser(BLOCK, EIGHT, SEED)
    u = np.zeros(BLOCK)
    u[0] = 1e6
    assert int(quantiser.encode(u, Highest(np.random.PCG64(0))).levels.max()) == 254


def test_equal_generators_give_equal_levels() -> None:
    quantiser = Quantiser(9000, FOUR, SEED)
    u = isotropic(9000).astype(np.float32)
    one, two, other = (quantiser.encode(u, np.random.default_rng(s)).levels for s in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    quantiser = Quantiser(100, EIGHT, SEED)
    u = np.zeros(100)
    u[50] = bad
    with pytest.raises(UpdateRejected, match="not finite"):
        quantiser.encode(u, np.random.default_rng(0))
    with pytest.raises(UpdateRejected, match="not finite"):
        quantiser.clip_norm(u)


def test_wrong_shapes_types_and_totals_are_refused() -> None:
    quantiser = Quantiser(100, EIGHT, SEED)
    rng = np.random.default_rng(0)
    for wrong in (np.zeros(99), np.zeros((100, 1)), np.zeros(0)):
        with pytest.raises(UpdateRejected, match="shape"):
            quantiser.encode(wrong, rng)
        with pytest.raises(UpdateRejected, match="shape"):
            quantiser.clip_norm(wrong)
    for total in (np.zeros(100, dtype=np.uint16), np.zeros(BLOCK), np.zeros(BLOCK, dtype=np.int64)):
        with pytest.raises(UpdateRejected, match="sum of levels"):
            quantiser.decode_sum(total, 1)
    with pytest.raises(FederationError, match="at least one"):
        quantiser.decode_sum(np.zeros(BLOCK, dtype=np.uint16), 0)


def test_a_total_that_the_sites_cannot_reach_is_refused() -> None:
    """Three sites of 254 levels reach 762."""
    quantiser = Quantiser(100, EIGHT, SEED)
    total = np.full(BLOCK, 762, dtype=np.uint16)
    quantiser.decode_sum(total, 3)
    total[4000] = 763
    with pytest.raises(UpdateRejected, match="763"):
        quantiser.decode_sum(total, 3)


def test_sums_beyond_32_bits_are_exact() -> None:
    """2^26 sites at the top: every coordinate is h·2^26, |total| > 2^31, and H sums a block of them into one coordinate."""
    quantiser = Quantiser(BLOCK, EIGHT, SEED)
    sites = 1 << 26
    got = quantiser.decode_sum(np.full(BLOCK, 254 * sites, dtype=np.uint64), sites)
    assert np.count_nonzero(got) == 1
    assert np.abs(got).max() == 127 * sites * BLOCK * (quantiser.step / 64)


def test_levels_carry_the_rotation_of_their_seed() -> None:
    """Decoded under another seed, a vector is noise: the seed belongs to the round's message."""
    u = isotropic(5000)
    levels = Quantiser(5000, EIGHT, SEED).encode(u, np.random.default_rng(0)).levels
    assert float(u @ Quantiser(5000, EIGHT, bytes(32)).decode(levels)) < 0.1


# clipping


def test_clipping_scales_to_the_norm_and_tells() -> None:
    """‖(3, 4)‖ = 5: at C = 1 it becomes (0.6, 0.8); at C = 5 it is within, unchanged."""
    u = np.array([3.0, 4.0], dtype=np.float32)
    clipped, inside = Quantiser(2, EIGHT, SEED).clip_norm(u)
    np.testing.assert_allclose(clipped, [0.6, 0.8], rtol=1e-15)
    assert not inside
    kept, inside = Quantiser(2, EIGHT, SEED, clip=5.0).clip_norm(u)
    np.testing.assert_array_equal(kept, [3.0, 4.0])
    assert inside
    assert kept.dtype == np.float64
    assert u[0] == 3.0


@pytest.mark.parametrize("scale", [1e-310, 1e-200, 1e200, 1e307])
def test_clipping_survives_squares_out_of_range(scale: float) -> None:
    quantiser = Quantiser(64, EIGHT, SEED)
    clipped, inside = quantiser.clip_norm(np.full(64, scale))
    assert inside == (scale < 1)
    np.testing.assert_allclose(clipped, scale if inside else 0.125, rtol=1e-14)
    with np.errstate(all="raise", under="ignore"):
        quantiser.encode(clipped, np.random.default_rng(0))


def test_a_value_too_large_for_the_transform_is_refused() -> None:
    with pytest.raises(UpdateRejected, match="clip its norm"):
        Quantiser(64, EIGHT, SEED).encode(np.full(64, 1e307), np.random.default_rng(0))


def test_a_given_clip_scales_the_step() -> None:
    """r = 4.5·C/√4096, s = r/127."""
    assert Quantiser(100, EIGHT, SEED).step == pytest.approx(4.5 / 64 / 127)
    assert Quantiser(100, EIGHT, SEED, clip=0.25).step == pytest.approx(4.5 * 0.25 / 64 / 127)
    assert Quantiser(100, FOUR, SEED).levels == 14
    assert Quantiser(100, EIGHT, SEED).levels == 254


def test_next_clip_by_hand() -> None:
    """γ = 0.5, η = 0.2: all within, e^(−0.1); none, e^(0.1); half, unchanged."""
    cfg = QuantiserConfig(adaptive_quantile=0.5)
    assert next_clip(2.0, 8, 8, cfg) == pytest.approx(2.0 * math.exp(-0.1))
    assert next_clip(2.0, 0, 8, cfg) == pytest.approx(2.0 * math.exp(0.1))
    assert next_clip(2.0, 4, 8, cfg) == 2.0
    assert next_clip(2.0, 8, 8, EIGHT) == 2.0


@pytest.mark.parametrize("quantile", [0.25, 0.5, 0.75])
def test_adaptive_clip_finds_the_quantile(quantile: float) -> None:
    """Norms 1 … 100: from far off, C settles at the wanted share of them within 3 %."""
    cfg = QuantiserConfig(adaptive_quantile=quantile)
    norms, clip = np.arange(1, 101), 1e-3
    for _ in range(300):
        clip = next_clip(clip, int((norms <= clip).sum()), 100, cfg)
    assert abs((norms <= clip).mean() - quantile) < 0.03


@pytest.mark.parametrize("inside", [0, 8])
def test_a_clip_that_drifts_for_ever_stays_one_that_a_quantiser_takes(inside: int) -> None:
    cfg = QuantiserConfig(adaptive_quantile=0.5)
    clip = 1.0
    for _ in range(1000):  # e^(∓0.1) a round: past 1e∓30 after 691
        clip = next_clip(clip, inside, 8, cfg)
    Quantiser(100, cfg, SEED, clip=clip)


@pytest.mark.parametrize(("inside", "sites"), [(9, 8), (-1, 8), (0, 0)])
def test_impossible_counts_are_refused(inside: int, sites: int) -> None:
    with pytest.raises(FederationError, match="not a count"):
        next_clip(1.0, inside, sites, EIGHT)


@pytest.mark.parametrize(
    "wrong",
    [
        {"bits": 16},
        {"bits": 0},
        {"clip": 0.0},
        {"clip": math.nan},
        {"clip": math.inf},
        {"range_sigmas": 0.0},
        {"range_sigmas": math.nan},
        {"adaptive_quantile": 0.0},
        {"adaptive_quantile": 1.0},
        {"adaptive_rate": 0.0},
        {"adaptive_rate": math.inf},
    ],
)
def test_bad_configuration_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        QuantiserConfig(**wrong)


@pytest.mark.parametrize("clip", [0.0, -1.0, math.nan, math.inf])
def test_bad_public_clip_is_refused(clip: float) -> None:
    with pytest.raises(FederationError, match="clip"):
        Quantiser(100, EIGHT, SEED, clip=clip)


# error feedback


def test_feedback_telescopes() -> None:
    """Σ û_t = Σ u_t + e_0 − e_T, over rounds of different seeds."""
    rng = np.random.default_rng(3)
    residual, sent, wanted = np.zeros(3000), np.zeros(3000), np.zeros(3000)
    for t in range(10):
        quantiser = Quantiser(3000, FOUR, bytes([t] * 32))
        u = isotropic(3000, t)
        encoded, residual = encode_with_feedback(quantiser, u, residual, rng)
        sent += quantiser.decode(encoded.levels)
        wanted += u
    np.testing.assert_allclose(sent, wanted - residual, rtol=0, atol=1e-13)


def test_feedback_turns_the_error_of_a_mean_from_root_to_linear() -> None:
    """4 bits, 50 rounds of one vector: noise alone leaves 26 %/√50 = 3.7 %, with feedback 26 %/50 = 0.5 %."""
    u = isotropic(3000)
    rng = np.random.default_rng(4)
    plain, fed, residual = np.zeros(3000), np.zeros(3000), np.zeros(3000)
    for t in range(50):
        quantiser = Quantiser(3000, FOUR, bytes([t] * 32))
        plain += quantiser.decode(quantiser.encode(u, rng).levels) / 50
        encoded, residual = encode_with_feedback(quantiser, u, residual, rng)
        fed += quantiser.decode(encoded.levels) / 50
    assert np.linalg.norm(plain - u) > 0.025
    assert np.linalg.norm(fed - u) < 0.007


def test_feedback_of_another_length_is_refused() -> None:
    with pytest.raises(UpdateRejected, match="residual"):
        encode_with_feedback(Quantiser(5, FOUR, SEED), np.ones(5), np.zeros(1), np.random.default_rng(0))
