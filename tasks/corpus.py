"""The corpus: a manifest of one's own, or the synthesiser's; parts assigned, the table filed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from prefect import task

from infra.data.manifest import Manifest, columns_of, load_manifest
from infra.data.splits import assign_folds, parts
from infra.data.synth.config import SYNTH_VERSION, SynthConfig
from infra.data.synth.corpus import MANIFEST, Namespace, finish, synthesise_noise, synthesise_site
from infra.digest import digest_json
from infra.stages import StageResult, fetch, resolve
from tasks.progress import StageProgress
from tasks.runtime import runtime
from tasks.stage import Job, stage

_TABLE = "clips.csv"


@dataclass(frozen=True)
class Corpus:
    """A checked corpus with its parts; loaded from its manifest in every process that needs it."""

    manifest: Manifest
    folds: pd.Series
    parts: pd.Series  # TRAIN, VAL, TEST by row
    synthetic: bool

    @property
    def table(self) -> pd.DataFrame:
        """One row a clip."""
        return self.manifest.table

    def rows_of(self, site: str) -> pd.DataFrame:
        """One site's rows; "" is public audio."""
        return self.table[self.table["site"] == site]

    def without(self, paths: Iterable[str]) -> Corpus:
        """The corpus less some clips, their parts unchanged."""
        keep = ~self.table["path"].isin(list(paths))
        return Corpus(
            replace(self.manifest, table=self.table[keep]), self.folds[keep], self.parts[keep], self.synthetic
        )


def load_corpus(path: Path, split: Mapping[str, int]) -> Corpus:
    """Read a manifest and assign its parts.

    Raises:
        ManifestError: see `infra.data.manifest`.
    """
    manifest = load_manifest(path, limits=runtime().settings.limits)
    folds = assign_folds(manifest.table, n_folds=split["folds"])
    codes = parts(folds, test_fold=split["test_fold"], val_fold=split["val_fold"])
    synthetic = bool(manifest.table["corpus"].str.startswith("synth").all())
    return Corpus(manifest, folds, codes, synthetic)


@task(name="synthesise", retries=1, retry_delay_seconds=2, timeout_seconds=3600, persist_result=False)
def synthesise(synth: dict[str, Any], namespace: Namespace = "federation") -> str:
    """Make the synthetic corpus, a site at a time on Ray, unless it is complete; returns the manifest's path."""
    rt = runtime()
    cfg = SynthConfig(**synth)
    digest = digest_json({"version": SYNTH_VERSION, **cfg.to_dict()})[:16]
    folder = rt.work / "corpora" / f"synth{SYNTH_VERSION}-{namespace}-{digest}"
    stage_name = "synthesise" if namespace == "federation" else "public pool"
    if (folder / MANIFEST).is_file():
        rt.board.hit(stage_name)
        return str(folder / MANIFEST)
    jobs: list[tuple[SynthConfig, int | None, Path, Namespace]] = [
        (cfg, site, folder, namespace) for site in [*range(cfg.sites), None]
    ]
    with StageProgress(rt.board, stage_name) as progress:
        made = rt.cluster().map(
            _synthesise_part, jobs, on_done=lambda k, n: progress.update(k / n, f"{k} of {n} parts")
        )
        rows = [row for part in made for row in part]
        path = finish(rows, folder)
        progress.update(1.0, f"{len(rows)} clips, synthetic")
    return str(path)


def _synthesise_part(job: tuple[SynthConfig, int | None, Path, Namespace]) -> list[dict[str, str]]:
    cfg, site, folder, namespace = job
    if site is None:
        return synthesise_noise(cfg, folder, namespace)
    return synthesise_site(cfg, site, folder, namespace)


@stage("corpus", code=("infra.data.manifest", "infra.data.splits"), timeout_seconds=3600)
def corpus(job: Job) -> StageResult:
    """File the table of clips with folds and parts."""
    loaded = load_corpus(Path(job.local["manifest"]), job.config["split"])
    table = loaded.table.assign(fold=loaded.folds, part=loaded.parts)
    table.to_csv(job.out / _TABLE, index=False, lineterminator="\n")
    return StageResult(
        values={
            "manifest": loaded.manifest.digest,
            "clips": len(table),
            "groups": int(table["group"].nunique()),
            "sites": loaded.manifest.sites,
            "reasons": loaded.manifest.reasons,
            "synthetic": loaded.synthetic,
        },
        info={
            "note": f"{len(table)} clips of {table['group'].nunique()} groups at {len(loaded.manifest.sites)} sites"
        },
    )


def read_columns(uri: str, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """clip_id → value of a filed corpus, by column that it has."""
    content = runtime().content
    table = pd.read_csv(fetch(content, resolve(content, uri), _TABLE), dtype=str, keep_default_na=False)
    return columns_of(table, names)
