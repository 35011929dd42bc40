"""What trained networks make of sound that is no clip of their fold's scores: altered cries, probes, and hours of a ward.

Every network hears what is made of its own fold's clips, which it never met; the cries that are altered and the hours are those
of all folds together. Its calibration comes from the out-of-fold scores of the *other* folds' clips: no clip has a say in how it
is judged.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from infra.data.audio import ReadLimits, read_audio, write_bytes
from infra.data.manifest import load_manifest
from infra.digest import digest_file, digest_json
from infra.evidence import long_track, panel
from infra.evidence.behaviour import Cry, behaviour_document, fits
from infra.evidence.cell_files import CellFiles
from infra.evidence.cells import Cell
from infra.evidence.folds import Folds
from infra.evidence.long_recordings import fold_tracks, long_recordings_document
from infra.evidence.panel import Judge
from infra.evidence.soundscape import SoundscapeConfig
from infra.evidence.unlabelled import unlabelled_document, unlabelled_rows
from infra.evidence.world import World
from infra.processes import in_processes
from models.adapters import merge_adapters
from models.calibration import SiteCalibration, calibrate_site
from models.config import ModelConfig
from models.errors import DataError
from models.network import CryNet
from models.predict import ClipScores, concat_scores
from models.threads import one_thread

Json = dict[str, Any]

BEHAVIOUR, LONG_RECORDINGS = "behaviour", "long recordings"


@dataclass(frozen=True)
class HearingConfig:
    """How much is played.

    Attributes:
        soundscape: of the long recordings; two for every fold.
        cries_per_group: at most, to alter.
        probes: clips of each kind that must be refused.
        resamples: of the bootstrap.
    """

    soundscape: SoundscapeConfig = field(default_factory=SoundscapeConfig)
    cries_per_group: int = 3
    probes: int = 40
    resamples: int = 1000


@dataclass(frozen=True)
class Heard:
    """Documents by name (`BEHAVIOUR`, `LONG_RECORDINGS`), and why one could not be made."""

    documents: dict[str, Json]
    missing: dict[str, str]


@dataclass(frozen=True)
class Networks:
    """A network for each fold: the clips, where its weights lie, and the calibration it is judged with."""

    rows: pd.DataFrame
    root: Path
    folds: Folds
    files: tuple[CellFiles, ...]
    calibrations: tuple[SiteCalibration, ...]
    model: ModelConfig
    reasons: tuple[str, ...]
    name: str
    unlabelled: pd.DataFrame | None = None  # clips without a label, to be heard beside

    def load(self, fold: int) -> CryNet:
        """One of them, its adapters merged: they say the same, sooner."""
        net = self.files[fold].load_network(self.model, self.reasons)
        merge_adapters(net)
        return net

    def digest(self, fold: int) -> str:
        """Of its weights and calibration."""
        weights = digest_file(self.files[fold].network)
        return digest_json({"weights": weights, "calibration": self.calibrations[fold].to_dict()})


def fold_networks(world: World, manifest: Path, cells: Sequence[Cell], folder: Path) -> Networks:
    """The networks of an arm's folds.

    Args:
        world: that they were trained in.
        manifest: the table that it was made from.
        cells: one a fold, in the order of the folds.
        folder: of their results.

    Raises:
        DataError: one of them is not trained, or its network was not kept.
        ManifestError: the table cannot be read.
    """
    files = tuple(CellFiles.of(cell, world.digest, folder) for cell in cells)
    for cell, at in zip(cells, files, strict=True):
        if not at.complete(network=True):
            raise DataError(f"the network of {cell.arm.name}, fold {cell.fold} is not there: run again")
    scores = [at.load_scores() for at in files]
    loaded = load_manifest(manifest)
    return Networks(
        world.rows, loaded.root, world.folds, files, tuple(cross_fitted(scores, cell.fold) for cell in cells),
        world.model, world.reasons, name=f"{cells[0].arm.name}, {len(cells)} folds",
        unlabelled=unlabelled_rows(loaded.table, world.rows, world.folds),
    )  # fmt: skip


def cross_fitted(scores: Sequence[ClipScores], fold: int) -> SiteCalibration:
    """One calibration for all sites, from the clips as recorded of all folds but one.

    Args:
        scores: by fold, of each fold's own network.
        fold: the one that is left out.
    """
    rows = concat_scores([s.select((s.part != fold) & (s.view == 0)) for s in scores])
    together = replace(rows, site=np.full(len(rows), ""), part=np.zeros(len(rows), np.int8))
    return calibrate_site(together, site="")


def hear(
    networks: Networks,
    cfg: HearingConfig,
    cache: Path,
    command: str,
    on_done: Callable[[int, int, str], None] = lambda _done, _of, _what: None,
) -> Heard:
    """Play everything to the networks; what they said is kept in `cache`, and not asked again.

    As many processes as this one may use cores, one thread each; results do not depend on their number.

    Args:
        networks: of the folds.
        cfg: how much.
        cache: a folder.
        command: what makes these numbers, for the pages.
        on_done: told how many parts are done, of how many, and which.

    Raises:
        AudioError: a clip cannot be used.
        OutputError: the cache cannot be written.
    """
    folds = list(range(len(networks.files)))
    items = [None, *folds]  # the longest first
    documents: dict[str, Json] = {}
    missing: dict[str, str] = {}
    work = partial(_part, cfg=cfg, cache=cache, command=command)
    for done, (fold, made) in enumerate(in_processes(partial(_same, networks), work, items), start=1):
        name = BEHAVIOUR if fold is None else LONG_RECORDINGS
        if isinstance(made, str):
            missing[name] = made
        elif made is not None:
            documents[name] = made
        on_done(done, len(items), name if fold is None else f"{name}, fold {fold}")
    if LONG_RECORDINGS not in missing:
        try:
            documents[LONG_RECORDINGS] = _long_recordings(networks, cfg, cache, command)
        except DataError as err:
            missing[LONG_RECORDINGS] = str(err)
    return Heard(documents, missing)


def _same(networks: Networks) -> Networks:
    return networks


def _part(
    networks: Networks, fold: int | None, *, cfg: HearingConfig, cache: Path, command: str
) -> Json | str | None:
    """In a worker: behaviour's document, or a fold's tracks into the cache; or why the clips do not suffice."""
    try:
        with one_thread():
            if fold is None:
                return _behaviour(networks, cfg, cache, command)
            _tracks(networks, fold, cfg, cache)
            return None
    except DataError as err:
        return str(err)


def held_out_cries(networks: Networks, most: int) -> list[Cry]:
    """Cries of every fold, at most `most` of a group: which, the content's hash says.

    Raises:
        AudioError: a clip cannot be used.
    """
    limits = ReadLimits()
    rows = networks.rows.assign(fold=networks.folds)
    rows = rows[rows["role"] == "cry"].sort_values("sha256")
    chosen = rows[rows.groupby("group").cumcount() < most].sort_values("path")
    cries = [
        Cry(
            read_audio(networks.root / str(row.path), max_seconds=limits.max_clip_seconds, max_bytes=limits.max_file_bytes),
            group=str(row.group), judge=int(str(row.fold)),
        )
        for row in chosen.itertuples()
    ]  # fmt: skip
    return [cry for cry in cries if fits(cry.wave)]


def _behaviour(networks: Networks, cfg: HearingConfig, cache: Path, command: str) -> Json:
    digests = [networks.digest(fold) for fold in range(len(networks.files))]
    clips = sorted(networks.rows["sha256"])
    others = networks.unlabelled
    what = {
        "networks": digests, "clips": clips, "cfg": _asked(cfg),
        "unlabelled": [] if others is None else sorted(others["sha256"]),
    }  # fmt: skip
    path = cache / f"behaviour-{digest_json(what)[:12]}.json"
    if path.is_file():
        return {**json.loads(path.read_text()), "command": command}
    judges = [
        Judge(panel.of_network(networks.load(fold)), calibration)
        for fold, calibration in enumerate(networks.calibrations)
    ]
    document = behaviour_document(
        judges, cries=held_out_cries(networks, cfg.cries_per_group), probes=cfg.probes, resamples=cfg.resamples,
    )  # fmt: skip
    document["protocol"] += (
        " A cry is put to the network of its fold, which met nothing of its device; probes are dealt to the networks in turn. "
        "Calibrations are fitted on the out-of-fold scores of the other folds' clips."
    )
    if others is not None:
        document["unlabelled"] = unlabelled_document(judges, others, networks.root, cfg.resamples)
    document["name"] = networks.name
    document["cries"]["synthetic"] = bool(networks.rows["corpus"].str.startswith("synth").all())
    write_bytes(path, json.dumps(document, indent=1, allow_nan=False).encode())
    return {**document, "command": command}


def _asked(cfg: HearingConfig) -> Json:
    return {k: v for k, v in asdict(cfg).items() if k != "soundscape"}


def _tracks(networks: Networks, fold: int, cfg: HearingConfig, cache: Path) -> dict[Any, long_track.Track]:
    """A fold's tuning and test hours; logits are calibrated, so that those of several networks are on one scale."""
    calibration = networks.calibrations[fold]
    score: long_track.Scorer | None = None

    def calibrated(frames: npt.NDArray[np.float32]) -> npt.NDArray:
        nonlocal score
        score = score or long_track.of_network(networks.load(fold))  # not loaded where all was heard before
        return calibration.gate_log_odds(score(frames))

    return fold_tracks(
        networks.rows, networks.root, networks.folds, fold, calibrated, networks.digest(fold), cache,
        cfg=cfg.soundscape,
    )  # fmt: skip


def _long_recordings(networks: Networks, cfg: HearingConfig, cache: Path, command: str) -> Json:
    pairs = [_tracks(networks, fold, cfg, cache) for fold in range(len(networks.files))]
    document = long_recordings_document(
        [pair["tune"] for pair in pairs], [pair["test"] for pair in pairs], resamples=cfg.resamples, command=command,
    )  # fmt: skip
    document["name"] = networks.name
    return document
