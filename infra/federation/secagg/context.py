"""What every message of one secure aggregation is bound to, and what a site has pinned beforehand.

The server proposes a `Context`; both ends put its digest into every message, signature, key derivation and ciphertext. So nothing
of another run, round, attempt, configuration or cohort can be mixed in, and two parties with different ideas of the cohort cannot
finish a round together.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, Final

from infra.digest import canonical_json
from models.errors import FederationError, UpdateRejected
from models.ring import packed_bytes

MIN_SITES: Final = 3  # of two sites, each would read the other's vector off the sum
MAX_SITES: Final = 256
MAX_WORDS: Final = 2**27  # in all sections together
MAX_CONTEXT_BYTES: Final = 256 * 1024
KEY_BYTES: Final = 32
_MAX_COUNTER: Final = 2**31
_HEX64: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Member:
    """One site of a cohort."""

    name: str
    key: str  # Ed25519 verification key, 64 hex digits


@dataclass(frozen=True)
class Section:
    """A run of integers that share a ring: `length` values in Z_{2^bits}."""

    length: int
    bits: int

    @property
    def packed_bytes(self) -> int:
        """Bytes of the section on the wire."""
        return packed_bytes(self.length, self.bits)


@dataclass(frozen=True)
class Context:
    """One attempt at one round's sum.

    Raises:
        FederationError: on construction, when a field is out of range; in particular for fewer than 3 sites, or for a threshold
            below ⌊2n/3⌋ + 1: the server proposes it, and a low one would let it obtain two sums of one round.
    """

    run: str  # digests are SHA-256, 64 hex digits
    round: int
    attempt: int
    cv_epoch: int
    schema: str
    base: str
    config: str
    clip: float  # C
    sections: tuple[Section, ...]
    cohort: tuple[Member, ...]  # in aggregation order; a site's place is its number in every message
    threshold: int  # t

    def __post_init__(self) -> None:
        n = len(self.cohort)
        for name in ("run", "schema", "base", "config"):
            _demand(_is_hex64(getattr(self, name)), f"{name} is not a SHA-256 in hex")
        for name in ("round", "attempt", "cv_epoch"):
            value = getattr(self, name)
            _demand(type(value) is int and 0 <= value < _MAX_COUNTER, f"{name} is not a count")
        clip = self.clip
        _demand(type(clip) is float and math.isfinite(clip) and clip > 0, "the clip C must be positive")
        _demand(bool(self.sections), "there is no section to sum")
        for s in self.sections:
            ok = type(s.length) is int and type(s.bits) is int and s.length >= 1 and 1 <= s.bits <= 32
            _demand(ok, "a section must have a length of at least 1 and 1 to 32 bits")
        _demand(sum(s.length for s in self.sections) <= MAX_WORDS, f"more than {MAX_WORDS} values")
        _demand(
            MIN_SITES <= n <= MAX_SITES,
            f"{n} sites, secure aggregation takes {MIN_SITES} to {MAX_SITES}: from a sum of two, each learns the other's vector",
        )
        for m in self.cohort:
            _demand(isinstance(m.name, str) and 1 <= len(m.name) <= 120, "a site has no usable name")
            _demand(_is_hex64(m.key), f"site {m.name!r} has no Ed25519 key of 64 hex digits")
        _demand(len({m.name for m in self.cohort}) == n, "two sites have one name")
        _demand(len({m.key for m in self.cohort}) == n, "two sites have one identity key")
        least = default_threshold(n)
        ok = type(self.threshold) is int and least <= self.threshold <= n
        _demand(ok, f"the threshold is {self.threshold!r}, for {n} sites it must lie in {least}..{n}")

    @property
    def n(self) -> int:
        """Sites in the cohort."""
        return len(self.cohort)

    @property
    def colluders(self) -> int:
        """Sites that may work together with the server and still learn only the sum over at least two others.

        2t > n + c makes two quorums share an honest site, which confirms one survivor set only; at least t sites are summed,
        so t − c ≥ 2 of them are honest.
        """
        return min(2 * self.threshold - self.n - 1, self.threshold - 2)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the canonical encoding, 32 bytes."""
        return hashlib.sha256(self._encoded).digest()

    def index(self, name: str) -> int:
        """A site's number in the cohort.

        Raises:
            UpdateRejected: it is not in it.
        """
        for number, member in enumerate(self.cohort):
            if member.name == name:
                return number
        raise UpdateRejected(f"round {self.round}: site {name!r} is not in the cohort")

    def name(self, number: int) -> str:
        """The site with this number."""
        return self.cohort[number].name

    def identity(self, number: int) -> bytes:
        """Its Ed25519 verification key."""
        return bytes.fromhex(self.cohort[number].key)

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return self._encoded

    @cached_property
    def _encoded(self) -> bytes:
        return canonical_json(asdict(self))

    @classmethod
    def from_bytes(cls, data: bytes) -> Context:
        """Parse a context from outside.

        Raises:
            UpdateRejected: oversized, not canonical JSON, a field missing, unknown, of the wrong type or out of range.
        """
        if len(data) > MAX_CONTEXT_BYTES:
            raise UpdateRejected(
                f"a round's context has {len(data)} bytes, more than the {MAX_CONTEXT_BYTES} allowed"
            )
        try:
            raw = json.loads(data)
            parts: dict[str, Any] = _exactly(raw, cls)
            parts["sections"] = tuple(Section(**_exactly(s, Section)) for s in _list(raw["sections"]))
            parts["cohort"] = tuple(Member(**_exactly(m, Member)) for m in _list(raw["cohort"]))
            context = cls(**parts)
            canonical = context.to_bytes() == data
        except (ValueError, TypeError, RecursionError, FederationError) as err:
            reason = str(err) if isinstance(err, FederationError) else "not the JSON of one"
            raise UpdateRejected(f"a round's context is malformed: {reason}") from None
        if not canonical:
            raise UpdateRejected("a round's context is not in canonical form: sort keys, leave out spaces")
        return context


