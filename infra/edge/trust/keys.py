"""Keys of a fleet's roles: ECDSA on P-256, private ones in files that their owner alone can read, never printed.

    <folder>/<name>.pem     PKCS #8, mode 0600, made once, never overwritten

A key's id is the SHA-256, in hex, of its DER SubjectPublicKeyInfo with the point uncompressed. The same point can be written
compressed: taken as it came it would have a second id, and one key could pass for two towards a threshold.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from infra.digest import digest_bytes
from models.errors import KeyFileError, OutputError

MAX_KEY_BYTES: Final = 4096
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_P256: Final = "secp256r1"


@dataclass(frozen=True)
class PublicKey:
    """Verifies; `keyid` names it in roots and signatures."""

    keyid: str
    pem: str
    _key: ec.EllipticCurvePublicKey = field(repr=False, compare=False)

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Whether `signature` (DER) is this key's over `data` (ECDSA, SHA-256)."""
        try:
            self._key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class PrivateKey:
    """Signs. Its name is that of its file; the key itself is never shown."""

    name: str
    public: PublicKey
    _key: ec.EllipticCurvePrivateKey = field(repr=False, compare=False)

    @property
    def keyid(self) -> str:
        """Id of the public half."""
        return self.public.keyid

    def sign(self, data: bytes) -> bytes:
        """DER signature over `data` (ECDSA, SHA-256)."""
        return self._key.sign(data, ec.ECDSA(hashes.SHA256()))


def make_key(name: str) -> PrivateKey:
    """A fresh key, in memory alone."""
    return _private(name, ec.generate_private_key(ec.SECP256R1()))


def read_public(pem: str | bytes) -> PublicKey:
    """A public key from its PEM.

    Raises:
        ValueError: not PEM, too long, or not a P-256 key.
    """
    raw = pem.encode() if isinstance(pem, str) else pem
    if len(raw) > MAX_KEY_BYTES:
        raise ValueError(f"{len(raw)} bytes are too many for a public key")
    try:
        key = load_pem_public_key(raw)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("not a public key in PEM") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != _P256:
        raise ValueError("not a P-256 public key")
    return _public(key)


def save_key(folder: Path, key: PrivateKey) -> Path:
    """Write a private key to `<folder>/<name>.pem`, readable by its owner alone; an existing file is never overwritten.

    Raises:
        OutputError: a key of that name is there already, or the folder cannot be written.
    """
    path = folder / f"{check_key_name(key.name)}.pem"
    pem = key._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # written under the final name at once: O_EXCL decides between two writers, and a torn file fails to load
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise OutputError(
            f"{path} is there already and is not overwritten: choose another name, or another folder"
        ) from None
    except OSError as err:
        raise OutputError(f"cannot write the key {path}: {err.strerror or err}") from None
    return path


def load_key(path: Path) -> PrivateKey:
    """Read a private key.

    Raises:
        KeyFileError: missing, a link, readable by others, too large, or not a P-256 private key.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            raw = file.read(MAX_KEY_BYTES + 1) if stat.S_ISREG(status.st_mode) else b""
    except FileNotFoundError:
        raise KeyFileError(f"no key at {path}: `cryfed keys init` makes the keys of a fleet") from None
    except OSError as err:
        raise KeyFileError(f"cannot read the key {path}: {err.strerror or err}") from None
    if status.st_mode & 0o077 or status.st_uid != os.geteuid():
        raise KeyFileError(
            f"{path} can be read by others than you (mode {stat.S_IMODE(status.st_mode):o}), so anybody may have "
            f"signed with it: retire that key, or `chmod 600 {path}` if you know better"
        )
    try:
        key = load_pem_private_key(raw, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != _P256:
        raise KeyFileError(
            f"{path} holds no P-256 private key in PEM without a passphrase: name another file"
        )
    return _private(path.stem, key)


def load_keys(folder: Path) -> Mapping[str, PrivateKey]:
    """All private keys of a folder, by id; empty where there is no such folder.

    Raises:
        KeyFileError: one of them cannot be used.
    """
    keys = [load_key(path) for path in sorted(folder.glob("*.pem"))] if folder.is_dir() else []
    return {key.keyid: key for key in keys}


def check_key_name(name: str) -> str:
    """`name` itself, once it is known to be one plain path component.

    Raises:
        KeyFileError: it is not.
    """
    if not _NAME.fullmatch(name):
        raise KeyFileError(f"{name!r} is no name for a key (lower-case letters, digits, '.', '_', '-')")
    return name


def _private(name: str, key: ec.EllipticCurvePrivateKey) -> PrivateKey:
    return PrivateKey(name, _public(key.public_key()), key)


def _public(key: ec.EllipticCurvePublicKey) -> PublicKey:
    form = PublicFormat.SubjectPublicKeyInfo
    return PublicKey(
        digest_bytes(key.public_bytes(Encoding.DER, form)), key.public_bytes(Encoding.PEM, form).decode(), key
    )
