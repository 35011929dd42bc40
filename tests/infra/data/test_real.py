"""The real clips: read, split and turned into frames as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from infra.data.features import FeatureConfig, extract_site, load_noise_bank
from infra.data.manifest import load_manifest, verify_hashes
from infra.data.splits import assign_folds, parts
from models.config import LogMelConfig
from models.frames import TEST, TRAIN, VAL

pytestmark = pytest.mark.real


def test_real_clips_are_split_without_leaks(real_data: Path) -> None:
    manifest = load_manifest(real_data / "manifest.csv")
    verify_hashes(manifest)
    table = manifest.table
    assert len(table) == 1000
    assert len(manifest.sites) == 8
    folds = assign_folds(table)
    named = table["fold"] >= 0
    sites = table["site"] != ""
    assert (folds[named & sites] == table["fold"][named & sites]).all(), "the pack's own folds are kept"
    rest = table["role"] != "noise"
    assert folds[rest].groupby(table["group"][rest]).nunique().max() == 1
    noise = ~rest
    assert folds[noise].groupby(table["label"][noise]).nunique().max() == 1
    part = parts(folds)
    for p in (TRAIN, VAL, TEST):
        assert set(table["role"][part == p]) >= {"cry", "ood_noncry", "noise"}


def test_real_clips_become_frames(real_data: Path) -> None:
    manifest = load_manifest(real_data / "manifest.csv")
    part = parts(assign_folds(manifest.table))
    bank = load_noise_bank(manifest.table, manifest.root, part)
    rows = manifest.table["site"] == "site05"
    cfg = FeatureConfig(train_views=1, test_snrs=(0.0,))
    made = extract_site(
        manifest.table[rows], manifest.root, bank, part[rows], manifest.reasons, LogMelConfig(), cfg=cfg
    )
    assert len(made.gate) == (rows & (manifest.table["role"] != "unlabelled")).sum()
    assert set(made.view.tolist()) == {0, 1}
    assert np.isfinite(made.log_mel).all()
    assert set(np.bincount(made.clip) > 0) == {True}
