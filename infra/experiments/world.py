"""The data of the experiments: synthetic infants as tokens in memory, and the pretrained network that made them.

    corpus, public pool → frames → a deliberately weak pretraining → tokens          once; world-<16 hex>.safetensors
    tokens → sites                                                                   per setting and seed, in memory

Every infant cries once, so that an infant has one reason and a Dirichlet partition over reasons can deal infants. Training
infants of all wards are dealt anew to the federation's sites; validation and test infants are pooled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.data.features import FeatureConfig, extract_site, load_noise_bank
from infra.data.manifest import load_manifest
from infra.data.pretraining import pretraining_set
from infra.data.splits import assign_folds, parts
from infra.data.synth.config import REASONS, SYNTH_VERSION, SynthConfig
from infra.data.synth.corpus import MANIFEST, Namespace, synthesise
from infra.digest import digest_bytes, digest_json
from infra.experiments.partition import dirichlet_partition, label_skew
from infra.federation.files import decode_arrays, encode_arrays, write_atomic
from models.config import ModelConfig
from models.errors import DataError
from models.frames import TRAIN
from models.local_step import TokenSet
from models.network import CryNet
from models.predict import frame_tokens
from models.pretrain import BackboneConfig, DenoiserConfig, pretrain_backbone, pretrain_denoiser
from models.seeds import derive_seed
from models.state import load_arrays, to_arrays

Note = Callable[[str], None]

_WEIGHT = "weight/"
_BY_FRAME = ("tokens", "clip", "view")
_BY_CLIP = ("gate", "reason", "part", "infant")


@dataclass(frozen=True)
class WorldConfig:
    """Size and strength; plain numbers, hashed into the file's name."""

    preset: dict[str, Any]  # ModelConfig.to_dict()
    synth: SynthConfig = field(
        default_factory=lambda: SynthConfig(
            infants_per_site=100, cries_per_infant=1, noncries_per_site=60, public_noise=40, clip_seconds=2.0
        )
    )
    pool: SynthConfig = field(
        default_factory=lambda: SynthConfig(
            sites=4, infants_per_site=24, cries_per_infant=4, noncries_per_site=40, public_noise=0,
            clip_seconds=2.0, seed=77,
        )
    )  # fmt: skip
    features: FeatureConfig = field(default_factory=lambda: FeatureConfig(train_views=1, test_snrs=()))
    denoiser: DenoiserConfig | None = field(default_factory=lambda: DenoiserConfig(steps=60, threads=1))
    """None leaves it untrained, which is the identity."""
    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(steps=1200, threads=1))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"synth_version": SYNTH_VERSION, **asdict(self)}


@dataclass(frozen=True)
class HeldOut:
    """Clips to score: tokens (N, L, D) of their frames, the clip (0 … n−1) of each, and per clip gate, reason and infant."""

    tokens: npt.NDArray[np.float16]
    clip: npt.NDArray[np.int64]
    gate: npt.NDArray[np.int8]
    reason: npt.NDArray[np.int16]
    infant: npt.NDArray[np.int32]


@dataclass(frozen=True)
class World:
    """Per frame `tokens` (N, L, D), `clip`, `view`; per clip `gate`, `reason`, `part`, `infant`; the net's `weights`."""

    tokens: npt.NDArray[np.float16]
    clip: npt.NDArray[np.int32]
    view: npt.NDArray[np.int16]
    gate: npt.NDArray[np.int8]
    reason: npt.NDArray[np.int16]
    part: npt.NDArray[np.int8]
    infant: npt.NDArray[np.int32]
    weights: dict[str, npt.NDArray[np.float32]]
    digest: str

    def infants(self, part: int) -> dict[str, int]:
        """The infants of a part with the reason of their cry."""
        rows = np.flatnonzero((self.part == part) & (self.reason >= 0))
        return {str(self.infant[i]): int(self.reason[i]) for i in rows}

    def deal(self, sites: int, alpha: float, seed: int) -> list[list[str]]:
        """Training infants by site, drawn from α and the seed alone: every arm learns from the same sites."""
        rng = np.random.Generator(np.random.PCG64(derive_seed("partition", seed, sites, alpha)))
        return dirichlet_partition(self.infants(TRAIN), sites, alpha, rng)

    def skew(self, dealt: list[list[str]]) -> float:
        """How unlike the sites of a partition are (`partition.label_skew`)."""
        return label_skew(self.infants(TRAIN), dealt)

    def sites(self, dealt: list[list[str]]) -> dict[str, TokenSet]:
        """What every site trains on: all that its infants' devices recorded, non-cries included."""
        count = np.bincount(self.clip, minlength=len(self.gate))
        made = {}
        for number, names in enumerate(dealt):
            own = np.isin(self.infant, [int(name) for name in names]) & (self.part == TRAIN)
            rows = np.flatnonzero(own[self.clip])
            clip = self.clip[rows]
            made[f"site-{number}"] = TokenSet(
                np.ascontiguousarray(self.tokens[rows]),
                self.gate[clip],
                self.reason[clip],
                (1.0 / count[clip]).astype(np.float32),
            )
        return made

    def held_out(self, part: int, view: int = 0) -> HeldOut:
        """The clips of VAL or TEST as recorded, or in another view: the k-th SNR of the features is view k, from 1."""
        rows = np.flatnonzero((self.part[self.clip] == part) & (self.view == view))
        clips, inverse = np.unique(self.clip[rows], return_inverse=True)
        return HeldOut(self.tokens[rows], inverse, self.gate[clips], self.reason[clips], self.infant[clips])

    def network(self, cfg: ModelConfig, seed: int) -> CryNet:
        """The pretrained network with adapters and reason head drawn from `seed`."""
        net = CryNet(cfg, REASONS, seed=seed)
        load_arrays(net, {**to_arrays(net), **self.weights})
        return net


