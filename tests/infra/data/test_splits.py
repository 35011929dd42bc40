"""Splits: no group in two parts, folds that are honoured, balance, and independence of the order of rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.data.splits import assign_folds, parts
from models.errors import ConfigError, ManifestError
from models.frames import TEST, TRAIN, VAL


def federation(seed: int, sites: int = 3, infants: int = 15, clips: int = 6) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = [
        (f"s{s}-i{i}", f"s{s}", "cry", rng.choice(["hungry", "tired", "pain"], p=[0.6, 0.3, 0.1]))
        for s in range(sites) for i in range(infants) for _ in range(int(rng.integers(1, 2 * clips)))
    ]  # fmt: skip
    rows += [
        (f"s{s}-i{rng.integers(infants)}", f"s{s}", "ood_noncry", "babble")
        for s in range(sites)
        for _ in range(20)
    ]
    rows += [(f"n{k}", "", "noise", f"class{k % 7}") for k in range(35)]
    return pd.DataFrame(rows, columns=["group", "site", "role", "label"]).assign(fold=-1)


def test_no_group_in_two_folds_and_every_fold_filled() -> None:
    table = federation(0)
    folds = assign_folds(table)
    assert folds.between(0, 4).all()
    assert folds.groupby(table["group"]).nunique().max() == 1
    at_sites = table["site"] != ""
    share = pd.crosstab(table["site"][at_sites], folds[at_sites], normalize="index")
    assert share.to_numpy().min() > 0.10, "a fifth is ideal"
    reason = pd.crosstab(table["label"], folds).loc[["hungry", "tired", "pain"]]
    assert (reason > 0).all(axis=None), "every fold has every reason"


def test_named_folds_are_inherited_by_the_whole_group() -> None:
    table = federation(1)
    first = table.index[(table["group"] == "s0-i3")][0]
    table.loc[first, "fold"] = 4
    folds = assign_folds(table)
    assert set(folds[table["group"] == "s0-i3"]) == {4}


def test_group_in_two_folds_is_refused_by_name() -> None:
    table = federation(1)
    rows = table.index[table["group"] == "s1-i2"][:2]
    table.loc[rows, "fold"] = [0, 3]
    with pytest.raises(ManifestError, match=r"group 's1-i2' lies in 2 folds \(0, 3\).*leaks"):
        assign_folds(table)


def test_fold_beyond_the_last_is_refused() -> None:
    table = federation(1)
    table.loc[0, "fold"] = 5
    with pytest.raises(ManifestError, match="is in fold 5, but there are 5 folds"):
        assign_folds(table)


def test_public_noise_is_split_by_class_whatever_folds_it_came_with() -> None:
    table = federation(2)
    noise = table["role"] == "noise"
    table.loc[noise, "fold"] = np.arange(noise.sum()) % 5
    folds = assign_folds(table)
    assert folds[noise].groupby(table["label"][noise]).nunique().max() == 1
    assert set(folds[noise]) == {0, 1, 2, 3, 4}


def test_noise_classes_of_one_recording_stay_together() -> None:
    table = federation(2)
    noise = table.index[table["role"] == "noise"]
    table.loc[table["label"].isin(["class0", "class4"]), "group"] = "one recording"
    folds = assign_folds(table)
    assert folds[noise].groupby(table.loc[noise, "group"]).nunique().max() == 1


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), n_folds=st.integers(2, 7), fold_seed=st.integers(0, 5))
def test_order_of_rows_and_other_sites_do_not_matter(seed: int, n_folds: int, fold_seed: int) -> None:
    table = federation(seed, sites=2, infants=6, clips=3)
    folds = assign_folds(table, n_folds, fold_seed)
    shuffled = table.sample(frac=1.0, random_state=seed % 2**32)
    pd.testing.assert_series_equal(assign_folds(shuffled, n_folds, fold_seed).sort_index(), folds)
    alone = table[table["site"] == "s1"]
    pd.testing.assert_series_equal(assign_folds(alone, n_folds, fold_seed), folds[alone.index])


def test_parts() -> None:
    folds = pd.Series([0, 1, 2, 3, 4, 0])
    assert parts(folds, test_fold=0, val_fold=1).tolist() == [TEST, VAL, TRAIN, TRAIN, TRAIN, TEST]
    assert parts(folds, test_fold=4, val_fold=0).tolist() == [VAL, TRAIN, TRAIN, TRAIN, TEST, VAL]
    with pytest.raises(ConfigError, match="both 2"):
        parts(folds, 2, 2)
    with pytest.raises(ConfigError, match="n_folds=1"):
        assign_folds(federation(0), 1)
