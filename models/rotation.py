"""A rotation with a public seed that spreads a vector's energy over all coordinates, exact both ways.

    z = (1/64) · H · Π · S · x        x = S · Πᵀ · (1/64) · H · z

S random signs, Π a random permutation of all padded coordinates, H block-diagonal Walsh–Hadamard matrices of 4096. After it
every coordinate is close to N(0, ‖x‖²/padded), so one public range fits all (randomised Hadamard rotation, arXiv 1611.00429,
section 3). Without Π a vector whose energy lies in few blocks, such as one that moves a head only, stays in those blocks.

Every site and the server must build the same S and Π from the same seed, so both come from the raw stream of Philox4x64-10, which
numpy guarantees, and a sort of distinct keys, whose result is the same for every algorithm. Butterflies are elementwise
additions, never a BLAS call: the bits do not depend on threads or libraries.
"""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
import numpy.typing as npt

from models.errors import FederationError, UpdateRejected

BLOCK: Final = 4096
_SIDE: Final = 64  # H_4096 = H_64 ⊗ H_64, and √4096
# bytes worked on at once, with as much scratch: they stay in cache, and smaller pieces cost more calls than they save
_CACHE: Final = 512 * 1024
_DOMAIN: Final = b"cryfed rotation 1\x00"

Float64 = npt.NDArray[np.float64]


def padded_size(size: int) -> int:
    """`size` rounded up to whole blocks: the number of coordinates that travel."""
    return -(-size // BLOCK) * BLOCK


class Rotation:
    """S, Π and H for vectors (size,), from a public seed of 32 bytes.

    Block j holds the coordinates i ≡ j mod (padded / 4096): block-minor, so that a butterfly runs over neighbours in memory. Π
    makes the choice arbitrary.

    Raises:
        FederationError: the size is not positive or the seed not 32 bytes long.
    """

    def __init__(self, size: int, seed: bytes) -> None:
        if size < 1 or len(seed) != 32:
            raise FederationError(
                f"a rotation needs a size of at least 1 and a seed of 32 bytes, not {size} and {len(seed)}"
            )
        self.size = size
        self.padded = padded_size(size)
        key = int.from_bytes(hashlib.sha256(_DOMAIN + seed).digest()[:16], "little")
        stream = np.random.Philox(key=key)
        # the low bits of each key are its index: distinct keys, hence the stable argsort of their random high bits;
        # coordinate i goes to place _places[i], and the places beyond the size hold the padding
        index_bits = (self.padded - 1).bit_length()
        keys = stream.random_raw(self.padded) >> index_bits << index_bits
        keys |= np.arange(self.padded, dtype=np.uint64)
        keys.sort()
        self._places = (keys[:size] & np.uint64((1 << index_bits) - 1)).astype(np.intp)
        words = stream.random_raw(-(-size // 64)).astype("<u8")
        bits = np.unpackbits(words.view(np.uint8), count=size, bitorder="little")
        self._signs = 1 - 2 * bits.astype(np.int8)

    def forward(self, x: npt.NDArray[np.floating]) -> Float64:
        """(size,) → z (padded,), with ‖z‖ = ‖x‖.

        Raises:
            UpdateRejected: another shape.
        """
        self._check(x, self.size)
        z = np.zeros(self.padded)
        z[self._places] = np.multiply(x, self._signs, dtype=np.float64)
        walsh_hadamard(z.reshape(BLOCK, -1))
        z *= 1.0 / _SIDE  # a power of two: exact
        return z

    def inverse(self, z: Float64) -> Float64:
        """(padded,) → (size,). What z holds outside the image of `forward` is dropped with the padding.

        Raises:
            UpdateRejected: another shape.
        """
        self._check(z, self.padded)
        work = np.array(z, dtype=np.float64)
        walsh_hadamard(work.reshape(BLOCK, -1))
        work *= 1.0 / _SIDE
        return work.take(self._places) * self._signs

    def inverse_int(self, total: npt.NDArray[np.signedinteger]) -> npt.NDArray[np.int64]:
        """Integers (padded,) → 64 times their inverse rotation, (size,), in integers throughout: linear to the bit.

        No partial sum exceeds 4096·max|total|, so int64 is exact up to max|total| = 2^51 − 1 and int32, twice as fast, up to
        2^19 − 1: 4128 summands of 8 bits (|total| ≤ 127·n). The narrower is taken where it is exact; the result is the same.

        Raises:
            UpdateRejected: another shape, not signed integers, or out of that range.
        """
        self._check(total, self.padded)
        if total.dtype.kind != "i":
            raise UpdateRejected(f"the exact transform needs signed integers, not {total.dtype}")
        peak = max(int(total.max()), -int(total.min()))
        if peak * BLOCK >= 1 << 63:
            raise UpdateRejected(
                f"a coordinate of ±{peak} would overflow the exact transform (2^51 − 1 at most)"
            )
        work = total.astype(np.int32 if peak * BLOCK < 1 << 31 else np.int64)
        walsh_hadamard(work.reshape(BLOCK, -1))
        return np.multiply(work.take(self._places), self._signs, dtype=np.int64)

    def _check(self, x: npt.NDArray, length: int) -> None:
        if x.shape != (length,):
            raise UpdateRejected(
                f"vector has shape {x.shape}, this rotation of {self.size} coordinates needs ({length},)"
            )


def walsh_hadamard(columns: npt.NDArray) -> None:
    """H_4096 · columns, unnormalised, in Sylvester's order, in place: (4096, n), C-contiguous, any signed or float type."""
    n = columns.shape[1]
    width = _CACHE // (_SIDE * columns.itemsize)
    # H_4096 = (H_64 ⊗ I)(I ⊗ H_64): two passes over memory, each in pieces that stay in cache
    for x in (columns.reshape(1, _SIDE, _SIDE * n, copy=False), columns.reshape(_SIDE, _SIDE, n, copy=False)):
        group = max(1, width // x.shape[2])
        scratch = np.empty(group * _SIDE * min(width, x.shape[2]), dtype=columns.dtype)
        for i in range(0, x.shape[0], group):
            for j in range(0, x.shape[2], width):
                piece = x[i : i + group, :, j : j + width]
                _hadamard_64(piece, scratch[: piece.size].reshape(piece.shape))


def _hadamard_64(x: npt.NDArray, scratch: npt.NDArray) -> None:
    """H_64 over axis 1 of (g, 64, w), in place. Six stages between two buffers: an even number ends where it began."""
    groups, _, width = x.shape
    source, target = x, scratch
    for h in (1, 2, 4, 8, 16, 32):
        shape = (groups, _SIDE // (2 * h), 2, h, width)
        a, b = source.reshape(shape, copy=False), target.reshape(shape, copy=False)
        np.add(a[:, :, 0], a[:, :, 1], out=b[:, :, 0])
        np.subtract(a[:, :, 0], a[:, :, 1], out=b[:, :, 1])
        source, target = target, source
