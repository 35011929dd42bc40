"""Content-addressed artifacts: files under the digest of their bytes, records that say what a stage made.

    blobs/sha256/<digest>          a file's bytes; immutable, so its presence is enough to skip an upload
    stages/<stage>/<key>.json      a stage's record, written last: its existence means that the stage is complete

Two homes with one interface: `S3Content` for what may be shared, `DirectoryContent` for what must not leave a site.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from infra.digest import canonical_json, digest_file
from infra.store.client import MAX_BLOB_BYTES, MAX_DOCUMENT_BYTES, ObjectStore
from models.errors import IntegrityError, OutputError, StoreError

_CHUNK = 1 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,127}")


class ContentStore(Protocol):
    """Where stages file what they made."""

    def put_file(self, path: Path) -> str:
        """File a copy of `path` under its SHA-256 and return that; nothing is written where it is there already."""
        ...

    def fetch(self, digest: str) -> Path:
        """A local, verified copy of a blob, to be treated as read-only.

        Raises:
            IntegrityError: the bytes there do not match the digest.
            StoreError: no such blob.
        """
        ...

    def get_record(self, stage: str, key: str) -> dict[str, Any] | None:
        """A completed stage's record, None where there is none."""
        ...

    def put_record(self, stage: str, key: str, record: dict[str, Any]) -> None:
        """File a stage's record, after everything that it names."""
        ...


class DirectoryContent:
    """A folder of one machine, with the layout of the object store."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put_file(self, path: Path) -> str:
        """See `ContentStore`. A blob that is there is compared, and put right where it was damaged."""
        with _writing(self.root):
            blobs = self.root / "blobs" / "sha256"
            blobs.mkdir(parents=True, exist_ok=True)
            with _hashed_copy(path, blobs) as (temporary, digest):
                target = blobs / digest
                if not target.is_file() or digest_file(target) != digest:
                    temporary.replace(target)
            return digest

    def fetch(self, digest: str) -> Path:
        """See `ContentStore`."""
        path = self.root / "blobs" / "sha256" / check_digest(digest)
        if not path.is_file():
            raise StoreError(f"no blob {digest} in {self.root}: run the stage that makes it again")
        if digest_file(path) != digest:
            raise IntegrityError(f"{path} does not hold the bytes of its name: delete it and run again")
        return path

    def get_record(self, stage: str, key: str) -> dict[str, Any] | None:
        """See `ContentStore`."""
        path = self.root / _record_key(stage, key)
        try:
            return parse_document(path.read_bytes(), str(path))
        except FileNotFoundError:
            return None

    def put_record(self, stage: str, key: str, record: dict[str, Any]) -> None:
        """See `ContentStore`."""
        path = self.root / _record_key(stage, key)
        with _writing(self.root):
            path.parent.mkdir(parents=True, exist_ok=True)
            with _temporary(path.parent) as (temporary, file):
                file.write(canonical_json(record))
                file.close()
                temporary.replace(path)


class S3Content:
    """An object store with a local cache of blobs, so that what this machine made or read is not fetched again."""

    def __init__(self, store: ObjectStore, cache_dir: Path) -> None:
        self.store = store
        self._cache = DirectoryContent(cache_dir)

    def put_file(self, path: Path) -> str:
        """See `ContentStore`. What is uploaded is the cached copy: `path` may change meanwhile without harm."""
        digest = self._cache.put_file(path)
        cached = self._cache.fetch(digest)
        present = self.store.stat(blob_key(digest))
        if present is None or present.size != cached.stat().st_size:
            self.store.put_file(blob_key(digest), cached)
        return digest

    def fetch(self, digest: str) -> Path:
        """See `ContentStore`. A damaged cached copy is fetched again; a damaged blob is an error."""
        with contextlib.suppress(StoreError):
            return self._cache.fetch(digest)
        blobs = self._cache.root / "blobs" / "sha256"
        with _writing(self._cache.root):
            blobs.mkdir(parents=True, exist_ok=True)
            with _temporary(blobs) as (temporary, _):
                self.store.download(blob_key(digest), temporary, max_bytes=MAX_BLOB_BYTES)
                if digest_file(temporary) != digest:
                    raise IntegrityError(
                        f"blob {digest} at {self.store.endpoint} does not hold the bytes of its name: it was altered "
                        "or damaged; delete the object and publish or run again"
                    )
                temporary.replace(blobs / digest)
        return blobs / digest

    def get_record(self, stage: str, key: str) -> dict[str, Any] | None:
        """See `ContentStore`."""
        name = _record_key(stage, key)
        found = self.store.find(name, max_bytes=MAX_DOCUMENT_BYTES)
        return None if found is None else parse_document(found.data, name)

    def put_record(self, stage: str, key: str, record: dict[str, Any]) -> None:
        """See `ContentStore`."""
        self.store.put(_record_key(stage, key), canonical_json(record))


def blob_key(digest: str) -> str:
    """Where a blob lies in the object store."""
    return f"blobs/sha256/{check_digest(digest)}"


def check_digest(digest: str) -> str:
    """`digest` itself, once it is known to be one and can take part in a path.

    Raises:
        StoreError: it is not 64 lower-case hexadecimal digits.
    """
    if not _DIGEST.fullmatch(digest):
        raise StoreError(f"{digest!r} is not a SHA-256 digest (64 lower-case hexadecimal digits)")
    return digest


def check_name(kind: str, name: str) -> str:
    """`name` itself, once it is known to be one plain path component.

    Raises:
        StoreError: it is not.
    """
    if not _NAME.fullmatch(name):
        raise StoreError(f"{kind} {name!r} is not a plain name (letters, digits, '.', '_', '-')")
    return name


def parse_document(data: bytes, where: str) -> dict[str, Any]:
    """A stored JSON object.

    Raises:
        StoreError: not JSON, or not an object.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):  # the latter from nesting without end
        document = None
    if not isinstance(document, dict):
        raise StoreError(f"{where} is not a JSON object: it was altered or damaged; delete it and run again")
    return document


def _record_key(stage: str, key: str) -> str:
    return f"stages/{check_name('stage', stage)}/{check_name('stage key', key)}.json"


@contextlib.contextmanager
def _writing(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        raise OutputError(f"cannot write below {root}: {err.strerror or err} ({err.filename})") from None


@contextlib.contextmanager
def _temporary(folder: Path) -> Iterator[tuple[Path, Any]]:
    """A file beside its final place, gone again unless it was moved there."""
    descriptor, name = tempfile.mkstemp(prefix=".part-", dir=folder)
    path = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield path, file
    finally:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _hashed_copy(source: Path, folder: Path) -> Iterator[tuple[Path, str]]:
    """A temporary copy and the digest of exactly the bytes in it, even if `source` changes meanwhile."""
    sha = hashlib.sha256()
    with _temporary(folder) as (path, target):
        with source.open("rb") as file:
            while chunk := file.read(_CHUNK):
                sha.update(chunk)
                target.write(chunk)
        target.close()
        yield path, sha.hexdigest()
