"""A site's own verdict over its own clips."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from infra.federation.local.probe import read_counts
from models.errors import GateError
from models.probe import judge_probe
from validation.gate import site_verdict
from validation.verdict import Verdict, enforce

VERDICT: Final = "verdict.json"
_JUDGED: Final = ["path", "label", "role", "group", "sha256"]


def config(site: str, rows: pd.DataFrame, parts: npt.NDArray[np.int8]) -> dict[str, Any]:
    """What decides the verdict beside the measurements."""
    return {"site": site, "rows": rows[_JUDGED].to_numpy().tolist(), "parts": parts.tolist()}


def compute(
    out: Path,
    docs: Path,
    site: str,
    rows: pd.DataFrame,
    parts: npt.NDArray[np.int8],
    measurements: Path,
    probe: Path,
) -> dict[str, Any]:
    """Write `verdict.json` (it names files and groups: it stays at the site) and the Data Docs."""
    probed = judge_probe(read_counts(probe))
    verdict = site_verdict(site, rows, pd.read_csv(measurements), parts, docs_dir=docs, probe=probed)
    (out / VERDICT).write_text(verdict.to_json(), encoding="utf-8")
    return {"passed": verdict.passed}


def let_through(verdict: Verdict, override: str | None) -> Verdict:
    """`enforce`, and an override neither applies where nothing failed nor helps where nothing can be decoded.

    Raises:
        GateError: a critical rule is broken and no reason was given, the reason is blank, or no clip can be decoded.
    """
    if verdict.passed and override is not None:
        return verdict
    if override is not None and verdict.unusable and len(verdict.unusable) == verdict.clips:
        raise GateError(
            "no clip of this corpus can be decoded: there is nothing that an override could train on"
        )
    return enforce(verdict, override)
