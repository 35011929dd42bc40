"""Features: frames of every site's clips, made at the site, and of the public pool for pretraining."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from prefect import task

from infra.data.features import FeatureConfig, NoiseBank, extract_site, load_noise_bank, save_frames
from infra.data.manifest import load_manifest
from infra.data.pretraining import pretraining_set
from infra.digest import digest_file
from infra.federation.files import encode_arrays
from infra.settings import LimitSettings
from infra.stages import StageResult, Workspace
from models.config import LogMelConfig
from models.frames import TRAIN
from models.segmentation import VadConfig
from tasks.corpus import Corpus, load_corpus
from tasks.gate import read_verdict
from tasks.runtime import runtime
from tasks.sites import PUBLIC, SiteWork, run_at_sites
from tasks.stage import Job, stage

FRAMES = "frames.safetensors"
POOL = "pool.safetensors"


def _usable(manifest: str, split: Mapping[str, int], verdict: str) -> Corpus:
    """The corpus without the clips that the gate could not decode (there are none unless it was overridden)."""
    return load_corpus(Path(manifest), split).without(read_verdict(verdict).unusable)


def _facts(corpus: Corpus, rows: pd.DataFrame) -> list[list[str]]:
    """What of a row decides its frames, with the digest of the bytes that lie there now."""
    root = corpus.manifest.root
    parts = corpus.parts[rows.index].astype(str)
    said = rows[["path", "role", "label", "group", "sha256"]].to_numpy().tolist()
    return [[*row, part, digest_file(root / row[0])] for row, part in zip(said, parts, strict=True)]


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
    limits = runtime().settings.limits
    public = corpus.rows_of("")
    noise_facts = _facts(corpus, public[public["role"] == "noise"])
    work = {}
    for site in [*corpus.manifest.sites, ""]:
        rows = corpus.rows_of(site)
        rows = rows[rows["role"] != "unlabelled"]
        if rows.empty:
            continue
        work[site or PUBLIC] = SiteWork(
            config={**config, "clips": _facts(corpus, rows), "noise": noise_facts if site else []},
            parents={},
            arguments={
                "rows": rows,
                "parts": corpus.parts[rows.index].to_numpy(),
                "public": public,
                "public_parts": corpus.parts[public.index].to_numpy(),
                "root": str(corpus.manifest.root),
                "limits": limits,
                **config,
            },
        )
    made = run_at_sites("features", _extract, work, code=("infra.data.features",))
    return {site: artifact.uri for site, artifact in made.items()}


def _extract(arguments: Mapping[str, Any], space: Workspace) -> StageResult:
    root, limits = Path(arguments["root"]), arguments["limits"]
    noise = load_noise_bank(arguments["public"], root, arguments["public_parts"], limits)
    frames = extract_site(
        arguments["rows"],
        root,
        noise,
        arguments["parts"],
        tuple(arguments["reasons"]),
        LogMelConfig(**arguments["log_mel"]),
        VadConfig(**arguments["vad"]),
        feature_config(arguments["features"]),
        limits,
    )
    save_frames(frames, space.out / FRAMES)
    return StageResult(values={"frames": len(frames.clip), "clips": len(frames.gate)})


def feature_config(raw: Mapping[str, Any]) -> FeatureConfig:
    """`FeatureConfig` from its JSON form."""
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
    return FeatureConfig(**fields)


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
