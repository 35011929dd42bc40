"""The page on long recordings: `infra.evidence.long_recordings.long_recordings_document` as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infra.report import long_recordings_charts as charts
from infra.report.abstention import share, signed
from infra.report.pages import Link, fill
from infra.report.render import count, num, pct

Json = Mapping[str, Any]


def render_long_recordings(document: Json, nav: Sequence[Link] = ()) -> str:
    """Document → HTML; equal documents give equal pages."""
    rules, chosen = document["rules"], document["chosen"]
    drawn = {
        "curve": charts.curve(rules, document["settings"]["limits"]["per_hour"]),
        "snr": charts.by_snr(chosen),
        "kinds": charts.by_kind(chosen),
        "timeline": charts.timeline(document["timeline"]),
    }
    return fill(
        Path(__file__).with_name("long_recordings.html.j2"),
        {"name": "", **document},
        drawn,
        {"num": num, "count": count, "pct": pct, "share": share, "signed": signed, "rate": rate},
        nav=nav,
        names=charts.NAMES,
        answer=answer(document),
        kept_limit=kept_limit(document),
    )


def rate(value: Json | None, digits: int = 1) -> Any:
    """A number with its interval, few digits."""
    from markupsafe import Markup

    if not value or value["value"] is None:
        return "–"
    if value["low"] is None:
        return num(value["value"], digits)
    return Markup("{} <small>{}–{}</small>").format(
        *(num(value[k], digits) for k in ("value", "low", "high"))
    )


def answer(document: Json) -> str:
    """The page's first sentences: what the chosen setting does on hours that it was not tuned on."""
    name = document["chosen"]["name"]
    t = document["rules"][name]["test"]
    missed, false, late = t["missed"], t["false_per_hour"], t["latency_s"]
    said = (
        f"With {charts.NAMES[name]}, {t['bouts'] - t['bouts_missed']} of {t['bouts']} bouts of crying are told"
        + (f", half of them within {late['value']:.1f} s" if late["value"] is not None else "")
        + f", at {false['value']:.1f} false alarms an hour"
    )
    if false["low"] is not None and missed["low"] is not None:
        said += (
            f" (95 % intervals: {100 * missed['low']:.0f} to {100 * missed['high']:.0f} % missed, "
            f"{false['low']:.1f} to {false['high']:.1f} an hour)"
        )
    return said + ". Thresholds were chosen on other hours, of other infants and other sounds."


def kept_limit(document: Json) -> str:
    """Whether the limit that the tuning hours kept holds on the test hours."""
    one = document["rules"][document["chosen"]["name"]]
    limit, false = document["settings"]["limits"]["per_hour"], one["test"]["false_per_hour"]
    if not one["feasible"]:
        return (
            f"No setting kept to {limit:g} false alarms an hour in the tuning hours; this one came nearest."
        )
    tuned = one["tuned"]["false_per_hour"]
    said = (
        f"In the tuning hours it kept the limit of {limit:g} false alarms an hour with {tuned:.1f}; "
        f"in the test hours it is {false['value']:.1f}"
    )
    if false["low"] is not None and false["low"] > limit:
        return said + ", above the limit by more than chance."
    if false["value"] > limit:
        return said + ", above the limit, but no further than chance would carry it."
    return said + ", within it."
