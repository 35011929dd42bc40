"""Folds: every clip is judged once, by a network that met nothing of its group, and every fold hears every class of noise."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from infra.evidence.folds import evidence_folds, fold_parts, is_public, judged
from models.errors import ConfigError, ManifestError
from models.frames import TEST, TRAIN
from tests.infra.evidence.corpora import table


def by_path(rows: pd.DataFrame, **options: int) -> dict[str, int]:
    return dict(zip(rows["path"], evidence_folds(rows, **options).tolist(), strict=True))


@pytest.mark.parametrize("n", [2, 3, 5])
def test_no_group_is_in_two_folds_and_every_fold_has_every_class_of_noise(n: int) -> None:
    rows = table()
    folds = evidence_folds(rows, n)
    assert set(folds.tolist()) == set(range(n))
    assert rows.assign(fold=folds).groupby("group")["fold"].nunique().max() == 1
    public = rows.assign(fold=folds)[is_public(rows)]
    assert (public.groupby("label")["fold"].nunique() == n).all()
    # dealt in turn: of 7 recordings of a class no fold has more than one above another
    sizes = public.groupby(["label", "fold"]).size().unstack()
    assert (sizes.max(axis=1) - sizes.min(axis=1)).max() <= 1
    assert all((rows["role"][folds == f] == "cry").any() for f in range(n))


def test_a_recording_cut_into_clips_of_two_classes_stays_whole() -> None:
    rows = table(of_each=6)
    rows.loc[rows["group"] == "recording3-2", "group"] = "recording1-4"
    folds = evidence_folds(rows, 5)
    assert len(set(folds[rows["group"] == "recording1-4"].tolist())) == 1
    assert rows["label"][rows["group"] == "recording1-4"].nunique() == 2


def test_the_order_of_a_manifest_has_no_say_but_the_seed_has() -> None:
    rows = table()
    shuffled = judged(rows.sample(frac=1.0, random_state=1))
    assert by_path(shuffled) == by_path(rows)
    assert by_path(rows, seed=1) != by_path(rows)


def test_a_site_has_no_say_in_the_folds_of_another() -> None:
    rows = table()
    without = judged(rows[rows["site"] != "site2"])
    kept = by_path(without)
    assert kept == {path: fold for path, fold in by_path(rows).items() if path in kept}


def test_parts_of_a_fold_and_of_a_class_that_is_left_out() -> None:
    rows = table()
    folds = evidence_folds(rows, 5)
    plain = fold_parts(rows, folds, 2)
    np.testing.assert_array_equal(plain == TEST, folds == 2)
    without = fold_parts(rows, folds, 2, "class1")
    np.testing.assert_array_equal(without == TEST, (folds == 2) | (rows["label"] == "class1").to_numpy())
    heard = rows[without == TRAIN]
    assert "class1" not in set(heard["label"])
    assert {"class0", "class2", "class3"} <= set(heard["label"])


def test_a_site_s_own_noise_is_no_public_class() -> None:
    """The name of a class that a site uses for a rejected upload does not take that upload out of training."""
    rows = table()
    rows.loc[rows["role"] == "ood_noncry", "label"] = "class1"
    parts = fold_parts(rows, evidence_folds(rows, 5), 0, "class1")
    assert (parts[(rows["role"] == "ood_noncry").to_numpy()] == TRAIN).any()


def test_what_no_evidence_can_be_made_of() -> None:
    rows = table()
    for missing in ("cry", "noise"):
        with pytest.raises(ManifestError, match="cries at sites, and public noise"):
            judged(rows[rows["role"] != missing])
    with pytest.raises(ConfigError, match="at least 2"):
        evidence_folds(rows, 1)
    unlabelled = rows.assign(role=np.where(rows["path"] == rows["path"][0], "unlabelled", rows["role"]))
    assert len(judged(unlabelled)) == len(rows) - 1
