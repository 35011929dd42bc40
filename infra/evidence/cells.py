"""Cells of the evidence: one training each, whose result is the scores of the clips it never met.

An *arm* is a way to train; a cell is an arm, a fold and a seed, or an arm and a class of public noise that is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import numpy as np
import pandas as pd

from infra.digest import digest_json
from infra.evidence.folds import Folds, fold_parts
from infra.evidence.frames import EvidenceFrames
from models.adapters import adapters_off
from models.frames import TEST, SiteFrames, concat_frames
from models.gate_batches import AugmentConfig, GateBatches
from models.gate_step import GateConfig
from models.gate_training import GATE_CODEC, GATE_SERVER, OnStep, train_gate, train_gate_federated
from models.network import CryNet
from models.predict import ClipScores, concat_scores, predict

Json = dict[str, Any]

_CENTRAL_ALONE: Final = ("steps", "batch_size")
_FEDERATED_ALONE: Final = ("rounds", "local_steps", "local_batch_size")


@dataclass(frozen=True)
class Arm:
    """A way to train the gate.

    Attributes:
        name: what its cells are filed under.
        title: what a page calls it.
        base: which pretrained network it begins from.
        federated: over the sites, or all frames in one place.
        calls: with synthetic calls among the non-cries.
        training, augment: how.
    """

    name: str
    title: str
    base: str = "denoising"
    federated: bool = False
    calls: bool = True
    training: GateConfig = field(default_factory=GateConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)


@dataclass(frozen=True)
class Cell:
    """One training; `without` names a class of public noise that is left out of it."""

    arm: Arm
    fold: int
    seed: int
    without: str = ""

    def key(self, world: str) -> str:
        """What its scores are filed under; `world` is the digest of data and base networks."""
        what = asdict(self)
        del what["arm"]["title"]
        if self.arm.federated:
            what["server"], what["codec"] = asdict(GATE_SERVER), asdict(GATE_CODEC)
        for name in _CENTRAL_ALONE if self.arm.federated else _FEDERATED_ALONE:
            del what["arm"]["training"][name]  # says nothing about this cell
        name = f"{self.arm.name}-{self.without or f'fold{self.fold}'}-seed{self.seed}"
        return f"{name}-{digest_json({'cell': what, 'world': world})[:12]}"


def run_cell(
    cell: Cell,
    net: CryNet,
    frames: EvidenceFrames,
    rows: pd.DataFrame,
    folds: Folds,
    on_step: OnStep | None = None,
) -> ClipScores:
    """Train from `net` (in place) and score the clips that were left out; `part` of the scores is the fold.

    A site's non-cries and cries stay at the site where the arm is federated; public noise is everywhere.
    """
    parts = fold_parts(rows, folds, cell.fold, cell.without)
    learn = _with_parts(frames.learn, rows, parts)
    sites = {name: site for name, site in learn.items() if name}
    mel, augment = net.cfg.log_mel, cell.arm.augment
    others = learn[""]
    if frames.calls is not None and cell.arm.calls:
        others = concat_frames([others, frames.calls])
    if cell.arm.federated:
        batches = {name: GateBatches([site], others, mel, augment) for name, site in sites.items()}
        train_gate_federated(net, batches, cell.arm.training, cell.seed, on_step)
    else:
        pooled = GateBatches(list(sites.values()), others, mel, augment)
        train_gate(net, pooled, cell.arm.training, cell.seed, on_step)
    with adapters_off(net):  # they did not learn, and cost a fifth of the time
        judged = [
            predict(net, site.select(site.part[site.clip] == TEST))
            for site in _with_parts(frames.judge, rows, parts).values()
            if (site.part == TEST).any()
        ]
    scores = concat_scores(judged)
    return replace(scores, part=np.full(len(scores), cell.fold, np.int8))


def _with_parts(
    frames: Mapping[str, SiteFrames], rows: pd.DataFrame, parts: np.ndarray
) -> dict[str, SiteFrames]:
    return {
        name: replace(site, part=parts[(rows["site"] == name).to_numpy()]) for name, site in frames.items()
    }
