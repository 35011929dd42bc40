"""Two sites with a few synthetic recordings each, under names that must never be seen outside of them."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path
from typing import Any

from infra.data.synth.config import SynthConfig
from infra.data.synth.corpus import synthesise
from infra.federation.files import encode_arrays
from infra.federation.job import FederationJob, SiteSpec
from infra.federation.local.plan import DataPlan
from infra.federation.local.routes import LocalSite, open_local_site
from models.config import preset
from models.network import CryNet
from models.state import to_arrays

SITES = ("site-0", "site-1")
CANARIES = ("kanarienfolder", "kanarienfile", "kanariengroup", "kanarienlabel", "kanarienreason")
"""In every path, file name, group name, non-cry label and reason of an override."""

PLAN = DataPlan.from_dict({"features": {"train_views": 1, "test_snrs": [5.0]}})


def corpus(root: Path) -> Path:
    """A manifest of two sites, five infants each (one a fold), 30 cries and 35 other sounds a site, and public noise."""
    folder = root / "kanarienfolder"
    config = SynthConfig(
        sites=2,
        infants_per_site=5,
        cries_per_infant=6,
        noncries_per_site=35,
        public_noise=10,
        clip_seconds=1.0,
    )
    manifest = synthesise(config, folder)
    with manifest.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for i, row in enumerate(rows):
        if not row["site"]:
            continue
        new = f"{row['site']}/kanarienfile-{i}.wav"
        (folder / row["path"]).rename(folder / new)
        row.update(path=new, group=f"kanariengroup-{row['group']}")
        if row["role"] != "cry":
            row["label"] = f"kanarienlabel-{row['label']}"
    write_rows(manifest, rows)
    return manifest


def read_rows(manifest: Path) -> list[dict[str, str]]:
    """A manifest's rows."""
    with manifest.open(newline="") as file:
        return list(csv.DictReader(file))


def write_rows(manifest: Path, rows: list[dict[str, str]]) -> None:
    """Replace a manifest's rows."""
    with manifest.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def spoil(manifest: Path, site: str) -> str:
    """Cut one of a site's cries in half; returns its path."""
    row = next(r for r in read_rows(manifest) if r["site"] == site and r["role"] == "cry")
    path = manifest.parent / row["path"]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return row["path"]


def local_job(root: Path, manifest: Path, **changes: Any) -> FederationJob:
    """A job whose sites bring recordings; its files lie under `root`."""
    reasons = tuple(sorted({r["label"] for r in read_rows(manifest) if r["role"] == "cry"}))
    cfg = preset("tiny")
    root.mkdir(parents=True, exist_ok=True)
    base = root / "base.safetensors"
    base.write_bytes(encode_arrays(to_arrays(CryNet(cfg, reasons, seed=1))))
    fields: dict[str, Any] = {
        "sites": tuple(
            SiteSpec(name=name, manifest=manifest, folder=root / "kanarienfolder" / name) for name in SITES
        ),
        "base_model": base,
        "network": cfg.to_dict(),
        "reasons": reasons,
        "rounds": 1,
        "local": {"steps": 2, "batch_size": 8},
        "data": PLAN.to_dict(),
        "eval_every": 0,
        "seed": 3,
        "checkpoint_dir": root / "checkpoint",
        "out_dir": root / "out",
        "cpus": 2,
        "timeout_s": 200.0,
    }
    return FederationJob(**{**fields, **changes})


def open_sites(job: FederationJob, folder: Path) -> dict[str, LocalSite]:
    """All sites of the job, in this process."""
    path = folder / "local-job.json"
    job.save(path)
    return {name: open_local_site(str(path), name) for name in job.site_names}


def sha256(path: Path) -> str:
    """Of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
