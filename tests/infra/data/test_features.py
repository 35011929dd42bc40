"""Features: views, noise by part, independence of other rows, and files that come back as they went."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from infra.data.features import (
    FeatureConfig,
    NoiseBank,
    extract_site,
    load_frames,
    load_noise_bank,
    save_frames,
)
from infra.data.manifest import Manifest, load_manifest
from infra.data.pretraining import load_attributes, pretraining_set
from infra.data.splits import assign_folds, parts
from infra.data.synth.config import SynthConfig
from infra.data.synth.corpus import synthesise
from infra.data.synth.prosody import ATTRIBUTES
from infra.digest import digest_file
from models.config import LogMelConfig
from models.errors import ConfigError, DataError, ManifestError, OutputError
from models.frames import TEST, TRAIN, VAL, SiteFrames
from models.log_mel import LogMel
from models.segmentation import frames

MEL = LogMelConfig()
SMALL = SynthConfig(sites=2, infants_per_site=5, cries_per_infant=1, noncries_per_site=6, public_noise=10)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return load_manifest(synthesise(SMALL, tmp_path_factory.mktemp("synth")))


@pytest.fixture(scope="module")
def part(manifest: Manifest) -> pd.Series:
    return parts(assign_folds(manifest.table))


@pytest.fixture(scope="module")
def bank(manifest: Manifest, part: pd.Series) -> NoiseBank:
    return load_noise_bank(manifest.table, manifest.root, part)


def extract(
    manifest: Manifest, part: pd.Series, bank: NoiseBank, rows: pd.Series, cfg: FeatureConfig | None = None
) -> SiteFrames:
    return extract_site(manifest.table[rows], manifest.root, bank, part[rows], manifest.reasons, MEL, cfg=cfg)


@pytest.fixture(scope="module")
def site(manifest: Manifest, part: pd.Series, bank: NoiseBank) -> SiteFrames:
    return extract(manifest, part, bank, manifest.table["site"] == "site-0")


def test_views_are_as_configured(site: SiteFrames) -> None:
    cfg = FeatureConfig()
    for i, where in enumerate(site.part):
        of_clip = site.clip == i
        views = {
            int(v): set(site.snr_db[of_clip & (site.view == v)].tolist())
            for v in np.unique(site.view[of_clip])
        }
        assert np.isnan(list(views.pop(0))).all()
        assert all(len(snr) == 1 for snr in views.values())
        snrs = [snr.pop() for snr in views.values()]
        if where == TRAIN:
            assert list(views) == [1, 2, 3]
            assert all(-5 <= snr <= 20 for snr in snrs)
        else:
            assert snrs == list(cfg.test_snrs)


def test_clips_carry_their_truth(manifest: Manifest, site: SiteFrames) -> None:
    table = manifest.table[manifest.table["site"] == "site-0"].sort_values("path")
    assert site.label.tolist() == table["label"].tolist()
    assert site.group.tolist() == table["group"].tolist()
    assert site.clip_id.tolist() == [s[:16] for s in table["sha256"]]
    assert ((site.gate == 1) == (table["role"] == "cry").to_numpy()).all()
    named = [manifest.reasons[r] if r >= 0 else None for r in site.reason]
    assert named == [
        lab if role == "cry" else None for lab, role in zip(table["label"], table["role"], strict=True)
    ]
    assert site.log_mel.dtype == np.float16
    assert site.log_mel.shape[1:] == (64, 98)
    assert np.isfinite(site.log_mel).all()


def test_view_0_is_the_clip_as_the_device_hears_it(manifest: Manifest, site: SiteFrames) -> None:
    from infra.data.audio import read_audio

    path = manifest.table[manifest.table["site"] == "site-0"].sort_values("path")["path"].iloc[3]
    wave = read_audio(manifest.root / path, max_seconds=10, max_bytes=10**6)
    with torch.inference_mode():
        heard = LogMel(MEL)(torch.from_numpy(frames(wave))).numpy()
    np.testing.assert_allclose(site.log_mel[(site.clip == 3) & (site.view == 0)], heard, atol=5e-3)


def test_a_clips_frames_depend_on_no_other_row(
    manifest: Manifest, part: pd.Series, bank: NoiseBank, site: SiteFrames
) -> None:
    rows = (
        manifest.table["path"]
        == manifest.table[manifest.table["site"] == "site-0"].sort_values("path")["path"].iloc[5]
    )
    alone = extract(manifest, part, bank, rows)
    mine = site.clip == 5
    np.testing.assert_array_equal(alone.view, site.view[mine])
    np.testing.assert_allclose(alone.log_mel, site.log_mel[mine])


def test_noise_of_one_part_is_heard_in_no_other(manifest: Manifest, part: pd.Series, bank: NoiseBank) -> None:
    noise = manifest.table["role"] == "noise"
    kinds = [set(manifest.table["label"][noise & (part == p)]) for p in (TRAIN, VAL, TEST)]
    assert not kinds[0] & kinds[1]
    assert not kinds[0] & kinds[2]
    assert not kinds[1] & kinds[2]
    assert {p: len(w) for p, w in bank.waves.items()} == {TRAIN: 6, VAL: 2, TEST: 2}
    # only the test part's noise is changed: only test clips' noisy views change
    loud = NoiseBank({**bank.waves, TEST: tuple(w[::-1].copy() for w in bank.waves[TEST])})
    rows = manifest.table["site"] == "site-1"
    one, two = (extract(manifest, part, b, rows) for b in (bank, loud))
    differ = np.zeros(len(one.part), bool)
    for i in range(len(one.part)):
        for view in range(1, 6):
            a, b = (f.log_mel[(f.clip == i) & (f.view == view)] for f in (one, two))
            differ[i] |= a.shape != b.shape or bool((a != b).any())
    assert (differ == (one.part == TEST)).all()


def test_public_audio_and_parts_without_noise_have_clean_views_alone(
    manifest: Manifest, part: pd.Series, bank: NoiseBank
) -> None:
    public = extract(manifest, part, bank, manifest.table["site"] == "")
    assert public.site == ""
    assert set(public.view.tolist()) == {0}
    quiet = extract(manifest, part, NoiseBank({}), manifest.table["site"] == "site-0")
    assert set(quiet.view[np.isin(quiet.clip, np.flatnonzero(quiet.part != TRAIN))].tolist()) == {0}
    assert np.isnan(quiet.snr_db).all()


def test_long_clips_are_thinned_evenly(manifest: Manifest, part: pd.Series, bank: NoiseBank) -> None:
    rows = manifest.table["site"] == "site-0"
    few = extract(
        manifest, part, bank, rows, FeatureConfig(train_views=0, test_snrs=(), max_frames_per_clip=2)
    )
    assert np.bincount(few.clip).max() == 2
    assert set(few.view.tolist()) == {0}


def test_unlabelled_clips_are_left_out(manifest: Manifest, part: pd.Series, bank: NoiseBank) -> None:
    rows = manifest.table["site"] == "site-0"
    table = manifest.table[rows].copy()
    table.loc[table.index[:4], "role"] = "unlabelled"
    made = extract_site(
        table, manifest.root, bank, part[rows], manifest.reasons, MEL, cfg=FeatureConfig(train_views=0)
    )
    assert len(made.gate) == len(table) - 4
    with pytest.raises(ManifestError, match="no clip with a gate label"):
        extract_site(table.assign(role="unlabelled"), manifest.root, bank, part[rows], manifest.reasons, MEL)
    with pytest.raises(ManifestError, match="rows of 3"):
        extract_site(manifest.table, manifest.root, bank, part, manifest.reasons, MEL)


def test_file_round_trip_is_exact_and_byte_stable(site: SiteFrames, tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_frames(site, tmp_path / name)
    assert digest_file(tmp_path / "a") == digest_file(tmp_path / "b")
    again = load_frames(tmp_path / "a")
    for f in fields(SiteFrames):
        before, after = getattr(site, f.name), getattr(again, f.name)
        if isinstance(before, np.ndarray):
            np.testing.assert_array_equal(after, before)
            assert after.dtype == before.dtype
        else:
            assert after == before


def test_damaged_files_are_refused(site: SiteFrames, tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    with pytest.raises(DataError, match="cannot be read"):
        load_frames(path)
    save_frames(site, path)
    data = path.read_bytes()
    path.write_bytes(data[:-100])
    with pytest.raises(DataError, match="cannot be read"):
        load_frames(path)
    path.write_bytes(data.replace(b"cryfed.frames", b"sombody.frames"[:13]))
    with pytest.raises(DataError, match="no features of this version"):
        load_frames(path)
    with pytest.raises(OutputError):
        save_frames(site, path / "below" / "a.file")


@pytest.mark.parametrize(
    "wrong",
    [
        {"train_views": -1},
        {"max_frames_per_clip": 0},
        {"snr_range": (5.0, 0.0)},
        {"gain_range": (0.0, 999.0)},
    ],
)
def test_settings_out_of_order_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        FeatureConfig(**wrong)  # type: ignore[arg-type]


def test_pretraining_set_joins_frames_and_truth(bank: NoiseBank, tmp_path: Path) -> None:
    pool = load_manifest(synthesise(SMALL, tmp_path, "public"))
    data = pretraining_set(pool, bank, MEL)
    n = len(data.log_mel)
    assert data.log_mel.shape == (n, 64, 98)
    assert data.attributes.shape == (n, len(ATTRIBUTES))
    assert (np.isfinite(data.attributes).all(axis=1) == (data.gate == 1)).all()
    assert 0.3 < data.gate.mean() < 0.9
    assert len(data.noise) > 6
    truth = load_attributes(tmp_path / "attributes.csv")
    assert {tuple(r) for r in data.attributes[data.gate == 1].tolist()} == {
        tuple(r) for r in truth.to_numpy(np.float32).tolist()
    }
    with pytest.raises(ManifestError, match="no public noise in the training part"):
        pretraining_set(pool, NoiseBank({}), MEL)
    (tmp_path / "attributes.csv").write_text("path,slope\n")
    with pytest.raises(ManifestError, match="another version"):
        pretraining_set(pool, bank, MEL)
