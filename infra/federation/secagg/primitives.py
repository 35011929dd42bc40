"""The cryptography, all of it from the `cryptography` package: this file only fixes labels and sizes.

    X25519 (RFC 7748)         agreement between two sites
    HKDF-SHA256 (RFC 5869)    keys and seeds out of shared secrets
    AES-256-CTR               a seed's keystream: the mask
    AES-256-GCM               shares on their way through the server
    Ed25519 (RFC 8032)        who said it

Everything derived or signed starts with the protocol's name and a label, each part behind its length, so no two uses can
produce the same input.
"""

from __future__ import annotations

import hashlib
import os
import struct
from typing import Final

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from models.errors import UpdateRejected

SECRET_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
DIGEST_BYTES: Final = 32
_NONCE_BYTES: Final = 12
SEAL_BYTES: Final = _NONCE_BYTES + 16  # what sealing adds: nonce and tag
_PROTOCOL: Final = b"cryfed secure aggregation 1"
_PROBE: Final = bytes(31) + b"\x40"  # any scalar: a point of small order gives zero with every one


def new_secret() -> bytes:
    """32 bytes of the operating system's entropy."""
    return os.urandom(SECRET_BYTES)


def framed(label: str, *parts: bytes) -> bytes:
    """Protocol, label and parts, each behind its length: an injective encoding."""
    return b"".join(struct.pack(">I", len(p)) + p for p in (_PROTOCOL, label.encode(), *parts))


def digest(label: str, *parts: bytes) -> bytes:
    """SHA-256 under a label, 32 bytes."""
    return hashlib.sha256(framed(label, *parts)).digest()


def public_key(private: bytes) -> bytes:
    """The X25519 public key of 32 private bytes."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agree(private: bytes, public: bytes) -> bytes:
    """X25519 shared secret, 32 bytes.

    Raises:
        UpdateRejected: the public key is a point of small order, with which every secret would be the same.
    """
    try:
        own, other = X25519PrivateKey.from_private_bytes(private), X25519PublicKey.from_public_bytes(public)
        return own.exchange(other)
    except ValueError:
        raise UpdateRejected("a public key is a point of small order: it agrees on no secret") from None


def check_public(public: bytes) -> None:
    """The X25519 key can agree on a secret.

    Raises:
        UpdateRejected: as `agree`.
    """
    agree(_PROBE, public)


def derive(secret: bytes, label: str, context: bytes, first: int, second: int) -> bytes:
    """HKDF-SHA256: 32 bytes for one purpose between two sites (or one with itself).

    Args:
        context: digest of the `Context`; it stands for run, round, attempt, and the cohort that numbers refer to.
        first, second: the sites' numbers.
    """
    info = framed(label, context, struct.pack(">HH", first, second))
    return HKDF(algorithm=hashes.SHA256(), length=SECRET_BYTES, salt=None, info=info).derive(secret)


def keystream(seed: bytes) -> CipherContext:
    """AES-256-CTR from counter zero; encrypting zeros with it yields the stream. A seed serves one mask only."""
    return Cipher(algorithms.AES256(seed), modes.CTR(bytes(16))).encryptor()


def seal(key: bytes, plaintext: bytes, associated: bytes) -> bytes:
    """AES-256-GCM under a random nonce, which leads the result."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plaintext, associated)


def unseal(key: bytes, sealed: bytes, associated: bytes) -> bytes:
    """Inverse of `seal`.

    Raises:
        UpdateRejected: altered, or sealed for something else.
    """
    try:
        return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], associated)
    except (InvalidTag, ValueError):
        raise UpdateRejected("a sealed share does not open: altered, or meant for another exchange") from None


def sign(identity: Ed25519PrivateKey, label: str, *parts: bytes) -> bytes:
    """Ed25519 signature over `framed(label, *parts)`, 64 bytes."""
    return identity.sign(framed(label, *parts))


def verify(public: bytes, signature: bytes, label: str, *parts: bytes) -> None:
    """Check a signature of `sign`.

    Raises:
        UpdateRejected: it is not by this key over these parts.
    """
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, framed(label, *parts))
    except (InvalidSignature, ValueError):
        raise UpdateRejected(f"the signature of {label!r} does not verify") from None
