"""Clips that nobody labelled cry or not: how many of them the networks take for cries.

Nothing is learned from them, so they are held against no bar. Where they come from another corpus than the cries, and their label
says what they are, they show whether networks learned infants or the phones that recorded them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from infra.data.audio import ReadLimits, read_audio
from infra.evidence.behaviour import fits
from infra.evidence.folds import Folds
from infra.evidence.panel import Judge, Panel
from models.bootstrap import mean_interval

Json = dict[str, Any]


def unlabelled_rows(table: pd.DataFrame, rows: pd.DataFrame, folds: Folds) -> pd.DataFrame:
    """The manifest's unlabelled clips, with the fold whose network met nothing of their group; −1 where none did.

    Args:
        table: the whole manifest.
        rows: the clips that networks were trained on.
        folds: their folds.
    """
    fold_of = dict(zip(rows["group"], folds, strict=True))
    found = table[table["role"] == "unlabelled"].sort_values("path")
    return found.assign(fold=[int(fold_of.get(group, -1)) for group in found["group"]])


def unlabelled_document(
    judges: Sequence[Judge], rows: pd.DataFrame, root: Path, resamples: int = 1000
) -> list[Json]:
    """By corpus and label: clips, and the share that is called a cry, with a percentile interval over resampled groups.

    Clips that are silent or shorter than 1.1 s are left out.

    Args:
        judges: one for each fold.
        rows: as `unlabelled_rows` gives them; who is in no fold is dealt to the judges in turn.
        root: the manifest's folder.
        resamples: of the bootstrap.

    Raises:
        AudioError: a clip cannot be used.
    """
    limits = ReadLimits()
    out = []
    for (corpus, label), some in rows.groupby(["corpus", "label"], sort=True):
        waves = [
            read_audio(root / str(p), max_seconds=limits.max_clip_seconds, max_bytes=limits.max_file_bytes)
            for p in some["path"]
        ]
        kept = np.array([fits(wave) for wave in waves])
        if not kept.any():
            continue
        in_turn = np.arange(len(some)) % len(judges)
        judge = np.where(some["fold"] >= 0, some["fold"], in_turn)[kept]
        heard = [wave for wave, keep in zip(waves, kept, strict=True) if keep]
        verdicts = Panel(judges, judge.tolist()).ask(heard)
        groups = some["group"].to_numpy()[kept].astype(str)
        share = mean_interval(verdicts.cry.astype(np.float64), groups, seed=0, resamples=resamples)
        out.append(
            {
                "corpus": str(corpus), "label": str(label), "clips": len(heard), "groups": len(set(groups)),
                "cry": share.to_dict(), "median_confidence": float(np.median(verdicts.confidence)),
                "abstains": int(verdicts.abstains.sum()),
            }
        )  # fmt: skip
    return out
