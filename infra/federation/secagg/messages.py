"""What travels in each stage, as bytes of known length.

    Announcement   site → server   its two public keys and a commitment to its self-mask, signed
    KeyList        server → site   all announcements
    Shares         site → server   for every other site, one sealed pair of shares
    Delivery       server → site   those sealed for it
    MaskedVector   site → server   the packed, masked sections, signed
    Survivors      server → site   U, and the digest of every vector that was counted
    Confirmation   site → server   signature over that
    Confirmations  server → site   at least t of them
    Reveal         site → server   one share of a secret of every other site, self-mask or pair key

Each starts with a format mark, its kind and the context's digest. The rest is one number of the sender, where there is one, and
tables: a count, then entries of one length, ascending by site. Anything else is refused, unread when it is too long.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar, Final, Self

from infra.federation.secagg.context import KEY_BYTES, Context
from infra.federation.secagg.primitives import DIGEST_BYTES, SEAL_BYTES, SIGNATURE_BYTES
from infra.federation.secagg.shamir import SHARE_BYTES
from models.errors import UpdateRejected

Table = Mapping[int, bytes]  # site number → entry

_MARK: Final = b"CSA\x01"
_HEAD: Final = struct.Struct(">4sB32s")
_NUMBER: Final = struct.Struct(">H")
SEALED_BYTES: Final = 2 * SHARE_BYTES + SEAL_BYTES
ANNOUNCED_BYTES: Final = 2 * KEY_BYTES + DIGEST_BYTES + SIGNATURE_BYTES


class Reader:
    """Takes a message apart from the front; never past its end."""

    def __init__(self, data: bytes, what: str) -> None:
        self._data, self._at, self.what = data, 0, what

    def take(self, size: int) -> bytes:
        """The next bytes."""
        self._at += size
        if self._at > len(self._data):
            raise UpdateRejected(f"{self.what} is cut short at {len(self._data)} bytes")
        return self._data[self._at - size : self._at]

    def number(self) -> int:
        """The next 16-bit number."""
        return int(_NUMBER.unpack(self.take(_NUMBER.size))[0])

    def site(self, n: int) -> int:
        """The next number, of a site."""
        site = self.number()
        if site >= n:
            raise UpdateRejected(f"{self.what} speaks of site number {site}, the cohort has {n}")
        return site

    def table(self, n: int, width: int) -> dict[int, bytes]:
        """The next table."""
        count, last = self.number(), -1
        if count > n:
            raise UpdateRejected(f"{self.what} has {count} entries for {n} sites")
        entries: dict[int, bytes] = {}
        for _ in range(count):
            site = self.site(n)
            if site <= last:
                raise UpdateRejected(f"{self.what} repeats a site, or is out of order")
            entries[site], last = self.take(width), site
        return entries

    def end(self) -> None:
        """Nothing may follow."""
        if self._at != len(self._data):
            raise UpdateRejected(f"{self.what} has {len(self._data) - self._at} bytes too many")


def number(value: int) -> bytes:
    """A 16-bit number."""
    return _NUMBER.pack(value)


def table(entries: Table) -> bytes:
    """A table, ascending."""
    return number(len(entries)) + b"".join(number(site) + entries[site] for site in sorted(entries))


def _table_bytes(n: int, width: int) -> int:
    return _NUMBER.size + n * (_NUMBER.size + width)


@dataclass(frozen=True)
class Message(ABC):
    """Base: bound to a context by its digest."""

    KIND: ClassVar[int]
    context: bytes

    def to_bytes(self) -> bytes:
        """The message as it travels."""
        return _HEAD.pack(_MARK, self.KIND, self.context) + self._body()

    @classmethod
    def from_bytes(cls, data: bytes, context: Context) -> Self:
        """Parse a message from outside.

        Raises:
            UpdateRejected: too long, cut short, of another kind, bound to another context, or malformed.
        """
        what = f"round {context.round}: {cls.__name__}"
        if len(data) > cls.max_bytes(context):
            raise UpdateRejected(
                f"{what} has {len(data)} bytes, more than the {cls.max_bytes(context)} possible"
            )
        reader = Reader(data, what)
        mark, kind, digest = _HEAD.unpack(reader.take(_HEAD.size))
        if mark != _MARK or kind != cls.KIND:
            raise UpdateRejected(f"{what} expected, the message is another or of another version")
        if digest != context.digest:
            raise UpdateRejected(
                f"{what} belongs to another run, round, attempt, cohort or configuration than {context.digest.hex()[:12]}"
            )
        message = cls._read(reader, context)
        reader.end()
        return message

    @classmethod
    def max_bytes(cls, context: Context) -> int:
        """No message of this kind is longer."""
        return _HEAD.size + cls._body_bytes(context)

    @abstractmethod
    def _body(self) -> bytes: ...

    @classmethod
    @abstractmethod
    def _read(cls, reader: Reader, context: Context) -> Self: ...

    @classmethod
    @abstractmethod
    def _body_bytes(cls, context: Context) -> int: ...


@dataclass(frozen=True)
class FromSite(Message):
    """Base of what a site sends."""

    site: int


@dataclass(frozen=True)
class Announcement(FromSite):
    """A site's keys for this attempt."""

    KIND = 1
    cipher_key: bytes  # X25519, 32 bytes: shares are sealed with it
    mask_key: bytes  # X25519: pair masks come from it, and it alone is ever recovered
    commitment: bytes  # digest of the self-mask's seed, so that wrong shares of it show
    signature: bytes

    def entry(self) -> bytes:
        """Its entry in a `KeyList`."""
        return self.cipher_key + self.mask_key + self.commitment + self.signature

    @classmethod
    def of_entry(cls, context: bytes, site: int, entry: bytes) -> Self:
        """Inverse of `entry`."""
        cuts = (0, KEY_BYTES, 2 * KEY_BYTES, 2 * KEY_BYTES + DIGEST_BYTES, ANNOUNCED_BYTES)
        return cls(context, site, *(entry[a:b] for a, b in pairwise(cuts)))

    def _body(self) -> bytes:
        return number(self.site) + self.entry()

    @classmethod
    def _read(cls, reader: Reader, context: Context) -> Self:
        return cls.of_entry(context.digest, reader.site(context.n), reader.take(ANNOUNCED_BYTES))

    @classmethod
    def _body_bytes(cls, _context: Context) -> int:
        return _NUMBER.size + ANNOUNCED_BYTES


