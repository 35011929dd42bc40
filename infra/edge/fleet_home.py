"""An operator's folder for a fleet: private keys, and every root that was ever accepted.

    <folder>/<name>.pem        a private key, readable by its owner alone (`infra.edge.trust.keys`)
    <folder>/<name>.pub        its public half, to be handed to others
    <folder>/roots/<n>.json    roots accepted so far: trust begins here, not in the store
    <folder>/drafts/root-<n>.json    a root that waits for others' signatures

The roots are kept so that a store that is set back, or swapped for another, is noticed; the first of them came from `cryfed keys
init`, or from whoever ran it.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

from infra.edge.fleet_documents import FleetDocuments
from infra.edge.trust.documents import RootDocument, parse
from infra.edge.trust.envelope import MAX_ENVELOPE_BYTES, Envelope
from infra.edge.trust.keys import (
    MAX_KEY_BYTES,
    PrivateKey,
    PublicKey,
    check_key_name,
    load_keys,
    make_key,
    read_public,
    save_key,
)
from infra.edge.trust.trusted import TrustedRoot
from models.errors import ConfigError, KeyFileError, OutputError

_ROOT_FILE: Final = re.compile(r"([1-9][0-9]{0,8})\.json")


class FleetHome:
    """Keys and roots of one fleet on one person's machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.roots = folder / "roots"

    def keys(self) -> Mapping[str, PrivateKey]:
        """Private keys here, by id.

        Raises:
            KeyFileError: one of them cannot be used, or may be known to others.
        """
        return load_keys(self.folder)

    def key(self, name: str) -> PrivateKey:
        """The private key of that name.

        Raises:
            KeyFileError: there is none.
        """
        for key in self.keys().values():
            if key.name == name:
                return key
        there = ", ".join(sorted(k.name for k in self.keys().values())) or "none"
        raise KeyFileError(f"no key {name!r} in {self.folder} (there: {there})")

    def make_key(self, name: str) -> PrivateKey:
        """Make a key and write both halves; an existing one is never overwritten.

        Raises:
            OutputError: there is a key of that name, or the folder cannot be written.
        """
        key = make_key(name)
        save_key(self.folder, key)
        _write(self.folder / f"{name}.pub", key.public.pem.encode())
        return key

    def own_key(self, name: str) -> PrivateKey:
        """The key of that name, made where there is none: what was interrupted can be asked again."""
        if not (self.folder / f"{check_key_name(name)}.pem").exists():
            return self.make_key(name)
        key = self.key(name)
        _write(self.folder / f"{name}.pub", key.public.pem.encode())
        return key

    def trust(self, documents: FleetDocuments, *, now: datetime) -> TrustedRoot:
        """All roots kept here and then those that the store has beyond them, which are kept from now on.

        Raises:
            ConfigError: no root of this fleet was ever accepted here.
            TrustError: a root is not signed as it has to be.
        """
        versions = self.versions()
        if not versions:
            raise ConfigError(
                f"no root of {documents.fleet} in {self.roots}: `cryfed keys init` makes a fleet; of one that others made, "
                "take the root from them, not from the store, and put it there as 1.json"
            )
        trust = TrustedRoot(_read(self._root(versions[0])), documents.fleet, now=now)
        for version in versions[1:]:
            trust.update_root(_read(self._root(version)))
        while (data := documents.root(trust.root.version + 1)) is not None:
            trust.update_root(data)
            self.remember(trust.root.version, data)
        return trust

    def versions(self) -> list[int]:
        """Versions of the roots kept here, ascending."""
        names = [p.name for p in self.roots.iterdir()] if self.roots.is_dir() else []
        return sorted(int(m[1]) for name in names if (m := _ROOT_FILE.fullmatch(name)))

    def remember(self, version: int, data: bytes) -> None:
        """Keep an accepted root."""
        _write(self._root(version), data)

    def draft(self, version: int) -> Path:
        """Where a root waits for signatures."""
        return self.folder / "drafts" / f"root-{version}.json"

    def save_draft(self, envelope: Envelope, version: int) -> Path:
        """Write a draft, to be handed to the next who signs."""
        path = self.draft(version)
        _write(path, envelope.to_bytes())
        return path

    def _root(self, version: int) -> Path:
        return self.roots / f"{version}.json"


def read_draft(path: Path) -> tuple[Envelope, RootDocument]:
    """A root that waits for signatures, as others handed it on; signing it is what makes it worth anything.

    Raises:
        ConfigError: there is no such file.
        TrustError: it is no root.
    """
    envelope = Envelope.parse(_read(path), str(path))
    return envelope, parse(RootDocument, envelope.payload, str(path))


def read_public_file(path: Path) -> PublicKey:
    """Another's public key.

    Raises:
        ConfigError: the file is missing or holds no P-256 public key.
    """
    try:
        return read_public(_read(path, MAX_KEY_BYTES))
    except ValueError as err:
        raise ConfigError(f"{path}: {err}; `cryfed keys make` writes one as NAME.pub") from None


def _read(path: Path, limit: int = MAX_ENVELOPE_BYTES) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as err:
        raise ConfigError(f"cannot read {path}: {err.strerror or err}") from None


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                Path(name).unlink()
    except OSError as err:
        raise OutputError(f"cannot write {path}: {err.strerror or err}") from None
