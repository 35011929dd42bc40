"""The abstention page: `infra.evidence.abstention.abstention_evidence` as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infra.report import abstention_charts as charts
from infra.report.pages import Link, fill
from infra.report.render import count, est, num, pct

Json = Mapping[str, Any]


def render_abstention(document: Json, nav: Sequence[Link] = ()) -> str:
    """Document → HTML; equal documents give equal pages. Sections without numbers say so."""
    thresholds = document["thresholds"]
    lead = "energy" if "energy" in thresholds else next(iter(thresholds), None)
    shown = thresholds[lead] if lead else None
    drawn = {
        "roc": charts.roc(document["ranking"]),
        "precision_recall": charts.precision_recall(document["ranking"]),
        "differences": charts.differences(document["ranking"]),
        "risk_coverage": charts.risk_coverage(document["risk_coverage"]),
        "snr": charts.by_snr(document["snr"]),
        "cross_kept": charts.cross_site(shown, "kept") if shown else "",
        "cross_refused": charts.cross_site(shown, "refused") if shown else "",
    }
    return fill(
        Path(__file__).with_name("abstention.html.j2"),
        document,
        drawn,
        {
            "num": num,
            "est": est,
            "count": count,
            "pct": pct,
            "share": share,
            "signed": signed,
            "points": points,
        },
        nav=nav,
        titles={name: title[0].upper() + title[1:] for name, title in charts.NAMES.items()},
        answer=answer(document),
        travels=travels(shown) if shown else "",
        lead=lead,
    )


def share(value: Json | None) -> Any:
    """A share in percent with its interval, the interval smaller."""
    from markupsafe import Markup

    if not value or value["value"] is None:
        return "–"
    if value["low"] is None:
        return pct(value["value"])
    return Markup("{} <small>{}–{}</small>").format(
        pct(value["value"]), f"{100 * value['low']:.0f}", f"{100 * value['high']:.0f}"
    )


def points(value: float | None, digits: int = 1) -> str:
    """A share in points of percent."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def signed(value: Json | None, scale: float = 1.0) -> Any:
    """A difference with its sign, and its interval."""
    from markupsafe import Markup

    if not value or value["value"] is None:
        return "–"

    def one(x: float) -> str:
        return (f"{scale * x:+.3f}" if scale == 1.0 else f"{scale * x:+.1f}").replace("-", "−")

    if value["low"] is None:
        return one(value["value"])
    return Markup("{} <small>{} to {}</small>").format(
        one(value["value"]), one(value["low"]), one(value["high"])
    )


def answer(document: Json) -> str:
    """The page's first sentences: whether energy reaches its bar, and which signals do better or worse, whatever it is."""
    bar, measured = document["bar"], document["bar"]["measured"]
    if not measured or measured["value"] is None:
        return "This run has no energy to judge."
    ends = ""
    if measured["low"] is not None:
        ends = f" (95 % interval {measured['low']:.3f} to {measured['high']:.3f})"
        if document["settings"]["level"] != 0.95:
            ends = ends.replace("95 %", f"{100 * document['settings']['level']:g} %")
    said = (
        f"Energy tells cries from everything else with an AUROC of {measured['value']:.3f}{ends}; "
        f"the bar of {bar['auroc']:.2f} is {'met' if bar['met'] else 'missed'}."
    )
    verdicts: dict[str, list[str]] = {"better": [], "worse": [], "not to be told apart": []}
    for name, stats in document["ranking"]["all"]["against_energy"].items():
        d = stats["auroc"]
        if d["low"] is None:
            continue
        key = "better" if d["low"] > 0 else "worse" if d["high"] < 0 else "not to be told apart"
        verdicts[key].append(charts.NAMES[name])
    parts = []
    for key, names in verdicts.items():
        if names:
            verb = "are" if len(names) > 1 else "is"
            parts.append(f"{' and '.join(names)} {verb} {key}{' from it' if key.startswith('not') else ''}")
    return f"{said} By the same clips {'; '.join(parts)}." if parts else said


def travels(table: Json) -> str:
    """What a site's threshold does at other sites beside what it does at home."""
    own, other = table["spread"]["own"]["kept"], table["spread"]["other"]["kept"]
    if other["sd"] is None:
        return "There is one site, so nothing can be said of others."
    return (
        f"At home a threshold keeps {points(own['min'], 0)} to {pct(own['max'])} of a site’s cries, elsewhere "
        f"{points(other['min'], 0)} to {pct(other['max'])}. Over sites the deviation is {100 * own['sd']:.1f} points at home and "
        f"{100 * other['sd']:.1f} elsewhere; equal sites of these sizes would show {100 * own['sd_by_chance']:.1f} and "
        f"{100 * other['sd_by_chance']:.1f} by the luck of their clips alone."
    ).replace(" %", "\N{NO-BREAK SPACE}%")
