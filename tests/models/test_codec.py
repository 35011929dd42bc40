"""Vectors as bytes, and what a receiver refuses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.adapters import AdapterSchema, Entry
from models.codec import Float32Codec
from models.errors import FederationError, UpdateRejected

SCHEMA = AdapterSchema((Entry("a", (2, 2), 0), Entry("b", (3,), 4)))
CODEC = Float32Codec(SCHEMA)
VECTOR = np.arange(7, dtype=np.float32)


def test_round_trip_and_size() -> None:
    data = CODEC.encode(VECTOR)
    assert len(data) == CODEC.max_bytes == 48 + 28
    np.testing.assert_array_equal(CODEC.decode(data), VECTOR)
    CODEC.decode(data)[0] = 5.0  # a copy that may be written to


def test_another_schema_is_refused() -> None:
    other = Float32Codec(AdapterSchema((Entry("a", (7,), 0),)))
    with pytest.raises(UpdateRejected, match="schema"):
        CODEC.decode(other.encode(VECTOR))


def test_values_that_are_not_finite_are_refused_on_both_sides() -> None:
    bad = VECTOR.copy()
    bad[2] = np.nan
    with pytest.raises(FederationError, match="not finite"):
        CODEC.encode(bad)
    data = bytearray(CODEC.encode(VECTOR))
    data[48:52] = np.array([np.inf], dtype="<f4").tobytes()
    with pytest.raises(UpdateRejected, match="not finite"):
        CODEC.decode(bytes(data))


@pytest.mark.parametrize("cut", [0, 10, 47, 48, 75, 77])
def test_wrong_length_is_refused(cut: int) -> None:
    data = CODEC.encode(VECTOR) + b"x"
    with pytest.raises(UpdateRejected):
        CODEC.decode(data[:cut])


def test_wrong_magic_is_refused() -> None:
    with pytest.raises(UpdateRejected, match="another codec"):
        CODEC.decode(b"NOTOURS!" + CODEC.encode(VECTOR)[8:])


@given(st.binary(max_size=120))
def test_noise_is_refused_and_never_raises_anything_else(data: bytes) -> None:
    with pytest.raises(UpdateRejected):
        CODEC.decode(data)
