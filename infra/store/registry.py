"""Releases: immutable versions below, one atomic pointer per channel on top.

    blobs/sha256/<digest>       files
    manifests/<digest>.json     what a release is: files → digests, model, data, calibration, provenance
    versions/<name>/<n>         manifest digest and the release's `info` (run id, times); created once (If-None-Match)
    channels/<channel>          manifest digest and a serial number; moved by compare-and-swap (If-Match)

- A release's identity is the digest of its manifest without `info` (`IDENTITY_EXCLUDES`), so the same inputs published
  twice are one version.
- Everything a name points to is written before the name: a killed publish leaves blobs that nothing refers to, no more.
- The serial number makes every state of a channel distinct: moving it away and back is not mistaken for standing still.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from infra.digest import canonical_json, digest_json
from infra.store.client import ObjectStore
from infra.store.content import S3Content, blob_key, check_digest, check_name, parse_document
from models.errors import ConflictError, IntegrityError, OutputError, StoreError

IDENTITY_EXCLUDES = frozenset({"info", "signature"})
MANIFEST_FILE = "manifest.json"
RELEASE_FILE = "release.json"
MAX_FILES = 1024


@dataclass(frozen=True)
class Release:
    """One version of a name."""

    name: str
    version: int
    manifest_digest: str
    created: bool = False  # by this very publish
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Channel:
    """Where a channel points."""

    name: str
    manifest_digest: str
    serial: int


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """A release's identity: SHA-256 of the manifest's canonical JSON without `IDENTITY_EXCLUDES`."""
    return digest_json({k: v for k, v in manifest.items() if k not in IDENTITY_EXCLUDES})


def publish(content: S3Content, manifest: Mapping[str, Any], name: str) -> Release:
    """Make a manifest the next version of `name`, or return the version that it is already.

    `manifest["files"]` maps each file's relative name to `{"sha256": …}`; the blobs have to be in the store
    (`S3Content.put_file`). Of several publishers of the same manifest exactly one gets `created=True`.

    Raises:
        StoreError: a blob is missing, the manifest is malformed, or the store refuses or ignores conditional writes.
    """
    store = content.store
    check_name("release", name)
    store.require_conditional_writes()
    for relative, digest in _files(manifest, "the manifest").items():
        if store.stat(blob_key(digest)) is None:
            raise StoreError(
                f"cannot publish {name}: {relative} (blob {digest}) is not in the store; put it first"
            )
    core = {k: v for k, v in manifest.items() if k not in IDENTITY_EXCLUDES}
    digest = digest_json(core)
    extra = {k: v for k, v in manifest.items() if k in IDENTITY_EXCLUDES}

    versions = _version_numbers(store, name)
    for number in reversed(versions):
        release = _read_version(store, name, number)
        if release.manifest_digest == digest:
            return release
    store.put_if_absent(_manifest_key(digest), canonical_json(core))
    number = versions[-1] + 1 if versions else 1
    while True:
        document = {"manifest": digest, "name": name, "version": number, **extra}
        if store.put_if_absent(_version_key(name, number), canonical_json(document)):
            return Release(name, number, digest, created=True, info=dict(extra.get("info", {})))
        # another publisher took the number: either with this very manifest, or we go on to the next
        taken = _read_version(store, name, number)
        if taken.manifest_digest == digest:
            return taken
        number += 1


def releases(store: ObjectStore, name: str | None = None) -> list[Release]:
    """All versions of a name (of every name without one), by name and ascending number.

    Raises:
        StoreError: the store is out of reach, or a version is damaged.
    """
    prefix = "versions/" if name is None else f"versions/{check_name('release', name)}/"
    found = sorted(_parse_version_key(item.key) for item in store.list(prefix))
    return [_read_version(store, *key) for key in found]


def channels(store: ObjectStore) -> list[Channel]:
    """All channels, by name."""
    names = sorted(item.key.removeprefix("channels/") for item in store.list("channels/"))
    return [channel for channel in (get_channel(store, name) for name in names) if channel is not None]


def get_channel(store: ObjectStore, name: str) -> Channel | None:
    """Where a channel points, None where there is none yet."""
    found = store.find(_channel_key(name))
    return None if found is None else _parse_channel(name, found.data)


def move_channel(store: ObjectStore, name: str, digest: str, *, expect: str | None) -> Channel:
    """Point a channel at a manifest, provided that it still points at `expect` (None: provided that it is new).

    Raises:
        ConflictError: it points elsewhere, or another writer moved it meanwhile.
        StoreError: no such manifest.
    """
    if store.stat(_manifest_key(digest)) is None:
        raise StoreError(f"channel {name} cannot point at {digest}: no such manifest in the store")
    found = store.find(_channel_key(name))
    current = None if found is None else _parse_channel(name, found.data)
    if (None if current is None else current.manifest_digest) != expect:
        raise ConflictError(
            f"channel {name} points at {current.manifest_digest if current else 'nothing'}, not at "
            f"{expect or 'nothing'}: look at what it points at and decide again"
        )
    moved = Channel(name, digest, current.serial + 1 if current else 1)
    data = canonical_json({"manifest": digest, "serial": moved.serial})
    if found is not None:
        store.replace_if_match(_channel_key(name), data, found.etag)
    elif not store.put_if_absent(_channel_key(name), data):
        raise ConflictError(
            f"channel {name} was created by another writer just now; look at it and decide again"
        )
    return moved


def get_manifest(store: ObjectStore, digest: str) -> dict[str, Any]:
    """A manifest, without what its identity excludes, checked against its digest.

    Raises:
        StoreError: no such manifest.
        IntegrityError: it was altered.
    """
    key = _manifest_key(digest)
    manifest = parse_document(store.get(key), key)
    if digest_json(manifest) != digest:
        raise IntegrityError(
            f"{key} at {store.endpoint} does not match its digest: it was altered; do not use it"
        )
    return manifest


def resolve(store: ObjectStore, reference: str) -> Release:
    """The release that a reference names: `NAME` (its latest), `NAME@3`, `channel:NAME`, or a manifest digest.

    Raises:
        StoreError: nothing goes by it.
    """
    if reference.startswith("channel:"):
        channel = get_channel(store, reference.removeprefix("channel:"))
        if channel is None:
            raise StoreError(f"no {reference} in the store; `cryfed store list` shows what is there")
        return _by_digest(store, channel.manifest_digest)
    name, _, number = reference.partition("@")
    if number:
        if not number.isdecimal():
            raise StoreError(
                f"{reference!r} is no release: write NAME, NAME@3, channel:NAME or a manifest digest"
            )
        return _read_version(store, check_name("release", name), int(number))
    if len(name) == 64 and not _version_numbers(store, name):
        return _by_digest(store, check_digest(name))
    versions = _version_numbers(store, check_name("release", name))
    if not versions:
        raise StoreError(f"no release {name!r} in the store; `cryfed store list` shows what is there")
    return _read_version(store, name, versions[-1])


def pull(content: S3Content, release: Release, folder: Path) -> Path:
    """Copy a release's files into `folder` beside `manifest.json` and `release.json`; an earlier folder is replaced.

    Every file is verified against the manifest, and the manifest against its digest, before `folder` is touched.

    Raises:
        IntegrityError: a file or the manifest was altered.
        StoreError: a file is missing or leads out of the folder.
        OutputError: `folder` cannot be written, or holds something that is not a release.
    """
    manifest = get_manifest(content.store, release.manifest_digest)
    files = _files(manifest, f"manifest {release.manifest_digest}")
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - a link given as the folder is replaced, not followed
    if folder.exists() and (
        not folder.is_dir() or (any(folder.iterdir()) and not (folder / RELEASE_FILE).is_file())
    ):
        raise OutputError(f"{folder} is not empty and holds no pulled release: choose another folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as err:
        raise OutputError(f"cannot write beside {folder}: {err.strerror or err}") from None
    try:
        fresh = staging / "new"
        for relative, digest in files.items():
            target = fresh / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(content.fetch(digest), target)
        _write_json(
            fresh / MANIFEST_FILE, {**manifest, **({"info": dict(release.info)} if release.info else {})}
        )
        identity = {"name": release.name, "version": release.version, "manifest": release.manifest_digest}
        _write_json(fresh / RELEASE_FILE, identity)
        _swap(fresh, folder, staging / "old")
    except OSError as err:
        raise OutputError(f"cannot write {folder}: {err.strerror or err}") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def _swap(fresh: Path, folder: Path, old: Path) -> None:
    if folder.exists() or folder.is_symlink():
        folder.rename(old)
    try:
        fresh.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def _files(manifest: Mapping[str, Any], where: str) -> dict[str, str]:
    """Relative name → digest, every name confined to the release's folder."""
    files = manifest.get("files")
    if not isinstance(files, Mapping) or len(files) > MAX_FILES:
        raise StoreError(f"{where} has no usable `files`: it maps up to {MAX_FILES} names to their digests")
    checked: dict[str, str] = {}
    for name, entry in files.items():
        digest = entry.get("sha256") if isinstance(entry, Mapping) else entry
        pure = PurePosixPath(str(name))
        if pure.is_absolute() or ".." in pure.parts or str(pure) != name or "\\" in name or "\0" in name:
            raise StoreError(f"{where} names a file that leads out of its folder: {name!r}")
        if name in (MANIFEST_FILE, RELEASE_FILE):
            raise StoreError(f"{where} names {name} as one of its files; that name is taken")
        checked[name] = check_digest(str(digest))
    return checked


