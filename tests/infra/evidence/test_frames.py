"""Frames: what noise a clip is rendered with, which views there are, and what they depend on."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from infra.evidence import frames as f
from infra.evidence.folds import Folds, evidence_folds, judged
from infra.evidence.frames import SNRS, EvidenceFrames, evidence_frames, public_view, site_view
from models.config import SAMPLE_RATE, preset
from models.errors import DataError
from tests.infra.evidence.corpora import hash_of, table

MEL = preset("tiny").log_mel
N = round(1.6 * SAMPLE_RATE)


@cache
def wave_of(path: str) -> np.ndarray:
    """Noise with a sound of its own for every path."""
    return (0.1 * np.random.default_rng(hash_of(path)).standard_normal(N)).astype(np.float32)


def name_of(wave: np.ndarray, rows: pd.DataFrame) -> int:
    """Whose sound a wave is, however it was turned round."""
    sums = np.array([sum_of(wave_of(p)) for p in rows["path"]])
    return int(np.argmin(np.abs(sums - sum_of(wave))))


def sum_of(wave: np.ndarray) -> float:
    return float(np.abs(wave).sum(dtype=np.float64))


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """A table whose sounds are made up when they are read."""
    root = Path("nowhere")
    monkeypatch.setattr(f, "read_audio", lambda path, **_: wave_of(str(Path(path).relative_to(root))))
    return table(sites=2, devices=4, classes=3, of_each=4)


def render(rows: pd.DataFrame, folds: Folds) -> EvidenceFrames:
    return evidence_frames(rows, Path("nowhere"), folds, ("hungry", "tired"), MEL)


def test_noise_is_of_the_clip_s_fold_and_of_another_group(
    rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    folds = evidence_folds(rows, 2)
    mixed: list[tuple[int, int, float]] = []
    real = f.mix_at_snr

    def heard(wave: np.ndarray, noise: np.ndarray, snr: float) -> np.ndarray:
        mixed.append((name_of(wave, rows), name_of(noise, rows), snr))
        return real(wave, noise, snr)

    monkeypatch.setattr(f, "mix_at_snr", heard)
    render(rows, folds)
    assert len(mixed) == len(rows) * 2 * len(SNRS)
    for clip, noise, _ in mixed:
        assert folds[clip] == folds[noise]
        assert rows["group"][clip] != rows["group"][noise]
        if rows["role"][noise] == "noise":
            assert rows["label"][clip] != rows["label"][noise]
        else:
            assert rows["role"][noise] == "ood_noncry"
    assert len({noise for _, noise, _ in mixed}) > 8  # drawn, not always the same one
    for k in range(len(rows)):
        kinds = [(rows["role"][noise], snr) for clip, noise, snr in mixed if clip == k]
        assert kinds == [(role, snr) for role in ("noise", "ood_noncry") for snr in SNRS]


def test_views_and_what_clips_are_called(rows: pd.DataFrame) -> None:
    made = render(rows, evidence_folds(rows, 2))
    assert set(made.learn) == set(made.judge) == {"", "site0", "site1"}
    for site, judge in made.judge.items():
        own = rows[rows["site"] == site]
        assert judge.clip_id.tolist() == [sha[:16] for sha in own["sha256"]]
        assert judge.group.tolist() == own["group"].tolist()
        np.testing.assert_array_equal(judge.gate, (own["role"] == "cry").astype(int))
        assert {(c, v) for c, v in zip(judge.clip.tolist(), judge.view.tolist(), strict=True)} == {
            (c, v) for c in range(len(own)) for v in range(1 + 2 * len(SNRS))
        }
        for snr in SNRS:
            for view in (public_view(snr), site_view(snr)):
                assert set(judge.snr_db[judge.view == view].tolist()) == {snr}
        assert np.isnan(judge.snr_db[judge.view == 0]).all()
        assert set(made.learn[site].view.tolist()) == {0}
    reasons = made.judge["site0"]
    assert set(reasons.reason[reasons.gate == 1].tolist()) == {0, 1}
    assert set(reasons.reason[reasons.gate == 0].tolist()) == {-1}
    assert len(made.learn["site0"].clip) > len(made.judge["site0"].select(reasons.view == 0).clip)


def test_the_same_rows_give_the_same_frames_in_whatever_order_the_manifest_has_them(
    rows: pd.DataFrame,
) -> None:
    shuffled = judged(rows.sample(frac=1.0, random_state=4))
    once, again = (render(r, evidence_folds(r, 2)) for r in (rows, shuffled))
    for kind in ("learn", "judge"):
        for site, one in getattr(once, kind).items():
            other = getattr(again, kind)[site]
            np.testing.assert_array_equal(one.log_mel, other.log_mel)
            np.testing.assert_array_equal(one.clip_id[one.clip], other.clip_id[other.clip])


def test_a_fold_without_noise_is_refused_and_one_without_uploads_has_no_such_view(rows: pd.DataFrame) -> None:
    folds = evidence_folds(rows, 2)
    public = (rows["role"] == "noise").to_numpy()
    with pytest.raises(DataError, match="fold 1 holds no public noise"):
        render(rows, np.where(public, 0, folds).astype(np.int8))
    bare = judged(rows[rows["role"] != "ood_noncry"])
    made = render(bare, evidence_folds(bare, 2))
    assert max(int(s.view.max()) for s in made.judge.values()) == len(SNRS)


def test_silent_noise_is_never_mixed_in(rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = set(rows["path"][rows["label"] == "class0"])
    monkeypatch.setattr(
        f,
        "read_audio",
        lambda path, **_: (
            wave_of(p) * (p not in silent) if (p := str(Path(path).relative_to("nowhere"))) else None
        ),
    )
    noises: list[np.ndarray] = []
    real = f.mix_at_snr
    monkeypatch.setattr(f, "mix_at_snr", lambda w, n, s: (noises.append(n), real(w, n, s))[1])
    render(rows, evidence_folds(rows, 2))
    assert all(n.any() for n in noises)
