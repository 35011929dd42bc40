"""Cells: what they are filed under, and what reaches the batches that they learn from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from infra.evidence import cells as c
from infra.evidence.arms import CENTRAL, FEDERATED, FULL, QUICK
from infra.evidence.cells import Cell, run_cell
from infra.evidence.folds import evidence_folds, fold_parts
from infra.evidence.frames import EvidenceFrames
from models.config import preset
from models.frames import TEST, TRAIN, SiteFrames
from models.gate_batches import AugmentConfig, GateBatches
from models.network import CryNet
from tests.infra.evidence.corpora import table

AUGMENT = AugmentConfig(mask_rows=2, mask_steps=2, clean_share=0.0, own_share=0.4)
NAN = np.float16(np.nan)


def changed(cell: Cell, **training: Any) -> Cell:
    return replace(cell, arm=replace(cell.arm, training=replace(cell.arm.training, **training)))


def test_a_cell_is_filed_under_what_it_depends_on() -> None:
    cell = Cell(CENTRAL, 1, 2)
    others = [
        replace(cell, fold=0), replace(cell, seed=3), replace(cell, without="rain"),
        replace(cell, arm=replace(CENTRAL, base="plain")), replace(cell, arm=replace(CENTRAL, federated=True)),
        replace(cell, arm=replace(CENTRAL, augment=AugmentConfig(snr_low=0.0))),
        changed(cell, lr=0.5), changed(cell, steps=7),
    ]  # fmt: skip
    keys = [one.key("world") for one in (cell, *others)] + [cell.key("another world")]
    assert len(set(keys)) == len(keys)
    assert cell.key("world").startswith("central-fold1-seed2-")


def test_and_under_nothing_else() -> None:
    central, federated = Cell(CENTRAL, 1, 2), Cell(FEDERATED, 1, 2)
    assert replace(central, arm=replace(CENTRAL, title="another")).key("w") == central.key("w")
    assert changed(central, rounds=9, local_steps=9, local_batch_size=9).key("w") == central.key("w")
    assert changed(federated, steps=9, batch_size=9).key("w") == federated.key("w")
    assert changed(federated, rounds=9).key("w") != federated.key("w")


@pytest.mark.parametrize("plan", [FULL, QUICK])
def test_no_two_cells_of_a_plan_are_filed_in_one_place(plan) -> None:
    cells = plan.everything(["wind", "rain"])
    folds = sum(len(plan.seeds_of(arm)) for arm in (*plan.arms, *plan.once)) * plan.folds
    assert len(cells) == folds + 2 * len(plan.leave_out)
    assert len({cell.key("w") for cell in cells}) == len(cells)
    assert all(cell.arm.federated and cell.seed == plan.seeds[0] for cell in plan.kept)
    assert [cell.fold for cell in plan.kept] == list(range(plan.folds))


class Learned(Exception):
    """Raised in place of training, with what would have been learned from."""


def made_up(rows: pd.DataFrame, poisoned: np.ndarray) -> EvidenceFrames:
    """Two frames a clip; those of poisoned rows are not a number, which no arithmetic gets rid of."""
    out = {}
    for name, own in rows.groupby("site", sort=True):
        n = len(own)
        mel = np.random.default_rng(n).normal(-5.0, 1.0, (2 * n, 8, 10)).astype(np.float16)
        mel[np.repeat(poisoned[own.index], 2)] = NAN
        out[str(name)] = SiteFrames(
            site=str(name), reasons=("hungry", "tired"), log_mel=mel, clip=np.repeat(np.arange(n, dtype=np.int32), 2),
            view=np.zeros(2 * n, np.int16), snr_db=np.full(2 * n, np.nan, np.float32),
            gate=(own["role"] == "cry").to_numpy(np.int8), reason=np.full(n, -1, np.int16), part=np.full(n, TRAIN, np.int8),
            group=own["group"].to_numpy(str), clip_id=own["sha256"].str[:16].to_numpy(str), label=own["label"].to_numpy(str),
        )  # fmt: skip
    return EvidenceFrames(out, out)


def batches_of(
    monkeypatch: pytest.MonkeyPatch,
    cell: Cell,
    rows: pd.DataFrame,
    poisoned: np.ndarray,
    *,
    calls: bool = False,
) -> dict[str, GateBatches]:
    """What the cell would train on, by site; "" where all is in one place. `calls`: poisoned ones stand beside the frames."""

    def taken(_net: CryNet, batches: Any, *_: Any) -> None:
        raise Learned(batches if isinstance(batches, dict) else {"": batches})

    monkeypatch.setattr(c, "train_gate", taken)
    monkeypatch.setattr(c, "train_gate_federated", taken)
    net = CryNet(preset("tiny"), ("hungry", "tired"), seed=0)
    frames = made_up(rows, poisoned)
    if calls:
        public = frames.learn[""]
        frames = replace(frames, calls=replace(public, log_mel=np.full_like(public.log_mel, NAN)))
    with pytest.raises(Learned) as caught:
        run_cell(cell, net, frames, rows, evidence_folds(rows, 3))
    return dict(caught.value.args[0])


def clean(batches: GateBatches) -> bool:
    """Whether nothing poisoned was drawn, neither to learn from nor as noise mixed into it, in 30 batches of 32 clips."""
    rng = np.random.default_rng(0)
    drawn = [batches.draw(rng, 32) for _ in range(30)]
    return all(bool(b.x.isfinite().all() and b.clean.isfinite().all()) for b in drawn)


FED = Cell(replace(FEDERATED, augment=AUGMENT), 1, 1)
ALL = Cell(replace(CENTRAL, augment=AUGMENT), 1, 1)


def test_no_other_site_s_clip_reaches_a_site_s_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = table()
    for name in ("site0", "site1", "site2"):
        others = ~rows["site"].isin(["", name]).to_numpy()
        batches = batches_of(monkeypatch, FED, rows, others)
        assert set(batches) == {"site0", "site1", "site2"}
        assert [site for site, b in batches.items() if clean(b)] == [name]


def test_public_noise_reaches_every_site(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = table()
    public = (rows["site"] == "").to_numpy()
    assert not any(clean(b) for b in batches_of(monkeypatch, FED, rows, public).values())


def test_in_one_place_every_site_s_clips_are_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = table()
    for name in ("site0", "site1", "site2"):
        (batches,) = batches_of(monkeypatch, ALL, rows, (rows["site"] == name).to_numpy()).values()
        assert not clean(batches)


@pytest.mark.parametrize("cell", [FED, ALL, replace(ALL, without="class2"), replace(FED, without="class2")])
def test_the_judged_clips_are_never_learned_from(monkeypatch: pytest.MonkeyPatch, cell: Cell) -> None:
    rows = table()
    folds = evidence_folds(rows, 3)
    judged = fold_parts(rows, folds, cell.fold, cell.without) == TEST
    assert all(clean(b) for b in batches_of(monkeypatch, cell, rows, judged).values())
    # and the rest is: were a fold of the others poisoned, it would be noticed
    assert not any(clean(b) for b in batches_of(monkeypatch, cell, rows, folds == 2).values())


@pytest.mark.parametrize("cell", [FED, ALL])
def test_calls_are_learned_from_unless_the_arm_leaves_them_out(
    monkeypatch: pytest.MonkeyPatch, cell: Cell
) -> None:
    rows = table()
    nothing = np.zeros(len(rows), bool)
    assert not any(clean(b) for b in batches_of(monkeypatch, cell, rows, nothing, calls=True).values())
    without = replace(cell, arm=replace(cell.arm, calls=False))
    assert all(clean(b) for b in batches_of(monkeypatch, without, rows, nothing, calls=True).values())


def test_only_the_judged_clips_are_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, seen = table(), []
    folds = evidence_folds(rows, 3)

    class Scored(Exception):
        pass

    def note(_net: CryNet, site: SiteFrames, **_: Any) -> None:
        seen.extend(site.clip_id[site.clip].tolist())
        if site.site == "site2":
            raise Scored

    monkeypatch.setattr(c, "train_gate", lambda *_: None)
    monkeypatch.setattr(c, "predict", note)
    net = CryNet(preset("tiny"), ("hungry", "tired"), seed=0)
    with pytest.raises(Scored):
        run_cell(ALL, net, made_up(rows, np.zeros(len(rows), bool)), rows, folds)
    assert set(seen) == set(rows["sha256"].str[:16][folds == 1])
