"""From a release in the store to a channel that points at it: found, pulled whole, held to its evidence, promoted."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact

from infra.edge.acceptance import require_acceptable
from infra.edge.bundle import load_bundle
from infra.store import promotion, registry
from infra.store.content import S3Content
from infra.store.registry import Release
from models.errors import IntegrityError
from tasks.runtime import runtime

Json = dict[str, Any]


@task(name="find release", retries=2, retry_delay_seconds=2, persist_result=False)
def find_release(name: str, reference: str | None, channel: str) -> Json:
    """Name, version and manifest digest of what a reference means."""
    release = promotion.find(runtime().store, name, reference, channel)
    return {"name": release.name, "version": release.version, "digest": release.manifest_digest}


@task(name="verify release", retries=1, retry_delay_seconds=2, timeout_seconds=1800, persist_result=False)
def verify_release(release: Json) -> Json:
    """Pull a release as a device would, every digest verified, and hold its heads against its evidence.

    Raises:
        IntegrityError: a file or the manifest was altered.
        BundleError, ExportError: it is whole, but not fit to be released.
    """
    rt = runtime()
    rt.scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="deploy-", dir=rt.scratch) as folder:
        # an empty cache: what counts is what the store hands out, not what this machine remembers
        content = S3Content(rt.store, Path(folder) / "cache")
        bundle = load_bundle(registry.pull(content, _release(release), Path(folder) / "release"))
        if bundle.digest != release["digest"]:
            raise IntegrityError(
                f"{release['name']}@{release['version']}: its manifest is filed under {release['digest']} but describes "
                f"{bundle.digest}; do not use it"
            )
        return require_acceptable(bundle)


@task(name="move channel", retries=0, persist_result=False)
def move_channel(release: Json, channel: str, expect: str | None, facts: Json) -> Json:
    """Point the channel at the release by compare-and-swap, and show what was done.

    Raises:
        ConflictError: the channel points elsewhere than expected, or was moved meanwhile.
        StoreError: prod, and the release is not on staging.
    """
    move = promotion.promote(runtime().store, _release(release), channel, expect=expect)
    create_markdown_artifact(_describe(release, move, facts), key="deploy")
    return {**release, "channel": move.channel, "previous": move.previous, "moved": move.moved}


def _release(release: Json) -> Release:
    return Release(release["name"], release["version"], release["digest"])


def _describe(release: Json, move: promotion.Move, facts: Json) -> str:
    auroc = (facts["headline"].get("gate_auroc") or {}).get("value")
    lines = [
        f"**{release['name']}** version {release['version']} on channel `{move.channel}`"
        f"{'' if move.moved else ', where it was already'}",
        f"digest `{release['digest']}`, before: `{move.previous or promotion.NOTHING}`",
        f"heads: {', '.join(facts['heads'])}; trained on {'SYNTHETIC' if facts['synthetic'] else 'real'} recordings",
        f"gate AUROC {auroc:.3f}" if auroc is not None else "gate AUROC unknown",
        *facts["notes"],
    ]
    return "\n".join(f"- {line}" for line in lines)
