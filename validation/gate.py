"""The data-quality gate: manifest, parts and measurements in, verdict out.

    measurements = measure_site(rows, root)          # at each site, from its own folder
    verdict = run_gate(table, measurements, parts, docs_dir=run / "data_docs")
    verdict = enforce(verdict, override_reason=None)  # raises GateError, naming rules and rows

`site_verdict` is the same gate over one site's rows, for a site's own client.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from models.errors import GateError
from models.frames import PART_NAMES
from models.probe import ProbeResult
from validation.context import validate
from validation.docs import RuleResult
from validation.expectations.base import NO_PART, is_cry, is_other
from validation.measure import MEASURED
from validation.suites import Scope, clip_suite, manifest_suite
from validation.verdict import MAX_PATHS, Finding, SiteCounts, Verdict, enforce

__all__ = ["Finding", "SiteCounts", "Verdict", "enforce", "run_gate", "site_verdict"]

_MANIFEST = ("path", "label", "role", "group", "site", "sha256")
Parts = pd.Series | npt.NDArray[np.integer]


def run_gate(
    manifest_table: pd.DataFrame,
    measurements: pd.DataFrame,
    parts: Parts,
    docs_dir: Path | None = None,
    probe: ProbeResult | None = None,
) -> Verdict:
    """Judge the whole federation's rows.

    Args:
        manifest_table: one row a clip: path, label, role, group, sha256, and site ("" or absent: public audio).
        measurements: what `measure_site` returned for these rows; order and further rows do not matter.
        parts: (n,) TRAIN, VAL, TEST of each row, by position; negative: in no part.
        docs_dir: folder for the Data Docs.
        probe: whether the labels carry a signal, judged on the sites' pooled counts; None was not asked.

    Raises:
        GateError: a column, a measurement or a part is missing, or a rule could not be evaluated.
        OutputError: the Data Docs cannot be written.
    """
    return _judge(manifest_table, measurements, parts, "federation", "federation", docs_dir, probe)


def site_verdict(
    site: str,
    rows: pd.DataFrame,
    measurements: pd.DataFrame,
    parts: Parts,
    docs_dir: Path | None = None,
    probe: ProbeResult | None = None,
) -> Verdict:
    """Judge one site's own rows, by the rules they can answer; a pure function of what the site has.

    `Verdict.without_paths` is what may leave the site. Arguments and errors as in `run_gate`; also refuses rows of other sites.
    """
    if "site" in rows and (foreign := sorted(set(rows["site"].fillna("").astype(str)) - {site})):
        raise GateError(
            f"site {site!r} was handed rows of {', '.join(map(repr, foreign))}: pass its own rows alone"
        )
    return _judge(rows.assign(site=site), measurements, parts, "site", site, docs_dir, probe)


def _judge(
    rows: pd.DataFrame,
    measurements: pd.DataFrame,
    parts: Parts,
    scope: Scope,
    name: str,
    docs_dir: Path | None,
    probe: ProbeResult | None,
) -> Verdict:
    table = _join(rows, measurements, parts)
    probed = asdict(probe) if probe is not None else None
    manifest_columns = [*_MANIFEST, "part", "file_sha256", "audio_sha256"]
    clip_columns = ["path", "role", "site", *MEASURED[1:]]
    results = validate(
        {
            "manifest": (table[manifest_columns], manifest_suite(scope, probed)),
            "clips": (table[clip_columns], clip_suite()),
        },
        docs_dir,
    )
    site_of = dict(zip(table["path"], table["site"], strict=True))
    error_of = dict(zip(table["path"], table["error"], strict=True))
    findings = [_finding(r, site_of, error_of) for r in results if not r.success]
    criticals = tuple(f for f in findings if f.severity == "critical")
    return Verdict(
        scope=name,
        passed=not criticals,
        criticals=criticals,
        warnings=tuple(f for f in findings if f.severity != "critical"),
        rules=tuple(r.rule for r in results),
        sites={str(site): _counts(own) for site, own in table.groupby("site", sort=True)},
        unusable=tuple(table.loc[~table["readable"].astype(bool), "path"]),
        probe=probed,
    )


def _join(rows: pd.DataFrame, measurements: pd.DataFrame, parts: Parts) -> pd.DataFrame:
    """One table with the manifest's columns as text, the parts by name and the measurements."""
    if rows.empty:
        raise GateError("the gate was given no rows: check that the manifest has clips for this scope")
    rows = rows if "site" in rows else rows.assign(site="")
    if missing := [c for c in _MANIFEST if c not in rows]:
        raise GateError(
            f"the manifest has no column {', '.join(missing)}; it has {', '.join(map(str, rows.columns))}"
        )
    if missing := [c for c in MEASURED if c not in measurements]:
        raise GateError(f"the measurements have no column {', '.join(missing)}: take them from measure_site")
    codes = np.asarray(parts)
    if codes.shape != (len(rows),) or (len(codes) and codes.max() >= len(PART_NAMES)):
        raise GateError(
            f"parts must be {len(rows)} codes below {len(PART_NAMES)}, one a row; got shape {codes.shape}"
        )
    table = rows[list(_MANIFEST)].fillna("").astype(str).reset_index(drop=True)
    table["part"] = [PART_NAMES[c] if c >= 0 else NO_PART for c in codes]
    measured = (
        measurements.drop_duplicates("path").set_index("path").reindex(table["path"]).reset_index(drop=True)
    )
    if lost := table.loc[measured["readable"].isna(), "path"].tolist():
        raise GateError(
            f"{len(lost)} clip(s) were not measured, e.g. {lost[0]}: measure every row of the manifest"
        )
    return pd.concat([table, measured[list(MEASURED[1:])]], axis=1)


def _finding(result: RuleResult, site_of: dict[str, str], error_of: dict[str, str]) -> Finding:
    sites: dict[str, int] = {}
    for path in result.paths:
        sites[site_of[path]] = sites.get(site_of[path], 0) + 1
    found = result.found
    if result.paths and result.rule.startswith("clip-") and (error := error_of[result.paths[0]]):
        found += f", the first ({result.paths[0]}): {error}"
    return Finding(
        rule=result.rule,
        severity="critical" if result.severity == "critical" else "warning",
        message=f"expected: {result.what}; found: {found}. {result.fix[0].upper()}{result.fix[1:]}.",
        paths=result.paths[:MAX_PATHS],
        total=len(result.paths),
        sites=dict(sorted(sites.items())),
    )


def _counts(own: pd.DataFrame) -> SiteCounts:
    cries, others = is_cry(own), is_other(own)
    reasons = own.loc[cries, "label"].value_counts().sort_index()
    return SiteCounts(
        cries=int(cries.sum()),
        others=int(others.sum()),
        unlabelled=int((~cries & ~others).sum()),
        groups=int(own["group"].nunique()),
        reasons={str(k): int(v) for k, v in reasons.items()},
    )
