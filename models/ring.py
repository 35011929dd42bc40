"""Sums in Z_{2^k}, and k-bit integers as packed bytes.

Masked sums need no more room than the largest sum of n summands: k = ⌈log2((2^b − 2)·n + 1)⌉ bits a value, packed without
gaps (the autotuned ring of arXiv 1912.00131). Value i takes the bits [i·k, (i+1)·k) of the stream, least significant
first; bit j of the stream is bit j mod 8 of byte ⌊j/8⌋.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from models.errors import FederationError, UpdateRejected

MAX_BITS: Final = 32
_GROUPS: Final = 4096  # groups of 8 values worked on at once: 64-bit words of them fit in a core's cache

Packed = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]


def ring_bits(levels: int, summands: int) -> int:
    """k such that a sum of `summands` values in 0 … levels never wraps mod 2^k.

    Raises:
        FederationError: fewer than one level or summand, or more than 32 bits needed.
    """
    if levels < 1 or summands < 1:
        raise FederationError(f"a ring needs at least one level and one summand, not {levels} and {summands}")
    bits = (levels * summands).bit_length()
    if bits > MAX_BITS:
        raise FederationError(
            f"{summands} summands of {levels} levels need {bits} bits, the ring has at most {MAX_BITS}: sum in groups"
        )
    return bits


def packed_bytes(n: int, bits: int) -> int:
    """⌈n·bits/8⌉, the length of n packed values.

    Raises:
        FederationError: n is negative or bits not within 1 … 32.
    """
    if n < 0 or not 1 <= bits <= MAX_BITS:
        raise FederationError(f"cannot pack {n} values of {bits} bits: needs n ≥ 0 and 1 ≤ bits ≤ {MAX_BITS}")
    return (n * bits + 7) // 8


def pack(values: npt.NDArray[np.unsignedinteger], bits: int) -> bytes:
    """Unsigned integers (n,) below 2^bits → `packed_bytes(n, bits)` bytes; the padding bits of the last are zero.

    Raises:
        FederationError: not a vector of unsigned integers, a value of 2^bits or more, or bits not within 1 … 32.
    """
    if values.ndim != 1 or values.dtype.kind != "u":
        raise FederationError(
            f"only a vector of unsigned integers can be packed, not {values.dtype} {values.shape}"
        )
    n = values.size
    length = packed_bytes(n, bits)
    if n and int(values.max()) >> bits:
        raise FederationError(
            f"value {int(values.max())} does not fit {bits} bits: reduce it mod 2^{bits} first"
        )
    groups = -(-n // 8)
    # 8 values of k bits are k whole bytes: gathered in 64-bit words, of which the last may be part empty
    out = np.empty((groups, bits), dtype=np.uint8)
    for start in range(0, groups, _GROUPS):
        part = values[8 * start : 8 * (start + _GROUPS)]
        count = -(-part.size // 8)
        columns = np.zeros((count, 8), dtype=np.uint64)
        columns.reshape(-1)[: part.size] = part
        columns = np.ascontiguousarray(columns.T)
        words = np.zeros((_words(bits), count), dtype=np.uint64)
        for i, (word, shift) in enumerate(_places(bits)):
            words[word] |= columns[i] << shift
            if shift + bits > 64:
                words[word + 1] |= columns[i] >> (64 - shift)
        as_bytes = np.ascontiguousarray(words.T, dtype="<u8").view(np.uint8)
        out[start : start + count] = as_bytes[:, :bits]
    return out.tobytes()[:length]


def unpack(data: bytes, n: int, bits: int) -> Packed:
    """Inverse of `pack`: (n,) uint16 when bits ≤ 16, else uint32.

    Raises:
        FederationError: n is negative or bits not within 1 … 32.
        UpdateRejected: the length is not that of n packed values, or a padding bit is set.
    """
    length = packed_bytes(n, bits)
    if len(data) != length:
        raise UpdateRejected(
            f"packed vector holds {len(data)} bytes, {n} values of {bits} bits take {length}: "
            "the sender has another size, bit width or cohort"
        )
    if n * bits % 8 and data[-1] >> (n * bits % 8):
        raise UpdateRejected(f"packed vector of {n} values of {bits} bits has padding bits that are not zero")
    dtype = np.uint16 if bits <= 16 else np.uint32
    groups = -(-n // 8)
    stream = np.frombuffer(data, dtype=np.uint8)
    out = np.empty((groups, 8), dtype=dtype)
    mask = np.uint64((1 << bits) - 1)
    for start in range(0, groups, _GROUPS):
        count = min(_GROUPS, groups - start)
        part = stream[start * bits : (start + count) * bits]
        if part.size < count * bits:
            part = np.concatenate([part, np.zeros(count * bits - part.size, dtype=np.uint8)])
        as_bytes = np.zeros((count, 8 * _words(bits)), dtype=np.uint8)
        as_bytes[:, :bits] = part.reshape(count, bits)
        words = np.ascontiguousarray(as_bytes.view("<u8").T, dtype=np.uint64)
        columns = np.empty((8, count), dtype=dtype)
        for i, (word, shift) in enumerate(_places(bits)):
            value = words[word] >> shift
            if shift + bits > 64:
                value |= words[word + 1] << (64 - shift)
            columns[i] = value & mask
        out[start : start + count] = columns.T
    return out.reshape(-1)[:n]


def _words(bits: int) -> int:
    """64-bit words that hold 8 values."""
    return -(-bits // 8)


def _places(bits: int) -> list[tuple[int, int]]:
    """Word and shift of each of the 8 values of a group."""
    return [divmod(i * bits, 64) for i in range(8)]
