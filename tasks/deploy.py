"""From a release in the store to a channel that points at it: found, pulled whole, held to its evidence, compared with what is
there, promoted."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact

from infra.data.manifest import load_manifest
from infra.edge.acceptance import require_acceptable
from infra.edge.bundle import Bundle, load_bundle
from infra.edge.challenge import compare
from infra.settings import home
from infra.store import promotion, registry
from infra.store.content import S3Content
from infra.store.registry import Release
from models.errors import ChallengerRefused, IntegrityError
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
        return require_acceptable(_pull(_release(release), Path(folder)))


@task(name="challenge", retries=0, timeout_seconds=7200, persist_result=False)
def challenge(release: Json, channel: str, clips: Path | None, margin: float, expect: str | None) -> Json:
    """Compare a release with the one that the channel points at, on the same clips.

    Returns:
        `champion`: the digest to move the channel from, or `nothing`; `why`: what came of it; and the comparison's numbers.

    Raises:
        ChallengerRefused: it is, or may be, worse by more than the margin.
        ConflictError: the channel points elsewhere than expected.
        ManifestError, DataError: the clips cannot be used.
    """
    rt = runtime()
    present = promotion.champion(rt.store, _release(release), channel, expect=expect)
    if present is None:
        return {"champion": promotion.NOTHING, "why": "not compared: the channel points at nothing yet"}
    if present.manifest_digest == release["digest"]:
        return {"champion": present.manifest_digest, "why": "not compared: the channel points at it already"}
    if clips is None:
        return {"champion": present.manifest_digest, "why": "not compared: no manifest of clips was named"}
    manifest = load_manifest(home() / clips, limits=rt.settings.limits)
    rt.scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="deploy-", dir=rt.scratch) as folder:
        result = compare(
            _pull(present, Path(folder) / "champion"),
            _pull(_release(release), Path(folder) / "challenger"),
            manifest,
            margin=margin,
            limits=rt.settings.limits,
        )
    create_markdown_artifact(_describe_challenge(release, present, result), key="challenge")
    if not result["accepted"]:
        raise ChallengerRefused(
            f"{release['name']}@{release['version']} does not replace version {present.version} on "
            f"{promotion.channel_name(release['name'], channel)}: {result['why']}, on {result['clips']} clips; train a better "
            "one, or name more clips"
        )
    return result


@task(name="check channel", retries=1, retry_delay_seconds=2, persist_result=False)
def check_channel(release: Json, channel: str, expect: str | None) -> None:
    """Whether the channel could be moved now: before any device is asked, not after all have been.

    Raises:
        ConflictError: the channel points elsewhere than expected.
        StoreError: prod, and the release is not on staging.
    """
    promotion.check(runtime().store, _release(release), channel, expect=expect)


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


def _pull(release: Release, folder: Path) -> Bundle:
    """A release as the store hands it out, whatever this machine remembers of it: the cache is empty."""
    content = S3Content(runtime().store, folder / "cache")
    bundle = load_bundle(registry.pull(content, release, folder / "release"))
    if bundle.digest != release.manifest_digest:
        raise IntegrityError(
            f"{release.name}@{release.version}: its manifest is filed under {release.manifest_digest} but describes "
            f"{bundle.digest}; do not use it"
        )
    return bundle


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
        *([f"champion and challenger: {facts['challenge']}"] if facts.get("challenge") else []),
    ]
    return "\n".join(f"- {line}" for line in lines)


def _describe_challenge(release: Json, present: Release, result: Json) -> str:
    lines = [
        f"**{release['name']}** version {release['version']} against version {present.version}: "
        f"{'accepted' if result['accepted'] else 'REFUSED'}, {result['why']}",
        f"{result['clips']} clips of manifest `{result['manifest']}` that neither has learned from; margin {result['margin']:g}",
        *(
            f"{name}, difference: {value['value']:+.3f} ({value['low']:+.3f} to {value['high']:+.3f})"
            for name in ("gate_auroc", "macro_f1")
            if (value := result[name]) is not None and value["low"] is not None
        ),
    ]
    return "\n".join(f"- {line}" for line in lines)
