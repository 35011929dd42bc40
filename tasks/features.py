"""Features: frames of every site's clips, made at the site, and of the public pool for pretraining."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from prefect import task

from infra.data.audio import ClipLimits
from infra.data.features import NoiseBank, load_noise_bank
from infra.data.manifest import load_manifest
from infra.data.pretraining import pretraining_set
from infra.federation.files import encode_arrays
from infra.federation.local.frames import FRAMES, Clips, Rendering
from infra.federation.local.work import FRAMES_CODE, Work, extract_frames, extracting
from infra.settings import LimitSettings
from infra.stages import StageResult
from models.config import LogMelConfig
from models.frames import TRAIN
from models.segmentation import VadConfig
from tasks.corpus import Corpus, load_corpus
from tasks.gate import read_verdict
from tasks.runtime import runtime
from tasks.sites import PUBLIC, SiteWork, run_at_sites
from tasks.stage import Job, stage

__all__ = ["FRAMES", "POOL", "extractions", "features", "pool"]

POOL = "pool.safetensors"


def _usable(manifest: str, split: Mapping[str, int], verdict: str) -> Corpus:
    """The corpus without the clips that the gate could not decode (there are none unless it was overridden)."""
    return load_corpus(Path(manifest), split).without(read_verdict(verdict).unusable)


@task(name="features", retries=1, retry_delay_seconds=2, timeout_seconds=6 * 3600, persist_result=False)
def features(manifest: str, split: dict[str, int], verdict: str, config: dict[str, Any]) -> dict[str, str]:
    """Extract every site's frames at the site, on Ray; returns artifact URIs by site ("public" for public audio).

    Args:
        manifest: path of the manifest.
        split: folds.
        verdict: URI of the gate's verdict.
        config: `log_mel`, `vad`, `features` (their dataclasses as JSON) and `reasons`.
    """
    corpus = _usable(manifest, split, verdict)
    work = extractions(corpus, Rendering.from_dict(config), runtime().settings.limits)
    made = run_at_sites(
        "features",
        extract_frames,
        {site: SiteWork(**item.inputs) for site, item in work.items()},
        code=FRAMES_CODE,
    )
    return {site: artifact.uri for site, artifact in made.items()}


def extractions(corpus: Corpus, rendering: Rendering, limits: ClipLimits) -> dict[str, Work]:
    """Every site's extraction, by the name of its folder."""
    table, root = corpus.table, corpus.manifest.root

    def pick(mask: pd.Series) -> Clips:
        return Clips(table[mask], corpus.parts[mask].to_numpy(np.int8), root)

    noise = pick((table["site"] == "") & (table["role"] == "noise"))
    noise_facts = noise.facts()
    work = {}
    for site in [*corpus.manifest.sites, ""]:
        clips = pick((table["site"] == site) & (table["role"] != "unlabelled"))
        if not clips.rows.empty:
            # public noise is not mixed into public audio
            facts = noise_facts if site else []
            work[site or PUBLIC] = extracting(clips, noise, rendering, limits, noise_facts=facts)
    return work


@stage("pool", code=("infra.data.pretraining",), timeout_seconds=3600)
def pool(job: Job) -> StageResult:
    """Extract what is pretrained on: the public synthetic pool, and the training part's public noise."""
    limits: LimitSettings = runtime().settings.limits
    corpus = _usable(job.local["manifest"], job.config["split"], job.local["verdict"])
    noise = load_noise_bank(corpus.table, corpus.manifest.root, corpus.parts, limits)
    made = load_manifest(Path(job.local["pool"]), limits=limits)
    if TRAIN not in noise.waves:  # a corpus without public noise of its own: the pool brings some
        noise = load_noise_bank(made.table, made.root, np.full(len(made.table), TRAIN), limits)
    data = pretraining_set(
        made,
        NoiseBank({TRAIN: noise.waves[TRAIN]}),
        LogMelConfig(**job.config["log_mel"]),
        VadConfig(**job.config["vad"]),
        limits,
    )
    arrays = {name: getattr(data, name) for name in ("log_mel", "gate", "attributes", "noise")}
    (job.out / POOL).write_bytes(encode_arrays(arrays))
    return StageResult(
        values={"frames": len(data.gate), "noise_frames": len(data.noise)},
        info={"note": f"{len(data.gate)} public frames, {len(data.noise)} of noise"},
    )
