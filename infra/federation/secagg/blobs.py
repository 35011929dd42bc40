"""State on disk: a mark, a checksum, and byte strings behind their lengths. An empty string stands for what is absent."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import Final

from models.errors import FederationError

_LENGTH: Final = struct.Struct(">Q")
_MARK_BYTES: Final = 4
_SUM_BYTES: Final = 32


def write_blobs(mark: bytes, blobs: Sequence[bytes]) -> bytes:
    """Byte strings as one; `mark` is 4 bytes of format and version."""
    body = b"".join(part for blob in blobs for part in (_LENGTH.pack(len(blob)), blob))
    return mark + hashlib.sha256(body).digest() + body


def read_blobs(mark: bytes, data: bytes) -> list[bytes]:
    """Inverse of `write_blobs`.

    Raises:
        FederationError: another format, or damaged.
    """
    head = _MARK_BYTES + _SUM_BYTES
    body = memoryview(data)[head:]
    if data[:_MARK_BYTES] != mark or hashlib.sha256(body).digest() != data[_MARK_BYTES:head]:
        raise damaged()
    blobs, at = [], 0
    while at < len(body):
        if at + _LENGTH.size > len(body):
            raise damaged()
        (length,) = _LENGTH.unpack_from(body, at)
        at += _LENGTH.size
        if length > len(body) - at:
            raise damaged()
        blobs.append(bytes(body[at : at + length]))
        at += length
    return blobs


def damaged() -> FederationError:
    """What to say of a state that cannot be read."""
    return FederationError(
        "the state of a secure aggregation is damaged or of another version: delete it; the round goes on without it"
    )
