"""Folds of the evidence: every clip is judged once, by a network that met nothing of its group.

Cries and the sites' non-cries are dealt as in a run (`infra.data.splits`). Public noise is dealt by *recording within class*, so
that each fold hears every class: what unknown classes do is a question of its own, answered by leaving one class out at a time.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from infra.data.features import GATE
from infra.data.splits import assign_folds
from models.errors import ManifestError
from models.frames import TEST, TRAIN
from models.seeds import derive_seed

FOLDS: Final = 5

Folds = npt.NDArray[np.int8]


def judged(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with a gate label, in the order of their paths; the index is their position.

    Raises:
        ManifestError: there are no cries at sites, or no public noise.
    """
    rows = table[table["role"].isin(list(GATE))].sort_values("path").reset_index(drop=True)
    if not ((rows["role"] == "cry") & (rows["site"] != "")).any() or not is_public(rows).any():
        raise ManifestError(
            "evidence for the gate needs cries at sites, and public noise (role 'noise', no site)"
        )
    return rows


def is_public(rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Which rows are public noise."""
    return ((rows["role"] == "noise") & (rows["site"] == "")).to_numpy()


def evidence_folds(rows: pd.DataFrame, n_folds: int = FOLDS, seed: int = 0) -> Folds:
    """The fold of every row, int8 in [0, n_folds).

    Args:
        rows: as `judged` gives them.
        n_folds: at least 2.
        seed: varies the dealing.

    Raises:
        ManifestError, ConfigError: see `assign_folds`.
    """
    folds = assign_folds(rows, n_folds=n_folds, seed=seed).to_numpy().astype(np.int8)
    public = is_public(rows)
    dealt: dict[str, int] = {}  # a recording cut into clips of two classes stays whole
    for label in sorted(set(rows["label"][public])):
        groups = sorted(
            set(rows["group"][public & (rows["label"] == label).to_numpy()]),
            key=lambda g: derive_seed("noise recording", seed, g),
        )
        for k, group in enumerate(groups):
            dealt.setdefault(group, k % n_folds)
    folds[public] = [dealt[group] for group in rows["group"][public]]
    return folds


def fold_parts(rows: pd.DataFrame, folds: Folds, fold: int, without: str = "") -> npt.NDArray[np.int8]:
    """TRAIN or TEST by row, when `fold` is judged, or when the class `without` of public noise is.

    A class that is left out is judged in all folds' recordings, and the fold's other clips stay out of training as well, so that
    there are cries to set it against.
    """
    test = folds == fold
    if without:
        test = test | (is_public(rows) & (rows["label"] == without).to_numpy())
    return np.where(test, TEST, TRAIN).astype(np.int8)
