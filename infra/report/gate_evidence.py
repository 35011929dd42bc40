"""The evidence's first page: how well the gate tells cries on recordings it never met, as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infra.report import gate_charts as charts
from infra.report.pages import Link, fill
from infra.report.render import count, est, num, seconds

Json = Mapping[str, Any]


def render_gate(document: Json, nav: Sequence[Link] = ()) -> str:
    """`evidence.json` → HTML; equal documents give equal pages."""
    gate = document["gate"]
    drawn = {
        "snr": charts.by_snr(gate["arms"]),
        "left_out": charts.left_out(document["left_out"]),
        **{
            f"difference_{k}": charts.differences(rows, f"difference-{k}", name)
            for k, (name, rows) in enumerate(gate["differences"].items())
        },
    }
    return fill(
        Path(__file__).with_name("gate_evidence.html.j2"),
        document,
        drawn,
        {"num": num, "est": est, "count": count, "seconds": seconds, "points": points},
        nav=nav,
        names=charts.NAMES,
        noises=charts.NOISES,
    )


def points(value: Json) -> Any:
    """A difference of AUROC in points with its sign and interval."""
    from markupsafe import Markup

    if value["value"] is None:
        return "–"
    text = f"{100 * value['value']:+.1f}".replace("-", "−")
    if value["low"] is None:
        return text
    ends = f"{100 * value['low']:+.1f} … {100 * value['high']:+.1f}".replace("-", "−")
    return Markup("{} <small>{}</small>").format(text, ends)
