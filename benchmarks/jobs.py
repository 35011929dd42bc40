"""A federation on disk for measuring: random frames whose mean depends on the label, random weights, tokens already cached."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from infra.data.features import save_frames
from infra.data.synth.config import REASONS
from infra.digest import digest_bytes
from infra.federation.base import load_base
from infra.federation.files import encode_arrays
from infra.federation.job import FederationJob, SiteSpec
from infra.federation.tokens import features_digest, load_site_tokens
from models.config import ModelConfig, preset
from models.frames import TRAIN, VAL, SiteFrames
from models.local_step import TokenSet
from models.network import CryNet
from models.seeds import derive_seed
from models.state import to_arrays


@dataclass(frozen=True)
class World:
    """Base model, features and token caches under `root`; every run of a job gets site folders of its own."""

    root: Path
    cfg: ModelConfig
    sites: int
    clips: int

    @property
    def names(self) -> tuple[str, ...]:
        """The sites."""
        return tuple(f"site{i:02d}" for i in range(self.sites))

    @property
    def base(self) -> Path:
        """The base model's file."""
        return self.root / "base.safetensors"

    @cached_property
    def net(self) -> CryNet:
        """The base model."""
        return load_base(self.base, self.cfg, REASONS)[0]

    def features(self, site: str) -> Path:
        """A site's frames."""
        return self.root / "sites" / site / "features.safetensors"

    def tokens(self, site: str) -> TokenSet:
        """A site's training tokens, from its cache."""
        path, base = self.features(site), digest_bytes(self.base.read_bytes())
        return load_site_tokens(path, path.parent, self.net, base, features_digest(path)).train

    def job(self, folder: Path, *, rounds: int, **changes: Any) -> FederationJob:
        """A job in a fresh folder, saved as `folder/job.json`."""
        specs = []
        for name in self.names:
            own = folder / name
            own.mkdir(parents=True)
            for cache in self.features(name).parent.glob("tokens-*"):
                shutil.copyfile(cache, own / cache.name)
            specs.append(SiteSpec(name=name, features=self.features(name), folder=own))
        fields: dict[str, Any] = {
            "sites": tuple(specs), "base_model": self.base, "network": self.cfg.to_dict(), "reasons": REASONS,
            "rounds": rounds, "seed": 3, "checkpoint_dir": folder / "checkpoint", "out_dir": folder / "out",
        }  # fmt: skip
        job = FederationJob(**{**fields, **changes})
        job.save(folder / "job.json")
        return job


def make_world(
    root: Path, *, preset_name: str, sites: int = 8, clips: int = 120, freeze_a: bool = False
) -> World:
    """Write a world; two thirds of the clips of each site are trained on, all have two frames."""
    world = World(root, replace(preset(preset_name), freeze_a=freeze_a), sites, clips)
    root.mkdir(parents=True)
    world.base.write_bytes(encode_arrays(dict(to_arrays(CryNet(world.cfg, REASONS, seed=1)))))
    for name in world.names:
        world.features(name).parent.mkdir(parents=True)
        save_frames(_frames(name, clips, world.cfg), world.features(name))
        world.tokens(name)
    return world


def _frames(site: str, clips: int, cfg: ModelConfig) -> SiteFrames:
    rng = np.random.Generator(np.random.PCG64(derive_seed("benchmark", site)))
    number = np.arange(clips)
    gate = (number % 2).astype(np.int8)
    reason = np.where(gate == 1, number // 2 % len(REASONS), -1).astype(np.int16)
    clip = np.repeat(number.astype(np.int32), 2)
    log_mel = rng.normal(-6, 2, (len(clip), cfg.log_mel.n_mels, cfg.log_mel.n_frames))
    log_mel += (2.0 * gate + reason)[clip][:, None, None]
    names = np.array([f"{site}-{i}" for i in number])
    return SiteFrames(
        site=site, reasons=REASONS, log_mel=log_mel.astype(np.float16), clip=clip,
        view=np.zeros(len(clip), np.int16), snr_db=np.full(len(clip), np.nan, np.float32), gate=gate, reason=reason,
        part=np.where(number % 6 < 4, TRAIN, VAL).astype(np.int8), group=names, clip_id=names, label=names,
    )  # fmt: skip
