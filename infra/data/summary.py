"""What a corpus is made of, as counts: by part, by corpus and licence, by site."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import pandas as pd

from models.frames import PART_NAMES

Json = dict[str, Any]


def by_part(table: pd.DataFrame, part: npt.ArrayLike) -> dict[str, dict[str, int]]:
    """Cries, the sites' other sounds, public noise and groups of each part.

    Args:
        table: columns role and group.
        part: TRAIN, VAL or TEST of each row, by position.
    """
    codes = pd.Series(part, index=table.index)
    return {name: _counts(table[codes == code]) for code, name in enumerate(PART_NAMES)}


def by_corpus(table: pd.DataFrame) -> list[Json]:
    """Clips and groups of every corpus and licence; an empty licence where the manifest names none."""
    licence = table["licence"] if "licence" in table else pd.Series("", index=table.index)
    keyed = table.assign(licence=licence.fillna("").astype(str))
    return [
        {
            "corpus": str(corpus),
            "licence": str(name),
            "clips": len(rows),
            "groups": int(rows["group"].nunique()),
        }
        for (corpus, name), rows in keyed.groupby(["corpus", "licence"], sort=True)
    ]


def by_site(table: pd.DataFrame) -> list[Json]:
    """The counts of every site, over all parts."""
    own = table[table["site"] != ""]
    return [{"site": str(site), **_counts(rows)} for site, rows in own.groupby("site", sort=True)]


def _counts(rows: pd.DataFrame) -> dict[str, int]:
    role = rows["role"]
    return {
        "cries": int((role == "cry").sum()),
        "noncries": int((role == "ood_noncry").sum()),
        "public": int((role == "noise").sum()),
        "groups": int(rows["group"].nunique()),
    }
