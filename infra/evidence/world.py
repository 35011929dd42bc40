"""What every cell of the evidence starts from: clips, folds, frames and pretrained networks, on disk and named by a digest.

Pretraining sees synthetic infants and synthetic noise alone, so no network has met a clip that will judge it, in any fold. Two
networks are pretrained, alike but for the denoiser: `denoising` learned it first, `plain` has it as the identity it begins as.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from infra.data.calls import CLIPS, call_frames
from infra.data.features import load_frames, load_noise_bank, save_frames
from infra.data.manifest import load_manifest
from infra.data.pretraining import pretraining_set
from infra.data.synth.config import SynthConfig
from infra.data.synth.corpus import synthesise
from infra.digest import digest_bytes, digest_json
from infra.evidence.folds import FOLDS, Folds, evidence_folds, is_public, judged
from infra.evidence.frames import EvidenceFrames, evidence_frames
from infra.federation.files import decode_arrays, encode_arrays
from models.config import ModelConfig, preset
from models.errors import DataError
from models.frames import TRAIN
from models.network import CryNet
from models.pretrain import BackboneConfig, DenoiserConfig, Progress, pretrain_backbone, pretrain_denoiser
from models.segmentation import VadConfig
from models.state import load_arrays, to_arrays

BASES: Final = ("denoising", "plain")

OnWork = Callable[[float, str], None]
"""Told the share that is done, and what is being done."""


@dataclass(frozen=True)
class WorldConfig:
    """What the evidence is made of."""

    preset: str = "compact"
    folds: int = FOLDS
    pool: SynthConfig = field(
        default_factory=lambda: SynthConfig(sites=6, seed=77)
    )  # synthetic infants to pretrain on
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    calls: int = CLIPS  # synthetic non-cries to learn from
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return json.loads(json.dumps({**asdict(self), "pool": self.pool.to_dict()}))


@dataclass(frozen=True)
class World:
    """Loaded: `rows` as `folds.judged` gives them, their folds, frames, and the networks' weights by base."""

    rows: pd.DataFrame
    folds: Folds
    frames: EvidenceFrames
    reasons: tuple[str, ...]
    model: ModelConfig
    bases: Mapping[str, dict[str, np.ndarray]]
    digest: str
    manifest: str

    @property
    def noise_classes(self) -> list[str]:
        """The classes of public noise."""
        return sorted(set(self.rows["label"][is_public(self.rows)]))

    def network(self, base: str) -> CryNet:
        """A pretrained network, its own copy."""
        net = CryNet(self.model, self.reasons, seed=0)
        load_arrays(net, self.bases[base])
        return net


def build_world(
    manifest: Path, cfg: WorldConfig, out: Path, on_work: OnWork = lambda _share, _what: None
) -> Path:
    """Read, render and pretrain, unless it is done; the folder to load it from.

    Raises:
        ManifestError, AudioError: the data cannot be used.
        OutputError: `out` cannot be written.
    """
    loaded = load_manifest(manifest)
    model = preset(cfg.preset)
    digest = digest_json({"manifest": loaded.digest, "config": cfg.to_dict(), "model": model.to_dict()})
    folder = out / f"world-{digest[:12]}"
    if (folder / "world.json").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    rows = judged(loaded.table)
    folds = evidence_folds(rows, cfg.folds, cfg.seed)
    frames = evidence_frames(
        rows, loaded.root, folds, loaded.reasons, model.log_mel,
        on_clip=lambda k, n: on_work(0.4 * k / n, f"rendering clip {k} of {n}"),
    )  # fmt: skip
    for kind, by_site in (("learn", frames.learn), ("judge", frames.judge)):
        for k, name in enumerate(sorted(by_site)):
            save_frames(by_site[name], folder / f"{kind}-{k}.safetensors")
    calls = call_frames(tuple(loaded.reasons), model.log_mel, VadConfig(), cfg.calls)
    save_frames(calls, folder / "calls.safetensors")
    on_work(0.4, "the synthetic pool")
    pool_manifest = load_manifest(synthesise(cfg.pool, folder / "pool", "public"))
    bank = load_noise_bank(pool_manifest.table, pool_manifest.root, np.full(len(pool_manifest.table), TRAIN))
    pool = pretraining_set(pool_manifest, bank, model.log_mel)
    for k, base in enumerate(BASES):
        net = CryNet(model, tuple(loaded.reasons), seed=cfg.seed)
        start = 0.5 + 0.25 * k

        def tell(done: Progress, base: str = base, start: float = start) -> None:
            share = done.step / done.steps
            on_work(start + 0.25 * share, f"pretraining {base}: {done.stage} {done.step} of {done.steps}")

        if base == "denoising":
            pretrain_denoiser(net, pool, cfg.denoiser, tell)
        pretrain_backbone(net, pool, cfg.backbone, tell)
        (folder / f"base-{base}.safetensors").write_bytes(encode_arrays(dict(to_arrays(net))))
    rows.assign(fold=folds).to_csv(folder / "rows.csv", index=False)
    meta = {
        "manifest": loaded.digest, "config": cfg.to_dict(), "reasons": list(loaded.reasons), "model": model.to_dict(),
        "bases": {b: digest_bytes((folder / f"base-{b}.safetensors").read_bytes()) for b in BASES},
        "sites": sorted(frames.learn),
    }  # fmt: skip
    handle, name = tempfile.mkstemp(dir=folder)
    with os.fdopen(handle, "w") as file:
        json.dump(meta, file, indent=1)
    Path(name).replace(folder / "world.json")  # last: a folder without it is not done
    return folder


def load_world(folder: Path) -> World:
    """Inverse of `build_world`.

    Raises:
        DataError: it is not complete.
    """
    try:
        meta = json.loads((folder / "world.json").read_text())
        rows = pd.read_csv(folder / "rows.csv", keep_default_na=False)
    except (OSError, ValueError) as err:
        raise DataError(
            f"{folder} holds no complete evidence world ({err}): delete it and run again"
        ) from None
    sites = meta["sites"]
    learn, judge = (
        {name: load_frames(folder / f"{kind}-{k}.safetensors") for k, name in enumerate(sites)}
        for kind in ("learn", "judge")
    )
    frames = EvidenceFrames(learn, judge, load_frames(folder / "calls.safetensors"))
    bases = {
        base: decode_arrays((folder / f"base-{base}.safetensors").read_bytes(), f"the base network {base}")
        for base in meta["bases"]
    }
    return World(
        rows=rows.drop(columns="fold"), folds=rows["fold"].to_numpy(np.int8), frames=frames, reasons=tuple(meta["reasons"]),
        model=ModelConfig.from_dict(meta["model"]), bases=bases,
        digest=digest_json({k: meta[k] for k in ("manifest", "config", "bases")}), manifest=meta["manifest"],
    )  # fmt: skip
