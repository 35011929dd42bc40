"""`render_report`: the metrics document as one self-contained HTML page: no script, no font, no image from elsewhere.

The document is `metrics.json`. Every section may be missing; the page says so and goes on.

    run         id, created (ISO 8601), release {name, version, digest}, seconds
    data        synthetic, manifest_digest, corpora [..], synth {version, difficulty, seed, ..},
                parts {train|val|test: {cries, noncries, public, groups}}
    data_gate   validation.verdict.Verdict.to_dict(), docs (relative link to the Data Docs)
    model       preset, parameters, trained_parameters, n_mels, causal
    federation  infra.federation's history: plan, parameters, rounds with losses, validation, alarms, bytes_up and bytes_down by
                site, stages
    cry_gate    the same, of the gate's own phase before it, where there was one
    evaluation  infra.evaluation.evaluate.evaluate(…)
    membership  infra.evaluation.membership.attack_training(…)
    export      opset, operators, size_bytes, max_abs_diff, clips_compared, latency_ms {p50, p95, low, high, n, on}
    provenance  stage → digest, in order
    timings     stage → seconds, in order
    peak_memory_mb
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.report import charts, signal_charts
from infra.report.pages import environment, stylesheet
from infra.report.paper import paper_document, sources_of_run
from infra.report.paper_cells import travels
from models.errors import OutputError

Json = Mapping[str, Any]

SYSTEM_NAMES = {
    "federated": "Federated",
    "release": "This release",
    "central": "Trained centrally",
    "logistic_regression": "Logistic regression, MFCC",
    "support_vector_machine": "SVM, MFCC",
    "majority": "Majority class",
}
_FOLDER = Path(__file__).parent


def render_report(metrics: Json, out: Path, paper: Json | None = None) -> None:
    """Write the report of `metrics` to the file `out`, whole or not at all; `paper` as in `render_html`.

    Raises:
        OutputError: `out` cannot be written.
    """
    write_page(render_html(metrics, paper), out)


def write_page(page: str, out: Path) -> None:
    """Write a page to the file `out`, whole or not at all.

    Raises:
        OutputError: `out` cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=out.parent, prefix=".part-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(page)
            Path(name).chmod(0o644)
            Path(name).replace(out)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as err:
        raise OutputError(
            f"cannot write the page {out}: {err.strerror or err}; choose a folder that can be written"
        ) from None


def render_html(metrics: Json, paper: Json | None = None) -> str:
    """The page as text; equal documents give equal pages. `paper` is the paper's table, where more is known than this run."""
    from markupsafe import Markup

    templates = environment(_FOLDER)
    templates.filters.update(
        num=num, pct=pct, est=est, seconds=seconds, count=count, system=system_name, when=when, short=short,
        interval=interval, span=span,
    )  # fmt: skip
    evaluation = metrics.get("evaluation")
    sections = (
        "run",
        "data",
        "data_gate",
        "model",
        "cry_gate",
        "federation",
        "evaluation",
        "membership",
        "export",
        "provenance",
        "timings",
    )
    return templates.get_template("page.html.j2").render(
        {name: metrics.get(name) for name in sections},
        peak_memory_mb=metrics.get("peak_memory_mb"),
        css=stylesheet(),
        charts={name: Markup(figure) for name, figure in _charts(metrics).items()},  # noqa: S704 — drawn and escaped by us
        paper=paper or paper_document(sources_of_run(metrics)),
        confusion=_confusion(evaluation),
        upload=_upload(metrics.get("federation")),
        heard=_upload(metrics.get("cry_gate")),
        travels=travels(metrics.get("federation") or {}),
        stages=_stages(metrics.get("federation") or {}),
        alarms=_alarms(metrics.get("federation") or {}),
    )


