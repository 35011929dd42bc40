"""New data, announced: a watched prefix of the store stands in for the bucket notifications that not every S3 server has.

    incoming/<manifest digest>.json     {"manifest": path}: written by `cryfed data announce`
    gated/<manifest digest>.json        what the gate said of it; its existence ends the announcement

The announcement names a manifest; the audio stays where it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.digest import canonical_json
from infra.store.client import ObjectStore
from infra.store.content import check_digest, parse_document
from models.errors import StoreError

INCOMING, GATED = "incoming/", "gated/"
MAX_ANNOUNCEMENT_BYTES = 64 * 1024


@dataclass(frozen=True)
class Announcement:
    """What lies below `incoming/` and waits for the gate."""

    name: str  # <manifest digest>.json
    digest: str = ""
    manifest: Path = Path()
    fault: str = ""  # why it is no announcement; empty for a good one


def announce(store: ObjectStore, manifest: Path, digest: str) -> bool:
    """File an announcement; False where this very manifest was announced before."""
    document = canonical_json({"manifest": str(manifest.resolve())})
    return store.put_if_absent(f"{INCOMING}{check_digest(digest)}.json", document)


def waiting(store: ObjectStore) -> list[Announcement]:
    """Announcements without an outcome, in order of their names; a malformed one says what is wrong with it.

    Raises:
        StoreError: the store is out of reach or refuses.
    """
    done = {item.key.removeprefix(GATED) for item in store.list(GATED)}
    names = sorted(item.key.removeprefix(INCOMING) for item in store.list(INCOMING))
    return [_read(store, name) for name in names if name not in done]


def record_outcome(store: ObjectStore, name: str, outcome: dict[str, Any]) -> bool:
    """End an announcement; False where another watcher recorded an outcome first."""
    return store.put_if_absent(f"{GATED}{name}", canonical_json(outcome))


def find_outcome(store: ObjectStore, digest: str) -> dict[str, Any] | None:
    """What the gate said of an announced manifest, None while it waits."""
    key = f"{GATED}{check_digest(digest)}.json"
    found = store.find(key)
    return None if found is None else parse_document(found.data, key)


def _read(store: ObjectStore, name: str) -> Announcement:
    key = f"{INCOMING}{name}"
    info = store.stat(key)
    if info is None or info.size > MAX_ANNOUNCEMENT_BYTES:
        return Announcement(name, fault=f"{key} is larger than an announcement can be")
    data = store.get(key, max_bytes=MAX_ANNOUNCEMENT_BYTES)
    try:
        digest = check_digest(name.removesuffix(".json"))
        manifest = Path(str(parse_document(data, key)["manifest"]))
        if not manifest.is_absolute() or "\0" in str(manifest):
            raise StoreError(f"{key} names no absolute path")
    except (StoreError, KeyError) as err:
        return Announcement(name, fault=f"not an announcement ({err}): use `cryfed data announce`")
    return Announcement(name, digest, manifest)
