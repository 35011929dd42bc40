"""Folds by group, before any augmentation: an infant, with everything that its phone recorded, lies in one part alone.

Public audio is dealt by class instead, whatever folds it came with: noise that a model is tested under is of a kind that it has
never been trained with.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from infra.data.manifest import NO_FOLD
from models.errors import ConfigError, ManifestError
from models.frames import TEST, TRAIN, VAL
from models.seeds import derive_seed


def assign_folds(table: pd.DataFrame, n_folds: int = 5, seed: int = 0) -> pd.Series:
    """A fold in [0, n_folds) for every row, int64, in the table's order and index.

    A group whose rows name a fold goes there whole, the rows that say -1 included. The other groups of a site are dealt out, the
    largest first, each to the fold that lacks its labels most; ties fall by a hash of group and seed, so that the result does not
    depend on the order of rows, nor on other sites. Public noise is dealt by class.

    Args:
        table: columns group, site, role, label; optional fold (-1: none).
        n_folds: at least 2.
        seed: varies the ties.

    Raises:
        ManifestError: a group's rows name different folds, or a fold is not below `n_folds`.
        ConfigError: `n_folds` is below 2.
    """
    if n_folds < 2:
        raise ConfigError(f"n_folds={n_folds}: choose at least 2, and 3 where train, val and test are wanted")
    own = table["fold"] if "fold" in table else pd.Series(NO_FOLD, index=table.index)
    is_noise = (table["site"] == "") & (table["role"] == "noise")
    fold = pd.Series(NO_FOLD, index=table.index, dtype="int64")
    fold[is_noise] = _deal_noise(table[is_noise], n_folds, seed)
    rest = table[~is_noise]
    given = _given(rest, own[~is_noise], n_folds)
    for site, rows in rest.groupby("site", sort=True):
        fold[rows.index] = _deal_groups(rows, given, n_folds, derive_seed("folds", seed, site))
    return fold


def parts(folds: pd.Series, test_fold: int = 0, val_fold: int = 1) -> pd.Series:
    """TRAIN, VAL or TEST of each row, int8: one fold each for test and val, the others for training.

    Raises:
        ConfigError: test and val are the same fold.
    """
    if test_fold == val_fold:
        raise ConfigError(
            f"test_fold and val_fold are both {test_fold}: selection may not touch the test fold"
        )
    part = pd.Series(TRAIN, index=folds.index, dtype="int8")
    part[folds == val_fold] = VAL
    part[folds == test_fold] = TEST
    return part


def _given(rows: pd.DataFrame, own: pd.Series, n_folds: int) -> dict[str, int]:
    """Fold by group where the manifest names one."""
    named = pd.DataFrame({"group": rows["group"], "fold": own})
    named = named[named["fold"] != NO_FOLD]
    if len(high := named[named["fold"] >= n_folds]):
        raise ManifestError(
            f"group {high['group'].iloc[0]!r} is in fold {int(high['fold'].iloc[0])}, but there are {n_folds} folds "
            f"(0 to {n_folds - 1}); raise n_folds or renumber"
        )
    folds = named.groupby("group", sort=True)["fold"].unique()
    for group, found in folds.items():
        if len(found) > 1:
            raise ManifestError(
                f"group {group!r} lies in {len(found)} folds ({', '.join(str(int(f)) for f in sorted(found))}): a group in two "
                "parts leaks; give all its rows one fold, or -1"
            )
    return {str(group): int(found[0]) for group, found in folds.items()}


def _deal_groups(rows: pd.DataFrame, given: dict[str, int], n_folds: int, seed: int) -> pd.Series:
    """Folds of one site's rows: greedy, largest group first, to where its strata are scarcest."""
    stratum = rows["role"].astype(str) + "/" + rows["label"].astype(str)
    counts = pd.crosstab(rows["group"], stratum)
    matrix = counts.to_numpy(np.float64)
    weight = 1.0 / matrix.sum(axis=0)  # a clip of a rare stratum weighs as much as its rarity
    load = np.zeros((n_folds, matrix.shape[1]))
    fold_of: dict[str, int] = {}
    names = [str(g) for g in counts.index]
    for i, name in enumerate(names):
        if name in given:
            fold_of[name] = given[name]
            load[given[name]] += matrix[i]
    open_groups = [i for i, name in enumerate(names) if name not in fold_of]
    # labels outrank size only as far as rarity goes: the heaviest group first, ties by hash
    open_groups.sort(key=lambda i: (-float((matrix[i] * weight).sum()), derive_seed(seed, names[i])))
    for i in open_groups:
        cost = ((load + matrix[i]) ** 2 * weight**2).sum(axis=1) - (load**2 * weight**2).sum(axis=1)
        size = load.sum(axis=1)
        best = min(
            range(n_folds), key=lambda f: (round(float(cost[f]), 9), size[f], derive_seed(seed, names[i], f))
        )
        fold_of[names[i]] = best
        load[best] += matrix[i]
    return rows["group"].map(fold_of).astype("int64")


def _deal_noise(rows: pd.DataFrame, n_folds: int, seed: int) -> pd.Series:
    """Folds of public noise: whole classes; classes that share a recording stay together."""
    home: dict[str, str] = {label: label for label in sorted(set(rows["label"]))}

    def find(label: str) -> str:
        while home[label] != label:
            label = home[label]
        return label

    for _, labels in rows.groupby("group", sort=True)["label"]:
        first, *others = sorted({find(label) for label in labels})
        for other in others:
            home[find(other)] = find(first)
    root = rows["label"].map(find)
    order = sorted(set(root), key=lambda label: derive_seed("noise", seed, label))
    fold_of = {label: i % n_folds for i, label in enumerate(order)}
    return root.map(fold_of).astype("int64")
