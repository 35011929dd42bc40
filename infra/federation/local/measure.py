"""A site's clips, measured: the facts of which the gate judges."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pandas as pd

from infra.data.audio import ClipLimits
from infra.digest import digest_file
from validation.measure import measure_site

MEASUREMENTS: Final = "measurements.csv"


def config(rows: pd.DataFrame, root: Path, limits: ClipLimits) -> dict[str, Any]:
    """What decides the measurements: every clip as declared and as it lies there now, so an altered file is measured again."""
    facts = [
        [path, sha, digest_file(root / path)] for path, sha in zip(rows["path"], rows["sha256"], strict=True)
    ]
    return {"clips": facts, "max_seconds": limits.max_clip_seconds, "max_bytes": limits.max_file_bytes}


def compute(out: Path, rows: pd.DataFrame, root: Path, limits: ClipLimits) -> dict[str, Any]:
    """Write `measurements.csv`, one row a clip in the order of `rows`; returns their number."""
    table = measure_site(rows, root, max_seconds=limits.max_clip_seconds, max_bytes=limits.max_file_bytes)
    table.to_csv(out / MEASUREMENTS, index=False, lineterminator="\n")
    return {"clips": len(table)}