@dataclass(frozen=True)
class MaskedVector(FromSite):
    """A site's packed and masked sections."""

    KIND = 5
    payload: bytes = field(repr=False)
    signature: bytes

    def _body(self) -> bytes:
        return number(self.site) + self.signature + self.payload

    @classmethod
    def _read(cls, reader: Reader, context: Context) -> Self:
        site, signature = reader.site(context.n), reader.take(SIGNATURE_BYTES)
        return cls(context.digest, site, reader.take(payload_bytes(context)), signature)

    @classmethod
    def _body_bytes(cls, context: Context) -> int:
        return _NUMBER.size + SIGNATURE_BYTES + payload_bytes(context)


@dataclass(frozen=True)
class Confirmation(FromSite):
    """A site's signature over the survivor set it was shown."""

    KIND = 7
    signature: bytes

    def _body(self) -> bytes:
        return number(self.site) + self.signature

    @classmethod
    def _read(cls, reader: Reader, context: Context) -> Self:
        return cls(context.digest, reader.site(context.n), reader.take(SIGNATURE_BYTES))

    @classmethod
    def _body_bytes(cls, _context: Context) -> int:
        return _NUMBER.size + SIGNATURE_BYTES


@dataclass(frozen=True)
class Shares(FromSite):
    """Sealed shares, by recipient."""

    KIND = 3
    sealed: Table = field(repr=False)

    def _body(self) -> bytes:
        return number(self.site) + table(self.sealed)

    @classmethod
    def _read(cls, reader: Reader, context: Context) -> Self:
        return cls(context.digest, reader.site(context.n), reader.table(context.n, SEALED_BYTES))

    @classmethod
    def _body_bytes(cls, context: Context) -> int:
        return _NUMBER.size + _table_bytes(context.n, SEALED_BYTES)


@dataclass(frozen=True)
class Reveal(FromSite):
    """Shares in clear, by owner: of the self-mask of survivors, of the pair key of those that dropped."""

    KIND = 9
    self_masks: Table = field(repr=False)
    pair_keys: Table = field(repr=False)

    def _body(self) -> bytes:
        return number(self.site) + table(self.self_masks) + table(self.pair_keys)

    @classmethod
    def _read(cls, reader: Reader, context: Context) -> Self:
        site, n = reader.site(context.n), context.n
        return cls(context.digest, site, reader.table(n, SHARE_BYTES), reader.table(n, SHARE_BYTES))

    @classmethod
    def _body_bytes(cls, context: Context) -> int:
        return _NUMBER.size + 2 * _table_bytes(context.n, SHARE_BYTES)


@dataclass(frozen=True)
class FromServer(Message):
    """Base of what the server sends: one table."""

    WIDTH: ClassVar[int]
    entries: Table = field(repr=False)

    @property
    def sites(self) -> frozenset[int]:
        """The sites it has an entry of."""
        return frozenset(self.entries)

    def _body(self) -> bytes:
        return table(self.entries)

    @classmethod
    def _read(cls, reader: Reader, context: Context) -> Self:
        return cls(context.digest, reader.table(context.n, cls.WIDTH))

    @classmethod
    def _body_bytes(cls, context: Context) -> int:
        return _table_bytes(context.n, cls.WIDTH)


class KeyList(FromServer):
    """The announcements of those who will share (U1)."""

    KIND = 2
    WIDTH = ANNOUNCED_BYTES

    def announcement(self, site: int) -> Announcement:
        """One of them."""
        return Announcement.of_entry(self.context, site, self.entries[site])


class Delivery(FromServer):
    """Sealed shares for one site, by sender. Senders and recipient are those who shared (U2)."""

    KIND = 4
    WIDTH = SEALED_BYTES


class Survivors(FromServer):
    """The survivor set U, with the digest of each counted vector."""

    KIND = 6
    WIDTH = DIGEST_BYTES


class Confirmations(FromServer):
    """Signatures over one survivor set, by signer."""

    KIND = 8
    WIDTH = SIGNATURE_BYTES


def payload_bytes(context: Context) -> int:
    """Exact length of a packed vector."""
    return sum(section.packed_bytes for section in context.sections)
