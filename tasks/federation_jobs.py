"""What the federated stages share: the sites with their frames, public noise, and a job run to its end with progress shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.federation.job import FederationJob, SiteSpec
from infra.federation.launch import run_federation
from infra.federation.results import FederationResult
from infra.stages import resolve
from tasks.features import FRAMES
from tasks.progress import StageProgress
from tasks.runtime import runtime
from tasks.sites import PUBLIC
from tasks.stage import Job


def frames_file(folder: str, uri: str) -> Path:
    """The file of a site's frames, where it lies at the site."""
    content = runtime().site_content(folder)
    return content.root / "blobs" / "sha256" / resolve(content, uri).files[FRAMES]


def site_specs(features: Mapping[str, str]) -> tuple[SiteSpec, ...]:
    """The sites of a job, by the URIs of their features."""
    rt = runtime()
    return tuple(
        SiteSpec(name=site, features=frames_file(site, uri), folder=rt.site_folder(site) / "federation")
        for site, uri in features.items()
        if site != PUBLIC
    )


def run_job(job: Job, **what: Any) -> FederationResult:
    """Run a federation over the stage's sites; it resumes from its journal after a kill. What comes out is filed.

    Args:
        job: the stage; `features` by site in its `local`, `negatives` among its parents.
        what: fields of `FederationJob` beside the sites, the public noise, folders and seed.
    """
    order = FederationJob(
        sites=site_specs(job.local["features"]),
        public=job.file("negatives", FRAMES),
        checkpoint_dir=job.space.scratch / "checkpoints",
        out_dir=job.space.scratch / "result",
        seed=job.seed,
        **what,
    )
    result = run_federation(
        order,
        ray_address=runtime().cluster().address,
        on_event=lambda event: follow(job.progress, event, order.rounds),
    )
    for source in (result.theta, result.before, result.history):
        (job.out / source.name).write_bytes(Path(source).read_bytes())
    return result


def follow(progress: StageProgress, event: Mapping[str, Any], rounds: int) -> None:
    """Show an event of a federation."""
    if event["event"] == "round":
        note = f"round {event['round']} of {rounds}"
        scores = event["validation"] or {}
        for name, key in (("reason", "reason_macro_f1"), ("gate", "gate_macro_f1")):
            if scores.get(key) is not None:
                note += f"  {name} {scores[key]:.3f}"
        note += "".join(f"  alarm: {alarm['kind']}" for alarm in event["alarms"])
        progress.update(event["round"] / rounds, note)
    elif event["event"] == "start":
        progress.update(event["resumed_at"] / rounds, "starting")