@dataclass(frozen=True)
class Roster:
    """What a site decided before any server spoke to it: whom it takes part with.

    Without pinned identities a server could fill the cohort with sites of its own; without a smallest cohort it could ask for a
    sum over few.
    """

    keys: Mapping[str, bytes]  # site → Ed25519 verification key, 32 bytes
    smallest_cohort: int = MIN_SITES

    def check(self, context: Context) -> None:
        """The cohort consists of sites known here, under the keys known here, and is large enough.

        Raises:
            FederationError: it does not.
        """
        for number, member in enumerate(context.cohort):
            if self.keys.get(member.name) != context.identity(number):
                known = "has another identity key" if member.name in self.keys else "is not known"
                raise FederationError(
                    f"round {context.round}: site {member.name!r} of the cohort {known} here; compare the key's fingerprint with "
                    "that site by another channel, then mend the list of sites"
                )
        if context.n < self.smallest_cohort:
            raise FederationError(
                f"round {context.round}: a cohort of {context.n} sites, this site takes part from {self.smallest_cohort} on"
            )


def default_threshold(n: int) -> int:
    """⌊2n/3⌋ + 1: with it, 2t > n + ⌊n/3⌋."""
    return 2 * n // 3 + 1


def _demand(condition: bool, otherwise: str) -> None:
    if not condition:
        raise FederationError(f"secure aggregation cannot start: {otherwise}")


def _is_hex64(value: object) -> bool:
    return isinstance(value, str) and _HEX64.fullmatch(value) is not None


def _exactly(raw: object, cls: type) -> dict[str, Any]:
    if not isinstance(raw, dict) or set(raw) != {f.name for f in fields(cls)}:
        raise ValueError
    return dict(raw)


def _list(raw: object) -> list[Any]:
    if not isinstance(raw, list):
        raise TypeError
    return raw
