"""A site's probe of its own labels: can the reasons be told apart at all? Only counts come of it.

It hears what the baselines hear, MFCC statistics, of the site's cries outside the test part, which no decision but the release
gate's may touch. Recordings and statistics stay at the site and are not even filed; the counts are confusion matrices, as
labelled, relabelled and of resampled groups. A real site keeps those too: what travels is whether its rule holds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from infra.data.audio import ClipLimits, read_audio
from infra.data.mfcc import N_STATISTICS, mfcc_statistics
from infra.digest import digest_file
from models.errors import AudioError
from models.frames import TEST
from models.probe import ProbeCounts, grouped_probe

PROBE: Final = "probe.json"


def select(rows: pd.DataFrame, parts: npt.NDArray[np.int8], reasons: tuple[str, ...]) -> pd.DataFrame:
    """The site's cries with a reason of the label set, less the test part."""
    return rows[(rows["role"] == "cry").to_numpy() & (parts != TEST) & rows["label"].isin(reasons).to_numpy()]


def config(cries: pd.DataFrame, root: Path, limits: ClipLimits, reasons: tuple[str, ...]) -> dict[str, Any]:
    """What decides the probe: every clip as it lies there now, its label, group and platform."""
    facts = [
        [digest_file(root / path), label, group, platform]
        for path, label, group, platform in zip(
            cries["path"], cries["label"], cries["group"], _platforms(cries), strict=True
        )
    ]
    return {
        "clips": facts,
        "reasons": list(reasons),
        "max_seconds": limits.max_clip_seconds,
        "max_bytes": limits.max_file_bytes,
    }


def compute(
    out: Path, cries: pd.DataFrame, root: Path, limits: ClipLimits, reasons: tuple[str, ...]
) -> dict[str, Any]:
    """Write `probe.json`; clips that cannot be decoded are passed over, for the gate has rules of its own for them."""
    heard, statistics = [], []
    for i, path in enumerate(cries["path"]):
        try:
            wave = read_audio(
                root / path, max_seconds=limits.max_clip_seconds, max_bytes=limits.max_file_bytes
            )
        except AudioError:
            continue
        heard.append(i)
        statistics.append(mfcc_statistics(wave))
    rows = cries.iloc[heard]
    counts = grouped_probe(
        np.array(statistics).reshape(len(heard), N_STATISTICS),
        [reasons.index(label) for label in rows["label"]],
        rows["group"].to_numpy(str),
        len(reasons),
        stratum=_platforms(rows),
    )
    (out / PROBE).write_text(json.dumps(counts.to_dict()), encoding="utf-8")
    return {"clips": counts.clips, "groups": counts.groups}


def read_counts(path: Path) -> ProbeCounts:
    """What `compute` wrote."""
    return ProbeCounts.from_dict(json.loads(path.read_text(encoding="utf-8")))


def _platforms(rows: pd.DataFrame) -> npt.NDArray[np.str_]:
    """Labels change places within a platform; where some row names none, within the whole site."""
    if "platform" not in rows or (rows["platform"] == "").any():
        return np.full(len(rows), "", dtype=str)
    return rows["platform"].to_numpy(str)