def _charts(metrics: Json) -> dict[str, str]:
    e = metrics.get("evaluation") or {}
    reason, gate = e.get("reason"), e.get("gate")
    systems = [(system_name(k), v) for k, v in (e.get("systems") or {}).items()]
    sites = e.get("sites") or []
    return {
        "learning": charts.learning(metrics.get("federation")),
        "systems_f1": charts.forest(
            [(n, v["macro_f1"]) for n, v in systems], "systems-f1", "Reason macro-F1"
        ),
        "systems_gate": charts.forest(
            [(n, v["gate_auroc"]) for n, v in systems], "systems-gate", "Cry or not, AUROC", lowest=0.4
        ),
        "gate_roc": charts.gate_roc(gate),
        "gate_reliability": charts.reliability(
            gate and gate["calibration"],
            "gate-reliability",
            "Cry or not, the sites' own clips",
            "p(cry)",
            "share that were cries",
        ),
        "reason_reliability": charts.reliability(
            reason and reason["calibration"],
            "reason-reliability",
            "Reason",
            "probability of the top reason",
            "share that were right",
        ),
        "site_calibration": charts.site_calibration(sites),
        "permutation": signal_charts.permutation(e.get("permutation")),
        "abstention_roc": charts.abstention_roc(e.get("abstention")),
        "risk_coverage": charts.risk_coverage(e.get("risk_coverage")),
        "snr": charts.snr(e.get("snr") or []),
        "sites_f1": charts.forest(
            [(s["site"], s["macro_f1"]) for s in sites], "sites-f1", "Reason macro-F1 by site", first=False
        ),
        "sites_gate": charts.forest(
            [(s["site"], s["gate_auroc"]) for s in sites],
            "sites-gate",
            "Gate AUROC by site",
            first=False,
        ),
    }


def _confusion(evaluation: Json | None) -> list[dict[str, Any]]:
    """Rows of the confusion table: counts with their share of the row, for the depth of the colour."""
    reason = (evaluation or {}).get("reason")
    if not reason:
        return []
    rows = []
    for per_class, counts in zip(reason["per_class"], reason["confusion"], strict=True):
        total = max(sum(counts), 1)
        cells = [{"count": n, "share": round(100 * n / total)} for n in counts]
        rows.append({**per_class, "cells": cells})
    return rows


def _upload(federation: Json | None) -> dict[str, float] | None:
    rounds = (federation or {}).get("rounds") or []
    up = [n for r in rounds for n in r["bytes_up"].values()]
    down = [n for r in rounds for n in (r.get("bytes_down") or {}).values()]
    if not up:
        return None
    return {
        "per_round_mb": sum(up) / len(up) / 1e6,
        "down_per_round_mb": sum(down) / len(down) / 1e6 if down else 0.0,
        "total_mb": sum(up) / 1e6,
        "rounds": len(rounds),
    }


def _stages(federation: Json) -> str:
    """Bytes that a site uploads in each stage of a round, the mean over rounds and sites."""
    used = [r for r in federation.get("rounds") or [] if r.get("stages") and r["survivors"]]
    if not used:
        return ""
    totals: dict[str, float] = {}
    for r in used:
        for stage, size in r["stages"].items():
            totals[stage] = totals.get(stage, 0.0) + size["up"] / len(r["participants"]) / len(used)
    return ", ".join(f"{size / 1e3:,.1f} kB in “{stage}”" for stage, size in totals.items())


def _alarms(federation: Json) -> list[dict[str, Any]]:
    """What the rounds complained of, with the round."""
    return [{"round": r["round"], **a} for r in federation.get("rounds") or [] for a in r.get("alarms") or []]


def num(value: float | None, digits: int = 3) -> str:
    """A number, or a dash where it is undefined."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def pct(value: float | None, digits: int = 0) -> str:
    """A share in percent."""
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def est(value: Json | None) -> Any:
    """A number with its interval, the interval smaller."""
    from markupsafe import Markup

    if not value or value["value"] is None:
        return "–"
    ends = (
        ""
        if value["low"] is None
        else Markup(" <small>{}–{}</small>").format(num(value["low"]), num(value["high"]))
    )
    return Markup("{}{}").format(num(value["value"]), ends)


def interval(value: Json) -> Any:
    """`est` of a macro-F1 that is told as `macro_f1`, `low` and `high`."""
    return est({"value": value["macro_f1"], "low": value["low"], "high": value["high"]})


def span(value: Json) -> Any:
    """A mean with the least and the most of it, which are no interval."""
    return est({"value": value["value"], "low": value["least"], "high": value["most"]})


def seconds(value: float | None) -> str:
    """A duration: 0.4 s, 12 s, 3 min 05 s."""
    if value is None:
        return "–"
    if value < 9.95:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def when(value: str) -> str:
    """An ISO 8601 time as a person writes it, in UTC where it says so."""
    from datetime import datetime

    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        return value
    zone = " UTC" if at.utcoffset() is not None and not at.utcoffset() else ""
    return f"{at.day} {at:%B %Y, %H:%M}{zone}"


def count(value: int | None) -> str:
    """An integer with thin spaces between thousands."""
    return "–" if value is None else f"{value:,}".replace(",", "\u202f")


def short(digest: str | None) -> str:
    """The first 12 digits of a digest."""
    return (digest or "–")[:12]


def system_name(key: str) -> str:
    """What a system is called on the page."""
    return SYSTEM_NAMES.get(key, key.replace("_", " ").capitalize())
