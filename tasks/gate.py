"""The data-quality gate: measured at every site, judged once, filed with its Data Docs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from infra.federation.local.measure import MEASUREMENTS
from infra.federation.local.probe import PROBE, read_counts
from infra.federation.local.verdict import let_through
from infra.federation.local.work import (
    MEASURE_CODE,
    PROBE_CODE,
    measure_clips,
    measuring,
    probe_clips,
    probing,
)
from infra.stages import StageResult, resolve
from models.probe import judge_probe, pool_probes
from tasks.corpus import load_corpus
from tasks.runtime import runtime
from tasks.sites import PUBLIC, SiteWork, run_at_sites
from tasks.stage import Job, stage
from validation.gate import run_gate
from validation.suites import NO_SIGNAL
from validation.verdict import Verdict


@task(name="measure", retries=1, retry_delay_seconds=2, timeout_seconds=3600, persist_result=False)
def measure(manifest: str, split: dict[str, int]) -> dict[str, str]:
    """Measure every clip at its site: level, clipping, silence, SNR, bandwidth, hashes. Returns artifact URIs by site."""
    loaded = load_corpus(Path(manifest), split)
    limits = runtime().settings.limits
    work = {}
    for site in [*loaded.manifest.sites, ""]:
        rows = loaded.rows_of(site)
        if not rows.empty:
            work[site or PUBLIC] = SiteWork(**measuring(rows, loaded.manifest.root, limits).inputs)
    made = run_at_sites("measure", measure_clips, work, code=MEASURE_CODE)
    return {site: artifact.uri for site, artifact in made.items()}


@task(name="probe", retries=1, retry_delay_seconds=2, timeout_seconds=3600, persist_result=False)
def probe(manifest: str, split: dict[str, int]) -> dict[str, str]:
    """Ask at every site whether its reasons can be told apart; counts come back. Returns artifact URIs by site."""
    loaded = load_corpus(Path(manifest), split)
    limits, reasons = runtime().settings.limits, loaded.manifest.reasons
    work = {}
    for site in loaded.manifest.sites:
        rows, parts = loaded.rows_of(site), loaded.parts[loaded.table["site"] == site]
        own = probing(rows, parts.to_numpy(np.int8), loaded.manifest.root, limits, reasons)
        work[site] = SiteWork(**own.inputs)
    made = run_at_sites("probe", probe_clips, work, code=PROBE_CODE)
    return {site: artifact.uri for site, artifact in made.items()}


@stage("gate", code=("validation.gate",), timeout_seconds=1800)
def judge(job: Job) -> StageResult:
    """Judge the table, the measurements and the sites' probes together by the suites; file the verdict and its Data Docs."""
    rt = runtime()
    loaded = load_corpus(Path(job.local["manifest"]), job.config["split"])
    measured = read_measurements(job.local["measurements"])
    job.progress.update(0.3, "expectations")
    counts = []
    for site, uri in job.local["probes"].items():
        content = rt.site_content(site)
        counts.append(read_counts(content.fetch(resolve(content, uri).files[PROBE])))
    pooled = pool_probes(counts)
    probed = judge_probe(pooled) if pooled is not None else None
    docs = job.space.scratch / "data_docs"
    verdict = run_gate(loaded.table, measured, loaded.parts, docs_dir=docs, probe=probed)
    archive = Path(shutil.make_archive(str(job.space.scratch / "docs"), "zip", docs))
    (job.out / "verdict.json").write_text(verdict.to_json())
    note = f"{len(verdict.rules)} rules, {len(verdict.criticals)} critical, {len(verdict.warnings)} warnings"
    # Data Docs carry the time of the run: they are filed beside the result, not as part of it
    return StageResult(
        values={"passed": verdict.passed}, info={"note": note, "data_docs": rt.content.put_file(archive)}
    )


def read_measurements(uris: Mapping[str, str]) -> pd.DataFrame:
    """What the sites measured, one row a clip; `uris` by site."""
    tables = []
    for site, uri in uris.items():
        content = runtime().site_content(site)
        tables.append(pd.read_csv(content.fetch(resolve(content, uri).files[MEASUREMENTS])))
    return pd.concat(tables, ignore_index=True)


def read_verdict(uri: str) -> Verdict:
    """The verdict a gate stage filed."""
    content = runtime().content
    return Verdict.from_json(content.fetch(resolve(content, uri).files["verdict.json"]).read_text())


def no_signal(uri: str) -> str | None:
    """What the gate's probe found, where it heard no signal in the labels."""
    verdict = read_verdict(uri)
    if verdict.probe is None or NO_SIGNAL not in {f.rule for f in verdict.warnings}:
        return None
    return (
        f"labels carry no signal above chance (probe: macro-F1 {verdict.probe['macro_f1']:.3f}, "
        f"p = {verdict.probe['p']:.3f})"
    )


def copy_data_docs(uri: str, folder: Path) -> None:
    """Unpack a gate stage's Data Docs into a run's folder."""
    content = runtime().content
    shutil.unpack_archive(content.fetch(resolve(content, uri).info["data_docs"]), folder, "zip")


@task(name="show verdict", persist_result=False)
def show_verdict(uri: str) -> None:
    """Put the verdict where a person looks: a table of findings, a table of sites."""
    verdict = read_verdict(uri)
    findings = [*verdict.criticals, *verdict.warnings]
    rows = [
        {"severity": f.severity, "rule": f.rule, "rows": f.total, "message": f.message} for f in findings
    ] or [{"severity": "none", "rule": "all", "rows": 0, "message": "every rule holds"}]
    create_table_artifact(table=rows, key="gate-findings", description="Data-quality gate: broken rules")
    sites = [{"site": site or "public", **_flat(asdict(counts))} for site, counts in verdict.sites.items()]
    create_table_artifact(
        table=sites, key="gate-sites", description="Data-quality gate: what each site holds"
    )
    outcome = "passed" if verdict.passed else "**failed**"
    create_markdown_artifact(
        f"# Data-quality gate {outcome}\n\n{verdict.clips} clips, {len(verdict.rules)} rules, "
        f"{len(verdict.criticals)} critical, {len(verdict.warnings)} warnings.",
        key="gate",
    )


def _flat(counts: dict[str, Any]) -> dict[str, Any]:
    return {k: json.dumps(v) if isinstance(v, dict) else v for k, v in counts.items()}


@task(name="enforce gate", retries=0, persist_result=False)
def enforce_gate(uri: str, override: str | None) -> str | None:
    """Stop the flow on a critical failure, unless a reason overrides it; returns the recorded reason.

    Raises:
        GateError: names every broken critical rule and its rows.
    """
    return let_through(read_verdict(uri), override).override_reason
