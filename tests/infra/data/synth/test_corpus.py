"""The synthesiser: frozen, seeded, complete, and of the difficulty it claims."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from infra.data.synth.config import (
    BAND_HZ,
    NON_CRIES,
    PUBLIC_NOISE,
    REASONS,
    SAMPLE_RATE,
    SYNTH_VERSION,
    SynthConfig,
)
from infra.data.synth.corpus import synthesise, synthesise_site
from infra.data.synth.prosody import ATTRIBUTES
from infra.digest import digest_bytes
from models.audio_ops import torchaudio
from models.errors import ConfigError, OutputError

SMALL = SynthConfig(sites=2, infants_per_site=3, cries_per_infant=2, noncries_per_site=6, public_noise=10)
GOLDEN = {
    "federation": "fbb588648cf1e71328ed6d9e55aafefc3c460609edc785d012173afc13063e8f",
    "public": "59f5bbf5547fdfb0ac4659b3a6a0bc824771e9259711917431fcf01b4d90a3d5",
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesise(SMALL, tmp_path_factory.mktemp("synth"))


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesise(SMALL, tmp_path_factory.mktemp("pool"), "public")


def _corpus_digest(manifest: Path) -> str:
    """The manifest holds every file's sha256, so its bytes stand for the corpus; so do the attributes' bytes."""
    return digest_bytes(manifest.read_bytes() + (manifest.parent / "attributes.csv").read_bytes())


def test_frozen(small: Path, pool: Path) -> None:
    """If this fails the output has changed: raise SYNTH_VERSION, repeat the difficulty check, retune nothing on it."""
    assert SYNTH_VERSION == "1"
    assert _corpus_digest(small) == GOLDEN["federation"]
    assert _corpus_digest(pool) == GOLDEN["public"]


def test_sites_are_independent_of_order_and_of_each_other(small: Path, tmp_path: Path) -> None:
    alone = {row["path"]: row["sha256"] for row in synthesise_site(SMALL, 1, tmp_path)}
    table = pd.read_csv(small)
    together = dict(zip(table.path, table.sha256, strict=True))
    assert alone
    assert all(together[path] == sha for path, sha in alone.items())


def test_manifest_is_complete(small: Path) -> None:
    table = pd.read_csv(small, keep_default_na=False)
    cries = table[table.role == "cry"]
    assert set(cries.label) == set(REASONS)
    assert set(table[table.role == "ood_noncry"].label) == set(NON_CRIES)
    assert set(table[table.role == "noise"].label) == set(PUBLIC_NOISE)
    assert (table[table.role == "noise"].site == "").all()
    assert (table[table.role != "noise"].site != "").all()
    assert table.sha256.is_unique
    assert table.groupby("group").site.nunique().max() == 1
    for path, sha in zip(table.path, table.sha256, strict=True):
        assert digest_bytes((small.parent / path).read_bytes()) == sha


def test_audio_is_sound_and_band_limited(small: Path) -> None:
    for path in sorted(small.parent.rglob("*.wav")):
        wave, rate = soundfile.read(path, dtype="float64")
        assert rate == SAMPLE_RATE
        assert wave.shape == (round(SMALL.clip_seconds * SAMPLE_RATE),)
        assert 1e-4 < np.abs(wave).max() <= 0.975
        power = np.abs(np.fft.rfft(wave)) ** 2
        above = np.fft.rfftfreq(len(wave), 1 / rate) > BAND_HZ + 50
        assert power[above].sum() < 1e-3 * power.sum()


def test_public_pool_shares_nothing_with_the_federation(small: Path, pool: Path) -> None:
    ours, theirs = pd.read_csv(small), pd.read_csv(pool)
    assert not set(ours.sha256) & set(theirs.sha256)
    assert not set(ours.group[ours.role == "cry"]) & set(theirs.group[theirs.role == "cry"])
    assert set(theirs.label[theirs.role == "cry"]) == {"cry"}, "the pool must not hold reasons"


def test_attributes_are_the_truth_of_every_cry(small: Path) -> None:
    table = pd.read_csv(small)
    truth = pd.read_csv(small.parent / "attributes.csv").set_index("path")
    assert list(truth.columns) == list(ATTRIBUTES)
    assert set(truth.index) == set(table.path[table.role == "cry"])
    assert truth.notna().all().all()
    cries = table[table.role == "cry"].set_index("path")
    mean = truth.groupby(cries.label.reindex(truth.index)).mean()
    assert mean.slope["discomfort"] > 2 > -2 > mean.slope["tired"]
    assert mean.curvature["hungry"] > 2 > -2 > mean.curvature["burping"]
    assert mean.tremor_depth.idxmax() == "belly_pain"


def test_seed_and_difficulty_matter(tmp_path: Path, small: Path) -> None:
    first = pd.read_csv(small).sha256[0]
    for i, other in enumerate((replace(SMALL, seed=1), replace(SMALL, difficulty=0.5))):
        one = replace(
            other, sites=1, infants_per_site=1, cries_per_infant=1, noncries_per_site=0, public_noise=0
        )
        assert first not in set(pd.read_csv(synthesise(one, tmp_path / str(i))).sha256)


@pytest.mark.parametrize(
    "wrong", [{"sites": 0}, {"difficulty": -1.0}, {"clip_seconds": 0.0}, {"difficulty": float("nan")}]
)
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        SynthConfig(**wrong)


def test_unwritable_output_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write"):
        synthesise(SMALL, tmp_path / "file" / "corpus")


@pytest.mark.slow
def test_default_difficulty_lies_in_its_band(tmp_path: Path) -> None:
    """Logistic regression on clip statistics of MFCC: .55 to .75 macro-F1, grouped by infant; on averages alone, chance."""
    manifest = synthesise(SynthConfig(noncries_per_site=0, public_noise=0), tmp_path)
    table = pd.read_csv(manifest)
    mfcc = torchaudio.transforms.MFCC(
        SAMPLE_RATE,
        20,
        melkwargs={"n_fft": 512, "win_length": 400, "hop_length": 160, "n_mels": 64, "f_max": 4000.0},
    )
    rows = []
    for path in table.path:
        c = mfcc(torch.from_numpy(soundfile.read(tmp_path / path, dtype="float32")[0]))
        d = torchaudio.functional.compute_deltas(c)
        rows.append(torch.cat([c.mean(-1), c.std(-1), d.mean(-1), d.std(-1)]).numpy())
    X, y = np.stack(rows), table.label.to_numpy(str)

    def macro_f1(features: np.ndarray) -> float:
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        guess = cross_val_predict(model, features, y, groups=table.group, cv=GroupKFold(5))
        return float(f1_score(y, guess, average="macro"))

    assert 0.55 <= macro_f1(X) <= 0.75
    assert macro_f1(X[:, :20]) < 0.30  # five reasons: chance is 0.2
