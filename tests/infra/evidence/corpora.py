"""Small corpora for the evidence: tables without audio, and synthetic recordings with a world that is built in seconds."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from infra.data.synth.config import SynthConfig
from infra.data.synth.corpus import synthesise
from infra.evidence.folds import judged
from infra.evidence.world import WorldConfig
from models.pretrain import BackboneConfig, DenoiserConfig

CONFIG = WorldConfig(
    preset="tiny",
    folds=2,
    pool=SynthConfig(
        sites=1, infants_per_site=2, cries_per_infant=2, noncries_per_site=4, public_noise=12, clip_seconds=1.2, seed=77,
    ),
    denoiser=DenoiserConfig(steps=2),
    backbone=BackboneConfig(steps=2),
    calls=7,
)  # fmt: skip


def recordings(folder: Path, seed: int = 3) -> Path:
    """Two sites with four infants each, and two or three recordings of each kind of public noise; the manifest's path."""
    cfg = SynthConfig(
        sites=2, infants_per_site=4, cries_per_infant=1, noncries_per_site=4, public_noise=24, clip_seconds=1.2, seed=seed,
    )  # fmt: skip
    return synthesise(cfg, folder)


def table(sites: int = 3, devices: int = 6, classes: int = 4, of_each: int = 7) -> pd.DataFrame:
    """Rows as `judged` gives them: devices with two cries and a rejected upload, and public noise."""
    rows: list[dict[str, object]] = []

    def add(role: str, site: str, group: str, label: str) -> None:
        path = f"{role}/{site or 'public'}-{group}-{len(rows):04d}.wav"
        rows.append({
            "path": path, "role": role, "site": site, "group": group, "label": label,
            "sha256": f"{hash_of(path):064x}", "corpus": "by hand",
        })  # fmt: skip

    for s in range(sites):
        for d in range(devices):
            for label in ("hungry", "tired"):
                add("cry", f"site{s}", f"device{s}-{d}", label)
            add("ood_noncry", f"site{s}", f"device{s}-{d}", "non_cry")
    for c in range(classes):
        for k in range(of_each):
            add("noise", "", f"recording{c}-{k}", f"class{c}")
    return judged(pd.DataFrame(rows))


def hash_of(path: str) -> int:
    """A number of a path, the same in every process."""
    return int.from_bytes(path.encode(), "big") % 16**60
