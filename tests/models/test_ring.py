"""k-bit packing against arithmetic on one long integer, and what a receiver refuses."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import FederationError, UpdateRejected
from models.ring import pack, packed_bytes, ring_bits, unpack

WIDTHS = range(1, 33)


def by_definition(values: npt.NDArray, bits: int) -> bytes:
    """Σ v_i·2^(i·k), little-endian."""
    number = sum(int(v) << (i * bits) for i, v in enumerate(values))
    return number.to_bytes(packed_bytes(values.size, bits), "little")


def draw(n: int, bits: int, seed: int = 0) -> npt.NDArray[np.uint32]:
    return np.random.default_rng(seed).integers(0, 1 << bits, n, dtype=np.uint32)


@pytest.mark.parametrize(("sites", "bits"), [(1, 8), (8, 11), (16, 12), (64, 14), (128, 15)])
def test_ring_of_eight_bit_levels(sites: int, bits: int) -> None:
    """2^8 − 2 = 254 levels: 254·8 + 1 = 2033 sums need 11 bits, 254·64 + 1 = 16257 need 14, …"""
    assert ring_bits(254, sites) == bits


def test_ring_bits_at_powers_of_two() -> None:
    """Sums 0 … 7 are 8 values, 3 bits; 0 … 8 are 9 values, 4 bits. 4 bits at 8 sites: 14·8 + 1 = 113 values, 7 bits."""
    assert [ring_bits(7, 1), ring_bits(8, 1), ring_bits(14, 8)] == [3, 4, 7]


@pytest.mark.parametrize(("levels", "summands"), [(0, 3), (3, 0), (-1, 2), (254, 1 << 25)])
def test_no_ring_for_nothing_or_for_too_much(levels: int, summands: int) -> None:
    with pytest.raises(FederationError):
        ring_bits(levels, summands)


def test_bytes_by_hand() -> None:
    """1 + 2·2^3 + 3·2^6 = 209 in 9 bits; 2047 + 1365·2^22 = 0x1_5540_07FF in 33 bits."""
    assert pack(np.array([1, 2, 3], dtype=np.uint8), 3) == bytes([209, 0])
    assert pack(np.array([2047, 0, 1365], dtype=np.uint16), 11) == bytes.fromhex("ff07405501")
    assert pack(np.array([1, 0, 0, 0, 0, 0, 0, 1, 1], dtype=np.uint16), 1) == bytes([0x81, 1])
    assert pack(np.array([], dtype=np.uint16), 5) == b""


@pytest.mark.parametrize("bits", WIDTHS)
def test_round_trip_of_every_width_and_every_tail(bits: int) -> None:
    for n in range(18):
        values = draw(n, bits, seed=n)
        data = pack(values, bits)
        assert data == by_definition(values, bits)
        back = unpack(data, n, bits)
        assert back.dtype == (np.uint16 if bits <= 16 else np.uint32)
        np.testing.assert_array_equal(back, values)
    top = np.full(9, (1 << bits) - 1, dtype=np.uint64)
    assert pack(top, bits) == by_definition(top, bits)
    np.testing.assert_array_equal(unpack(pack(top, bits), 9, bits), top)


@pytest.mark.parametrize("bits", [1, 7, 11, 16, 17, 31, 32])
def test_round_trip_over_several_pieces(bits: int) -> None:
    """More than 8·4096 values are worked on in pieces; a piece's border is nothing special."""
    values = draw(2 * 8 * 4096 + 13, bits)
    data = pack(values, bits)
    assert data[: 5 * bits] == by_definition(values[:40], bits)
    border = 8 * 4096
    assert data[border * bits // 8 :][: 2 * bits] == by_definition(values[border : border + 16], bits)
    np.testing.assert_array_equal(unpack(data, values.size, bits), values)


@given(
    st.integers(1, 32).flatmap(
        lambda k: st.tuples(st.just(k), st.lists(st.integers(0, 2**k - 1), max_size=70))
    )
)
def test_packing_is_the_long_integer(case: tuple[int, list[int]]) -> None:
    bits, listed = case
    values = np.array(listed, dtype=np.uint32)
    data = pack(values, bits)
    assert data == by_definition(values, bits)
    np.testing.assert_array_equal(unpack(data, values.size, bits), values)


@given(st.binary(max_size=40), st.integers(0, 60), st.integers(1, 32))
def test_noise_is_a_packed_vector_or_refused(data: bytes, n: int, bits: int) -> None:
    try:
        values = unpack(data, n, bits)
    except UpdateRejected:
        return
    assert pack(values, bits) == data  # one byte string per vector: nothing can hide in it


@pytest.mark.parametrize("change", [-1, 1])
def test_wrong_length_is_refused(change: int) -> None:
    with pytest.raises(UpdateRejected, match="bytes"):
        unpack(bytes(packed_bytes(10, 11) + change), 10, 11)


@pytest.mark.parametrize("bit", [6, 7])
def test_set_padding_bit_is_refused(bit: int) -> None:
    """10 values of 11 bits end at bit 6 of the 14th byte."""
    data = bytearray(pack(draw(10, 11), 11))
    data[-1] |= 1 << bit
    with pytest.raises(UpdateRejected, match="padding"):
        unpack(bytes(data), 10, 11)


@pytest.mark.parametrize("bits", [1, 8, 11, 31])
def test_value_beyond_the_ring_is_refused(bits: int) -> None:
    with pytest.raises(FederationError, match="does not fit"):
        pack(np.array([0, 1 << bits], dtype=np.uint32), bits)


@pytest.mark.parametrize("bits", [0, 33, -1])
def test_width_out_of_range_is_refused(bits: int) -> None:
    with pytest.raises(FederationError, match="bits"):
        pack(np.zeros(3, dtype=np.uint16), bits)
    with pytest.raises(FederationError, match="bits"):
        unpack(b"", 0, bits)
    with pytest.raises(FederationError):
        unpack(b"", -1, 8)


@pytest.mark.parametrize(
    "values", [np.zeros(3), np.zeros(3, dtype=np.int64), np.zeros((2, 2), dtype=np.uint8)]
)
def test_only_vectors_of_unsigned_integers_are_packed(values: npt.NDArray) -> None:
    with pytest.raises(FederationError, match="unsigned"):
        pack(values, 8)
