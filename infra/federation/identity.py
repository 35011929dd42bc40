"""A site's long-term identity: an Ed25519 key in its own folder, made once, never sent.

site folder/identity.key      64 hex digits, readable by its owner alone
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from models.errors import FederationError, OutputError

_FILE: Final = "identity.key"


def load_identity(folder: Path) -> Ed25519PrivateKey:
    """The identity in a site's folder, made where there is none.

    Raises:
        FederationError: the file is damaged.
        OutputError: the folder cannot be written.
    """
    path = folder / _FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _make(path)
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text().strip()))
    except OSError as err:
        raise OutputError(f"cannot make the site's identity {path}: {err.strerror}") from None
    except ValueError:
        raise FederationError(
            f"{path} is not an identity key: restore it, or delete it and have the new one pinned by all other sites"
        ) from None


def verification_key(identity: Ed25519PrivateKey) -> bytes:
    """The public half, 32 bytes: what other sites pin."""
    return identity.public_key().public_bytes_raw()


def _make(path: Path) -> None:
    # written beside and linked: of two processes that make one at the same time, the first one's counts
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(Ed25519PrivateKey.generate().private_bytes_raw().hex() + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
