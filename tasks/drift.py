"""Drift: what the training part looked like, filed as counts; and whether a corpus looks like what the last run learned from."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact

from infra.stages import StageResult, fetch, resolve
from models.errors import DataError
from models.frames import TRAIN
from tasks.corpus import load_corpus
from tasks.gate import read_measurements
from tasks.runtime import runtime
from tasks.stage import Job, stage
from validation.drift import compare, summary
from validation.reference import FILE, make_reference, observe, read_reference


@stage("drift-reference", code=("validation.reference",), timeout_seconds=600)
def drift_reference(job: Job) -> StageResult:
    """Count what the gate measured of the sites' training clips; no row of theirs is in it."""
    loaded = load_corpus(Path(job.local["manifest"]), job.config["split"])
    measured = read_measurements(job.local["measurements"])
    clips = observe(loaded.table[loaded.parts == TRAIN], measured)
    reference = make_reference(clips, loaded.manifest.digest)
    (job.out / FILE).write_text(reference.to_json())
    note = (
        f"{reference.clips} training clips of {reference.groups} groups, {len(reference.features)} features"
    )
    return StageResult(values={"clips": reference.clips, "groups": reference.groups}, info={"note": note})


def copy_reference(uri: str, folder: Path) -> None:
    """Put the reference into a run's folder."""
    content = runtime().content
    source = fetch(content, resolve(content, uri), FILE)
    (folder / FILE).write_bytes(source.read_bytes())


@task(name="drift", persist_result=False)
def drift(manifest: str, split: dict[str, int], measurements: dict[str, str]) -> str | None:
    """Hold a measured corpus against the latest run's reference; one line, or None where there is no such run.

    A reference that cannot be used, or too few clips, is said and stops nothing: drift is no verdict on the data.
    """
    latest = runtime().settings.runs_dir / "latest"
    if not (latest / FILE).is_file():
        return None
    loaded = load_corpus(Path(manifest), split)
    try:
        reference = read_reference(latest)
        found = summary(compare(reference, observe(loaded.table, read_measurements(measurements))))
    except DataError as err:
        found = f"not judged: {err}"
    create_markdown_artifact(f"Against what run `{latest.resolve().name}` learned from: {found}", key="drift")
    return found
