"""Announced data, for the flow that watches for it: what waits, whether it is still what was announced, what became of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import task

from infra.store import incoming
from models.errors import ManifestError
from tasks.runtime import runtime


@task(name="next announcements", retries=2, retry_delay_seconds=2, persist_result=False)
def next_announcements() -> list[dict[str, str]]:
    """What waits for the gate: name, digest and manifest path, or the fault of what is no announcement."""
    return [
        {"name": a.name, "digest": a.digest, "manifest": str(a.manifest), "fault": a.fault}
        for a in incoming.waiting(runtime().store)
    ]


@task(name="record outcome", retries=2, retry_delay_seconds=2, persist_result=False)
def record_outcome(name: str, outcome: dict[str, Any]) -> bool:
    """End an announcement; False where another watcher was first."""
    return incoming.record_outcome(runtime().store, name, outcome)


@task(name="identify", persist_result=False)
def identify(manifest: str) -> str:
    """Digest of a manifest's rows.

    Raises:
        ManifestError: the manifest cannot be used.
    """
    from infra.data.manifest import load_manifest  # a look that finds nothing new should cost little

    return load_manifest(Path(manifest), limits=runtime().settings.limits).digest


@task(name="require unchanged", persist_result=False)
def require_unchanged(manifest: str, digest: str) -> None:
    """Hold a manifest against its announcement.

    Raises:
        ManifestError: it cannot be used, or its rows are others by now.
    """
    if identify.fn(manifest) != digest:
        raise ManifestError(f"{manifest} was changed after it was announced: announce it again")
