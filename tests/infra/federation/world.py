"""A small federation on disk: a tiny network, a few sites with random frames whose mean depends on the label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from infra.data.features import save_frames
from infra.federation.files import encode_arrays
from infra.federation.job import FederationJob, SiteSpec
from infra.federation.site import open_site
from infra.federation.transport import LocalTransport
from models.config import preset
from models.frames import TRAIN, VAL, SiteFrames
from models.network import CryNet
from models.seeds import derive_seed
from models.state import to_arrays

REASONS = ("hungry", "tired", "burping")


def write_features(path: Path, *, site: str, clips: int = 12, frames_per_clip: int = 3) -> None:
    """Frames of one site: half the clips cries, a third of them validation."""
    mel = preset("tiny").log_mel
    rng = np.random.Generator(np.random.PCG64(derive_seed(0, site)))
    gate = (np.arange(clips) % 2).astype(np.int8)
    reason = np.where(gate == 1, (np.arange(clips) // 2) % len(REASONS), -1).astype(np.int16)
    part = np.where(np.arange(clips) % 6 < 4, TRAIN, VAL).astype(np.int8)
    clip = np.repeat(np.arange(clips, dtype=np.int32), frames_per_clip)
    n = len(clip)
    log_mel = rng.normal(-6, 2, (n, mel.n_mels, mel.n_frames))
    log_mel += 2.0 * gate[clip][:, None, None] + 1.0 * reason[clip][:, None, None]
    names = np.array([f"{site}-{i}" for i in range(clips)])
    save_frames(
        SiteFrames(
            site=site,
            reasons=REASONS,
            log_mel=log_mel.astype(np.float16),
            clip=clip,
            view=np.zeros(n, np.int16),
            snr_db=np.full(n, np.nan, np.float32),
            gate=gate,
            reason=reason,
            part=part,
            group=names,
            clip_id=names,
            label=names,
        ),
        path,
    )


def make_job(root: Path, *, sites: int = 3, rounds: int = 3, **changes: Any) -> FederationJob:
    """A job whose files lie under `root`; the same arguments give the same content anywhere."""
    cfg = preset("tiny")
    root.mkdir(parents=True, exist_ok=True)
    base = root / "base.safetensors"
    base.write_bytes(encode_arrays(to_arrays(CryNet(cfg, REASONS, seed=1))))
    specs = []
    for i in range(sites):
        name = f"site{i}"
        features = root / name / "features.safetensors"
        features.parent.mkdir(exist_ok=True)
        write_features(features, site=name)
        specs.append(SiteSpec(name=name, features=features, folder=root / name / "own"))
    fields: dict[str, Any] = {
        "sites": tuple(specs),
        "base_model": base,
        "network": cfg.to_dict(),
        "reasons": REASONS,
        "rounds": rounds,
        "local": {"steps": 2, "batch_size": 8},
        "seed": 3,
        "checkpoint_dir": root / "checkpoint",
        "out_dir": root / "out",
        "cpus": 2,
        "timeout_s": 120.0,
    }
    return FederationJob(**{**fields, **changes})


def local_transport(job: FederationJob, folder: Path) -> LocalTransport:
    """All sites of the job in this process."""
    path = folder / "local-job.json"
    job.save(path)
    return LocalTransport({name: open_site(str(path), name).handle for name in job.site_names})