def build_world(cfg: WorldConfig, folder: Path, note: Note = lambda _text: None) -> Path:
    """Make the world of a configuration, unless it is there; returns its file.

    Raises:
        OutputError: the folder cannot be written.
    """
    path = folder / f"world-{digest_json(cfg.to_dict())[:16]}.safetensors"
    if path.is_file():
        return path
    note("synthesising")
    corpus = load_manifest(synthesised(cfg.synth, folder, "federation"))
    public = load_manifest(synthesised(cfg.pool, folder, "public"))
    note("extracting frames")
    part = parts(assign_folds(corpus.table))
    noise = load_noise_bank(corpus.table, corpus.root, part)
    model = ModelConfig.from_dict(cfg.preset)
    wards = []
    for ward in corpus.sites:
        mine = corpus.table["site"] == ward
        wards.append(
            extract_site(
                corpus.table[mine], corpus.root, noise, part[mine], REASONS, model.log_mel, cfg=cfg.features
            )
        )
    note("pretraining")
    net = CryNet(model, REASONS)
    pool = pretraining_set(public, noise, model.log_mel)
    if cfg.denoiser is not None:
        pretrain_denoiser(net, pool, cfg.denoiser)
    pretrain_backbone(net, pool, cfg.backbone)
    note("tokens")
    first = np.cumsum([0, *(len(ward.gate) for ward in wards)])
    arrays: dict[str, npt.NDArray[Any]] = {
        "tokens": np.concatenate([frame_tokens(net, ward.log_mel) for ward in wards]),
        "clip": np.concatenate([ward.clip + n for ward, n in zip(wards, first[:-1], strict=True)]).astype(
            np.int32
        ),
        "view": np.concatenate([ward.view for ward in wards]),
        **{name: np.concatenate([getattr(ward, name) for ward in wards]) for name in ("gate", "reason", "part")},
        "infant": np.unique(np.concatenate([ward.group for ward in wards]), return_inverse=True)[1].astype(
            np.int32
        ),
    }  # fmt: skip
    drawn = {name for name in to_arrays(net) if "lora_" in name or name.startswith("reason_head.")}
    weights = {_WEIGHT + name: a for name, a in to_arrays(net).items() if name not in drawn}
    write_atomic(path, encode_arrays({**arrays, **weights}))
    return path


def load_world(path: Path) -> World:
    """Read what `build_world` wrote.

    Raises:
        DataError: missing, or not such a file.
    """
    try:
        data = path.read_bytes()
    except OSError as err:
        raise DataError(f"cannot read the experiments' data {path}: {err.strerror}") from None
    arrays = decode_arrays(data, str(path))
    if missing := {*_BY_FRAME, *_BY_CLIP} - set(arrays):
        raise DataError(f"{path} lacks {sorted(missing)}: delete it, it is made again")
    weights = {name.removeprefix(_WEIGHT): a for name, a in arrays.items() if name.startswith(_WEIGHT)}
    return World(
        **{name: arrays[name] for name in (*_BY_FRAME, *_BY_CLIP)}, weights=weights, digest=digest_bytes(data)
    )


def synthesised(cfg: SynthConfig, folder: Path, namespace: Namespace) -> Path:
    """The manifest of a synthetic corpus below `folder`, made unless it is there."""
    where = folder / f"{namespace}-{cfg.digest(namespace)[:16]}"
    return where / MANIFEST if (where / MANIFEST).is_file() else synthesise(cfg, where, namespace)
