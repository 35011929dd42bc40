"""How a vector becomes the bytes that travel. Plain float32 here; quantised and masked codecs have the same face."""

from __future__ import annotations

import struct
from typing import Final, Protocol

import numpy as np

from models.adapters import AdapterSchema, Vector
from models.errors import UpdateRejected


class Codec(Protocol):
    """Vector (P,) float32 ↔ bytes, bound to one schema."""

    @property
    def max_bytes(self) -> int:
        """No message of this codec is longer: a receiver refuses more before it reads it."""

    def encode(self, vector: Vector) -> bytes:
        """The vector as bytes.

        Raises:
            FederationError: the vector does not fit the schema or is not finite.
        """

    def decode(self, data: bytes) -> Vector:
        """The bytes as a vector.

        Raises:
            UpdateRejected: not of this codec, another schema, truncated, or not finite.
        """


_MAGIC: Final = b"CRYF32\x00\x01"
_HEADER: Final = struct.Struct("<8s32sQ")  # magic and version, schema digest, P


class Float32Codec:
    """Little-endian float32 behind a 48-byte header with the schema's digest."""

    def __init__(self, schema: AdapterSchema) -> None:
        self.schema = schema
        self._digest = bytes.fromhex(schema.digest)

    @property
    def max_bytes(self) -> int:
        """Header and 4 bytes a parameter: every message has exactly this length."""
        return _HEADER.size + 4 * self.schema.size

    def encode(self, vector: Vector) -> bytes:
        """See `Codec.encode`."""
        self.schema.check(vector, "vector to send")
        return _HEADER.pack(_MAGIC, self._digest, vector.size) + vector.astype("<f4").tobytes()

    def decode(self, data: bytes) -> Vector:
        """See `Codec.decode`."""
        if len(data) < _HEADER.size:
            raise UpdateRejected(f"message of {len(data)} bytes is shorter than its header ({_HEADER.size})")
        magic, digest, size = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise UpdateRejected(
                f"message starts with {magic!r}, not with {_MAGIC!r}: another codec or version"
            )
        if digest != self._digest:
            raise UpdateRejected(
                f"message has schema {digest.hex()[:12]}, this federation {self.schema.digest[:12]}: "
                "the sender runs another preset, rank or label set"
            )
        if size != self.schema.size or len(data) != self.max_bytes:
            raise UpdateRejected(
                f"message holds {len(data)} bytes for {size} parameters, needs {self.max_bytes} for {self.schema.size}"
            )
        vector = np.frombuffer(data, dtype="<f4", offset=_HEADER.size).astype(np.float32)
        if not np.isfinite(vector).all():
            raise UpdateRejected("message holds a value that is not finite")
        return vector
