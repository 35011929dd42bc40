"""Baselines on the same clips, given all sites' data at once: the majority class, logistic regression and SVM on MFCC statistics.

Beside them, as a warning, what the leaky protocol makes of the same features and labels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from prefect import task

from infra.baselines import clip_table, logistic_regression, majority, support_vector_machine
from infra.data.features import load_frames
from infra.data.mfcc import read_statistics
from infra.evaluation.storage import load_scores, save_scores
from infra.federation.files import decode_arrays, encode_arrays
from infra.leaky import leaky_protocol
from infra.stages import StageResult, Workspace, fetch, resolve
from models.frames import SiteFrames
from models.predict import ClipScores
from tasks.corpus import load_corpus
from tasks.features import FRAMES
from tasks.runtime import runtime
from tasks.sites import PUBLIC, SiteWork, run_at_sites
from tasks.stage import Job, stage

_STATISTICS = "statistics.safetensors"
_LEAKY = "leaky.json"
NAMES = ("majority", "logistic_regression", "support_vector_machine")


@task(name="statistics", retries=1, retry_delay_seconds=2, timeout_seconds=3600, persist_result=False)
def statistics(manifest: str, split: dict[str, int], features: dict[str, str]) -> dict[str, str]:
    """MFCC statistics of every clip that has features, at its site, on Ray; artifact URIs by site."""
    rt = runtime()
    corpus = load_corpus(Path(manifest), split)
    limits = rt.settings.limits
    work = {}
    for site, uri in features.items():
        content = rt.site_content(site)
        made = resolve(content, uri)
        rows = corpus.rows_of("" if site == PUBLIC else site)
        work[site] = SiteWork(
            config={},
            parents={"features": made.digest},
            arguments={
                "frames": str(content.fetch(made.files[FRAMES])),
                "paths": {
                    sha[:16]: str(corpus.manifest.root / p)
                    for p, sha in zip(rows["path"], rows["sha256"], strict=True)
                },
                "max_seconds": limits.max_clip_seconds,
                "max_bytes": limits.max_file_bytes,
            },
        )
    made_at = run_at_sites("statistics", _measure, work, code=("infra.data.mfcc", "infra.data.audio"))
    return {site: artifact.uri for site, artifact in made_at.items()}


def _measure(arguments: Mapping[str, Any], space: Workspace) -> StageResult:
    clips = load_frames(Path(arguments["frames"])).clip_id
    paths = [Path(arguments["paths"][str(clip)]) for clip in clips]
    rows = read_statistics(paths, max_seconds=arguments["max_seconds"], max_bytes=arguments["max_bytes"])
    (space.out / _STATISTICS).write_bytes(encode_arrays({"statistics": rows}))
    return StageResult(values={"clips": len(clips)})


@stage("baselines", code=("infra.baselines", "infra.leaky", "infra.evaluation.storage"), timeout_seconds=3600)
def baselines(job: Job) -> StageResult:
    """Fit and score the baselines; file their scores of validation and test clips."""
    rt = runtime()
    sites: list[SiteFrames] = []
    rows: dict[str, npt.NDArray[np.float32]] = {}
    for site, uri in sorted(job.local["features"].items()):
        content = rt.site_content(site)
        frames = load_frames(fetch(content, resolve(content, uri), FRAMES))
        measured = fetch(content, resolve(content, job.local["statistics"][site]), _STATISTICS)
        values = decode_arrays(measured.read_bytes(), str(measured))["statistics"]
        sites.append(frames.select(np.zeros(0, dtype=np.int64)))
        rows.update(zip(map(str, frames.clip_id), values, strict=True))
    table = clip_table(sites, rows)
    job.progress.update(0.5, "logistic regression and SVM")
    for name, scores in (
        ("majority", majority(table)),
        ("logistic_regression", logistic_regression(table, job.seed)),
        ("support_vector_machine", support_vector_machine(table)),
    ):
        save_scores(scores, job.out / f"{name}.safetensors")
    job.progress.update(0.8, "the leaky protocol, as a warning")
    (job.out / _LEAKY).write_text(json.dumps(leaky_protocol(table, job.seed), allow_nan=False))
    return StageResult(values={"clips": len(table.clip_id)}, info={"note": f"{len(table.clip_id)} clips"})


def read_baselines(uri: str) -> dict[str, ClipScores]:
    """Scores by name."""
    content = runtime().content
    artifact = resolve(content, uri)
    return {name: load_scores(fetch(content, artifact, f"{name}.safetensors")) for name in NAMES}


def read_leaky(uri: str) -> dict[str, Any] | None:
    """What the leaky protocol scores: a warning, not a result."""
    content = runtime().content
    found: dict[str, Any] | None = json.loads(fetch(content, resolve(content, uri), _LEAKY).read_text())
    return found