def _by_digest(store: ObjectStore, digest: str) -> Release:
    for release in reversed(releases(store)):
        if release.manifest_digest == digest:
            return release
    raise StoreError(f"no release has the manifest {digest}; `cryfed store list` shows what is there")


def _version_numbers(store: ObjectStore, name: str) -> list[int]:
    return sorted(_parse_version_key(item.key)[1] for item in _version_items(store, name))


def _version_items(store: ObjectStore, name: str) -> Iterator[Any]:
    return store.list(f"versions/{check_name('release', name)}/")


def _parse_version_key(key: str) -> tuple[str, int]:
    try:
        _, name, number = key.split("/")
        return name, int(number)
    except ValueError:
        raise StoreError(f"{key} is not a version: something else wrote into this bucket") from None


def _read_version(store: ObjectStore, name: str, number: int) -> Release:
    key = _version_key(name, number)
    found = store.find(key)
    if found is None:
        raise StoreError(f"no release {name}@{number} in the store; `cryfed store list` shows what is there")
    document = parse_document(found.data, key)
    info = document.get("info", {})
    return Release(
        name, number, check_digest(str(document.get("manifest"))), info=info if isinstance(info, dict) else {}
    )


def _parse_channel(name: str, data: bytes) -> Channel:
    document = parse_document(data, _channel_key(name))
    serial = document.get("serial")
    if not isinstance(serial, int):
        raise StoreError(f"{_channel_key(name)} has no serial number: it was altered")
    return Channel(name, check_digest(str(document.get("manifest"))), serial)


def _manifest_key(digest: str) -> str:
    return f"manifests/{check_digest(digest)}.json"


def _version_key(name: str, number: int) -> str:
    return f"versions/{name}/{number}"


def _channel_key(name: str) -> str:
    return f"channels/{check_name('channel', name)}"
