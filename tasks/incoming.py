"""New data, announced: a watched prefix of the store stands in for the bucket notifications that not every S3 server has.

    incoming/<manifest digest>.json     {"manifest": path}: written by `cryfed data announce`
    gated/<manifest digest>.json        what the gate said of it; its existence ends the announcement

The announcement names a manifest; the audio stays where it is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import task

from infra.data.manifest import load_manifest
from infra.digest import canonical_json
from infra.store.client import ObjectStore
from models.errors import ConflictError, StoreError
from tasks.runtime import runtime

INCOMING, GATED = "incoming/", "gated/"
_MAX_BYTES = 64 * 1024


@dataclass(frozen=True)
class Announcement:
    """A manifest that waits for the gate."""

    digest: str
    manifest: Path


def announce(store: ObjectStore, manifest: Path, digest: str) -> bool:
    """File an announcement; False where this very manifest was announced before."""
    document = canonical_json({"manifest": str(manifest.resolve())})
    return store.put_if_absent(f"{INCOMING}{digest}.json", document)


def waiting(store: ObjectStore) -> list[Announcement]:
    """Announcements without an outcome, in order of their digests."""
    done = {item.key.removeprefix(GATED) for item in store.list(GATED)}
    found = []
    for item in store.list(INCOMING):
        name = item.key.removeprefix(INCOMING)
        if name in done:
            continue
        try:
            path = Path(json.loads(store.get(item.key, max_bytes=_MAX_BYTES))["manifest"])
        except (ValueError, KeyError, TypeError):
            raise StoreError(
                f"{item.key} is not an announcement: delete it, then `cryfed data announce` anew"
            ) from None
        found.append(Announcement(name.removesuffix(".json"), path))
    return found


@task(name="next announcements", retries=2, retry_delay_seconds=2, persist_result=False)
def next_announcements() -> list[dict[str, str]]:
    """What waits for the gate: digest and manifest path."""
    return [{"digest": a.digest, "manifest": str(a.manifest)} for a in waiting(runtime().store)]


@task(name="record outcome", retries=2, retry_delay_seconds=2, persist_result=False)
def record_outcome(digest: str, outcome: dict[str, Any]) -> None:
    """End an announcement.

    Raises:
        ConflictError: another watcher recorded an outcome first.
    """
    if not runtime().store.put_if_absent(f"{GATED}{digest}.json", canonical_json(outcome)):
        raise ConflictError(
            f"the announcement {digest[:12]}… was gated by another watcher meanwhile: nothing to do"
        )


@task(name="identify", persist_result=False)
def identify(manifest: str) -> str:
    """Digest of a manifest's rows.

    Raises:
        ManifestError: the manifest cannot be used.
    """
    return load_manifest(Path(manifest), limits=runtime().settings.limits).digest
