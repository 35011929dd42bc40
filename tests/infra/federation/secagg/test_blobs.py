"""The file format of states."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.federation.secagg.blobs import read_blobs, write_blobs
from models.errors import FederationError

MARK = b"TST\x01"


@given(st.lists(st.binary(max_size=50), max_size=6))
def test_round_trip(blobs: list[bytes]) -> None:
    assert read_blobs(MARK, write_blobs(MARK, blobs)) == blobs


@given(st.binary(max_size=200), st.booleans())
def test_noise_is_refused(body: bytes, checked: bool) -> None:
    data = MARK + hashlib.sha256(body).digest() + body if checked else MARK + body
    try:
        blobs = read_blobs(MARK, data)
    except FederationError:
        return
    assert write_blobs(MARK, blobs) == data


@pytest.mark.parametrize(
    "body", [b"\x00" * 7, b"\x00" * 7 + b"\x02x", b"\xff" * 8 + b"x", b"\x00" * 8 + b"x"]
)
def test_lengths_that_lead_out_of_the_file(body: bytes) -> None:
    with pytest.raises(FederationError, match="damaged"):
        read_blobs(MARK, MARK + hashlib.sha256(body).digest() + body)


def test_another_format_is_refused() -> None:
    with pytest.raises(FederationError, match="another version"):
        read_blobs(b"TST\x02", write_blobs(MARK, [b"x"]))
