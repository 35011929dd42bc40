"""Arithmetic on masked sections: words of 16 or 32 bits that wrap, reduced to the ring Z_{2^k} only where they leave the process.

2^16 and 2^32 are multiples of every 2^k that they hold: a uniform word is uniform in the ring, and sums of words are right in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from infra.federation.secagg.blobs import damaged
from infra.federation.secagg.context import Context, Section
from infra.federation.secagg.primitives import keystream
from models.errors import UpdateRejected
from models.ring import pack, unpack

Words = npt.NDArray[np.unsignedinteger]  # little-endian, (length,)

_CHUNK: Final = 2**18  # bytes of keystream at a time: it stays in the processor's cache
_ZEROS: Final = memoryview(bytes(_CHUNK))


def word_type(section: Section) -> np.dtype[np.unsignedinteger]:
    """uint16 up to 16 bits, uint32 beyond."""
    return np.dtype("<u2" if section.bits <= 16 else "<u4")


def zeros(context: Context) -> tuple[Words, ...]:
    """The neutral sum."""
    return tuple(np.zeros(s.length, word_type(s)) for s in context.sections)


def to_words(context: Context, values: Sequence[npt.NDArray[Any]]) -> tuple[Words, ...]:
    """A site's sections as words; always a copy.

    Raises:
        UpdateRejected: another number of sections, another shape, not integers, or a value outside 0..2^bits − 1.
    """
    if len(values) != len(context.sections):
        raise UpdateRejected(f"{len(values)} sections to mask, the round has {len(context.sections)}")
    words = []
    for place, (section, value) in enumerate(zip(context.sections, values, strict=True)):
        if value.shape != (section.length,) or value.dtype.kind not in "iu":
            raise UpdateRejected(
                f"section {place} to mask is {value.dtype} of shape {value.shape}, not integers of shape ({section.length},)"
            )
        if int(value.min()) < 0 or int(value.max()) >= 2**section.bits:
            raise UpdateRejected(f"section {place} to mask has a value outside its {section.bits} bits")
        words.append(value.astype(word_type(section)))
    return tuple(words)


def add_mask(words: Sequence[Words], seed: bytes, *, subtract: bool = False) -> None:
    """Add (or subtract) the mask of a seed, in place: one keystream, section after section."""
    stream, buffer = keystream(seed), bytearray(_CHUNK)
    apply = np.subtract if subtract else np.add
    for section in words:
        step = _CHUNK // section.itemsize
        for start in range(0, section.size, step):
            part = section[start : start + step]
            stream.update_into(_ZEROS[: part.nbytes], buffer)
            apply(part, np.frombuffer(buffer, section.dtype, part.size), out=part)


def add_words(total: Sequence[Words], words: Sequence[Words]) -> tuple[Words, ...]:
    """The sum, as new words."""
    return tuple((a + b).astype(a.dtype, copy=False) for a, b in zip(total, words, strict=True))


def to_buffer(words: Sequence[Words]) -> bytes:
    """Words as they are, for a state on disk."""
    return b"".join(w.tobytes() for w in words)


def from_buffer(context: Context, data: bytes) -> tuple[Words, ...]:
    """Inverse of `to_buffer`.

    Raises:
        FederationError: another length.
    """
    words, at = [], 0
    if len(data) != sum(s.length * word_type(s).itemsize for s in context.sections):
        raise damaged()
    for section in context.sections:
        words.append(np.frombuffer(data, word_type(section), section.length, at))
        at += words[-1].nbytes
    return tuple(words)


def reduce(context: Context, words: Sequence[Words]) -> tuple[npt.NDArray[np.int64], ...]:
    """Words as ring elements 0..2^bits − 1."""
    return tuple((w & _modulus(s)).astype(np.int64) for s, w in zip(context.sections, words, strict=True))


def pack_words(context: Context, words: Sequence[Words]) -> bytes:
    """Words as they travel: each section's ring elements, bit-packed."""
    return b"".join(pack(w & _modulus(s), s.bits) for s, w in zip(context.sections, words, strict=True))


def unpack_words(context: Context, payload: bytes) -> tuple[Words, ...]:
    """Inverse of `pack_words`, up to multiples of the ring.

    Raises:
        UpdateRejected: another length, or bits set after a section's end.
    """
    words, at = [], 0
    for section in context.sections:
        end = at + section.packed_bytes
        words.append(
            unpack(payload[at:end], section.length, section.bits).astype(word_type(section), copy=False)
        )
        at = end
    return tuple(words)


def _modulus(section: Section) -> np.unsignedinteger:
    return word_type(section).type(2**section.bits - 1)
