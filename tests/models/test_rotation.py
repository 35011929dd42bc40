"""The rotation is orthogonal, exact in integers, the same on every machine, and spreads what is concentrated."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import FederationError, UpdateRejected
from models.rotation import BLOCK, Rotation, walsh_hadamard

SEED = bytes(range(32))
GOLDEN_INVERSE = "00f52724c274054ba8d367b87ae0b4bb7327f8cc17516c1a39aa855c377360c5"
GOLDEN_FORWARD = "907e01801316ca0aa4f140625bb63a4f9c5ceca247ec72e67eb321fe539534a7"


def hadamard_column(j: int) -> npt.NDArray[np.int64]:
    """H[i, j] = (−1)^popcount(i & j): Sylvester's order."""
    return 1 - 2 * (np.bitwise_count(np.arange(BLOCK) & j) & 1).astype(np.int64)


def integers(size: int, most: int, seed: int = 0) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).integers(-most, most + 1, size)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float64])
@pytest.mark.parametrize("n", [1, 3, 600])
def test_transform_is_the_hadamard_matrix(dtype: type, n: int) -> None:
    """Unit vectors give its columns; 600 blocks are wider than one piece of the work."""
    columns = np.zeros((BLOCK, n), dtype=dtype)
    picked = np.random.default_rng(n).integers(0, BLOCK, n)
    columns[picked, np.arange(n)] = 1
    walsh_hadamard(columns)
    for block in {0, n // 2, n - 1}:
        np.testing.assert_array_equal(columns[:, block], hadamard_column(int(picked[block])))


def test_transform_twice_is_4096_times_the_identity() -> None:
    start = integers(3 * BLOCK, 100).reshape(BLOCK, 3)
    columns = start.copy()
    walsh_hadamard(columns)
    walsh_hadamard(columns)
    np.testing.assert_array_equal(columns, BLOCK * start)


@given(st.integers(1, 3 * BLOCK), st.binary(min_size=32, max_size=32), st.integers(-12, 12))
@settings(max_examples=40, deadline=None)
def test_norm_is_kept_and_inverse_undoes(size: int, seed: bytes, exponent: int) -> None:
    x = np.random.default_rng(size).standard_normal(size) * 10.0**exponent
    rotation = Rotation(size, seed)
    z = rotation.forward(x)
    assert z.shape == (rotation.padded,)
    assert rotation.padded % BLOCK == 0
    assert 0 <= rotation.padded - size < BLOCK
    assert np.linalg.norm(z) == pytest.approx(np.linalg.norm(x), rel=1e-12)
    np.testing.assert_allclose(rotation.inverse(z), x, rtol=0, atol=1e-13 * np.abs(x).max() * 64)


@given(st.integers(1, 2 * BLOCK + 5), st.integers(1, 127 * 64))
@settings(max_examples=25, deadline=None)
def test_integer_inverse_is_64_times_the_inverse(size: int, most: int) -> None:
    """Both are exact here: no partial sum reaches 2^53."""
    rotation = Rotation(size, SEED)
    total = integers(rotation.padded, most)
    exact = rotation.inverse_int(total)
    assert exact.dtype == np.int64
    assert exact.shape == (size,)
    np.testing.assert_array_equal(exact / 64.0, rotation.inverse(total.astype(np.float64)))


def test_integer_inverse_is_linear_across_the_two_widths() -> None:
    """Small totals take int32, the same totals times 2^31 take int64."""
    rotation = Rotation(3 * BLOCK - 7, SEED)
    a, b = integers(rotation.padded, 127, 1), integers(rotation.padded, 127, 2)
    whole = rotation.inverse_int(a + b)
    np.testing.assert_array_equal(whole, rotation.inverse_int(a) + rotation.inverse_int(b))
    np.testing.assert_array_equal(rotation.inverse_int((a + b) << 31), whole << 31)


@pytest.mark.parametrize("peak", [(1 << 19) - 1, 1 << 19, (1 << 51) - 1])
def test_largest_totals_do_not_wrap(peak: int) -> None:
    """peak · (row j of H) sums to 4096·peak at one coordinate and to 0 at all others: the worst case of the range."""
    rotation = Rotation(BLOCK, SEED)
    total = peak * hadamard_column(1234)
    got, negated = rotation.inverse_int(total), rotation.inverse_int(-total)
    assert np.abs(got).max() == BLOCK * peak
    assert np.count_nonzero(got) == 1
    np.testing.assert_array_equal(negated, -got)  # ±2^31 wraps to the same int32


@pytest.mark.parametrize("value", [1 << 51, -(1 << 51), -(1 << 63)])
def test_totals_that_would_wrap_are_refused(value: int) -> None:
    total = np.zeros(BLOCK, dtype=np.int64)
    total[17] = value
    with pytest.raises(UpdateRejected, match="overflow"):
        Rotation(BLOCK, SEED).inverse_int(total)


def test_concentrated_energy_is_spread_over_all_blocks() -> None:
    """All energy in the last 4096 of 50·4096 coordinates: each block then holds 1/50 of it, to the Poisson spread of its
    4096/50 ≈ 82 coordinates: ±11 %, at most 5 deviations of it."""
    size = 50 * BLOCK
    x = np.zeros(size)
    x[-BLOCK:] = np.random.default_rng(0).choice([-1.0, 1.0], BLOCK)
    energy = np.square(Rotation(size, SEED).forward(x)).reshape(BLOCK, 50).sum(axis=0) / BLOCK
    assert energy.sum() == pytest.approx(1.0)
    assert np.abs(50 * energy - 1).max() < 5 * 0.11


def test_places_are_distinct_and_look_random_and_half_of_the_signs_are_flipped() -> None:
    """8197 coordinates in 12288 places: a correlation of 0 and signs of a fair coin, within 5 deviations."""
    rotation = Rotation(2 * BLOCK + 5, SEED)
    places = rotation._places
    assert np.unique(places).size == places.size == rotation.size
    assert places.min() >= 0
    assert places.max() < rotation.padded
    assert np.abs(np.corrcoef(places, np.arange(rotation.size))[0, 1]) < 5 / np.sqrt(rotation.size)
    assert set(np.unique(rotation._signs)) == {-1, 1}
    assert abs(int(rotation._signs.sum())) < 5 * np.sqrt(rotation.size)


def test_permutation_is_the_stable_argsort_of_the_raw_stream() -> None:
    """By the definition, without the trick that makes the keys distinct."""
    size = 3 * BLOCK  # 12288 places: 14 bits
    key = int.from_bytes(hashlib.sha256(b"cryfed rotation 1\x00" + SEED).digest()[:16], "little")
    raw = np.random.Philox(key=key).random_raw(size)
    np.testing.assert_array_equal(
        Rotation(size, SEED)._places, np.argsort(raw >> np.uint64(14), kind="stable")
    )


def test_a_seed_is_the_same_rotation_for_ever() -> None:
    """A site and a server of different versions must agree: a change here is a change of the wire format."""
    rotation = Rotation(2 * BLOCK + 100, SEED)
    total = np.arange(rotation.padded, dtype=np.int64) % 255 - 127
    assert hashlib.sha256(rotation.inverse_int(total).astype("<i8").tobytes()).hexdigest() == GOLDEN_INVERSE
    z = rotation.forward(np.arange(rotation.size, dtype=np.float32))
    assert hashlib.sha256(z.astype("<f8").tobytes()).hexdigest() == GOLDEN_FORWARD


def test_another_seed_is_another_rotation() -> None:
    x = np.ones(100)
    assert not np.array_equal(Rotation(100, SEED).forward(x), Rotation(100, bytes(32)).forward(x))


@pytest.mark.parametrize(("size", "seed"), [(0, SEED), (-4, SEED), (5, b""), (5, bytes(31))])
def test_bad_size_or_seed_is_refused(size: int, seed: bytes) -> None:
    with pytest.raises(FederationError, match="seed of 32 bytes"):
        Rotation(size, seed)


def test_wrong_shapes_and_types_are_refused() -> None:
    rotation = Rotation(100, SEED)
    with pytest.raises(UpdateRejected, match="shape"):
        rotation.forward(np.zeros(101))
    with pytest.raises(UpdateRejected, match="shape"):
        rotation.inverse(np.zeros(100))
    with pytest.raises(UpdateRejected, match="shape"):
        rotation.inverse_int(np.zeros((1, BLOCK), dtype=np.int64))
    with pytest.raises(UpdateRejected, match="signed integers"):
        rotation.inverse_int(np.zeros(BLOCK, dtype=np.uint64))


def test_inputs_are_left_alone() -> None:
    rotation = Rotation(BLOCK, SEED)
    x, total = np.ones(BLOCK), np.ones(BLOCK, dtype=np.int32)
    rotation.forward(x)
    rotation.inverse(x)
    rotation.inverse_int(total)
    assert (x == 1).all()
    assert (total == 1).all()
