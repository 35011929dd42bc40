"""What a site signs, and what binds its choices: one place, so that signer and verifier cannot drift apart."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from infra.federation.secagg.context import Context
from infra.federation.secagg.messages import (
    Announcement,
    Confirmation,
    KeyList,
    MaskedVector,
    Survivors,
    table,
)
from infra.federation.secagg.primitives import agree, check_public, derive, digest, sign, verify
from models.errors import UpdateRejected

_KEYS, _VECTOR, _SURVIVORS = "announced keys", "masked vector", "survivor set"


def commitment(context: Context, site: int, self_seed: bytes) -> bytes:
    """Commitment to a self-mask's seed; hiding because the seed is 256 bits of entropy."""
    return digest("self-mask commitment", context.digest, _numbers(site), self_seed)


def self_mask_seed(context: Context, site: int, self_seed: bytes) -> bytes:
    """Seed of the keystream that a site adds for itself."""
    return derive(self_seed, "self mask", context.digest, site, site)


def pair_mask_seed(context: Context, private: bytes, public: bytes, own: int, other: int) -> bytes:
    """Seed of the keystream of a pair, the same from either side: the lower number adds it, the higher one subtracts it."""
    return derive(agree(private, public), "pair mask", context.digest, min(own, other), max(own, other))


def share_key(context: Context, private: bytes, public: bytes, sender: int, recipient: int) -> bytes:
    """Key under which one site seals shares for another."""
    return derive(agree(private, public), "shares", context.digest, sender, recipient)


def share_label(key_list: KeyList, sender: int, recipient: int) -> bytes:
    """Associated data of sealed shares: they open only between two sites that were shown the same keys."""
    return digest("sealed shares", key_list.to_bytes(), _numbers(sender, recipient))


def vector_digest(payload: bytes) -> bytes:
    """SHA-256 of a packed masked vector."""
    return hashlib.sha256(payload).digest()


def survivor_statement(key_list: KeyList, shared: Iterable[int], survivors: Survivors) -> bytes:
    """Digest of all that decides a sum: the keys, who shared (U2), who survived (U), and which vectors were counted."""
    parts = (key_list.to_bytes(), _numbers(*sorted(shared)), table(survivors.entries))
    return digest("sum", survivors.context, *parts)


def announce(
    identity: Ed25519PrivateKey,
    context: Context,
    site: int,
    cipher_key: bytes,
    mask_key: bytes,
    commit: bytes,
) -> Announcement:
    """A signed announcement."""
    parts = (context.digest, _numbers(site), cipher_key, mask_key, commit)
    return Announcement(context.digest, site, cipher_key, mask_key, commit, sign(identity, _KEYS, *parts))


def check_announcement(context: Context, a: Announcement) -> None:
    """The keys are this site's own, for this context, and usable.

    Raises:
        UpdateRejected: they are not.
    """
    _of_site(context, a.site, a.signature, _KEYS, _numbers(a.site), a.cipher_key, a.mask_key, a.commitment)
    for key in (a.cipher_key, a.mask_key):
        check_public(key)


def masked_vector(identity: Ed25519PrivateKey, context: Context, site: int, payload: bytes) -> MaskedVector:
    """A signed masked vector."""
    parts = (context.digest, _numbers(site), vector_digest(payload))
    return MaskedVector(context.digest, site, payload, sign(identity, _VECTOR, *parts))


def check_vector(context: Context, vector: MaskedVector) -> bytes:
    """The vector arrived as its site sent it; its digest.

    Raises:
        UpdateRejected: it did not.
    """
    found = vector_digest(vector.payload)
    _of_site(context, vector.site, vector.signature, _VECTOR, _numbers(vector.site), found)
    return found


def confirm(identity: Ed25519PrivateKey, context: Context, site: int, statement: bytes) -> Confirmation:
    """A signed survivor set."""
    return Confirmation(
        context.digest, site, sign(identity, _SURVIVORS, context.digest, _numbers(site), statement)
    )


def check_confirmation(context: Context, site: int, signature: bytes, statement: bytes) -> None:
    """The site signed this survivor set.

    Raises:
        UpdateRejected: it did not.
    """
    _of_site(context, site, signature, _SURVIVORS, _numbers(site), statement)


def _of_site(context: Context, site: int, signature: bytes, label: str, *parts: bytes) -> None:
    try:
        verify(context.identity(site), signature, label, context.digest, *parts)
    except UpdateRejected as err:
        raise UpdateRejected(
            f"round {context.round}, site {context.name(site)!r}: {err}; altered on the way, replayed, or not from that site"
        ) from None


def _numbers(*sites: int) -> bytes:
    return struct.pack(f">{len(sites)}H", *sites)
