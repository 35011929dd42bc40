"""The page of a drift document (`validation.drift.compare`): features by PSI, and what those that moved look like now."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from infra.report.figures import BLUE, GREY, draw, styled, svg
from infra.report.pages import environment, stylesheet
from infra.report.render import count, est, num, pct

Json = Mapping[str, Any]

MAX_DRAWN: Final = 12
MAX_LABEL: Final = 22

_FOLDER = Path(__file__).parent


def render_drift(document: Json) -> str:
    """Drift document → HTML; equal documents give equal pages.

    Beside what `compare` returned it holds `command`, which made it, and `source`: what was held against what, in words.
    """
    from markupsafe import Markup

    moved = [row for row in document["features"] if row["verdict"] != "none"]
    labels = [row for row in document["features"] if row["kind"] == "named"]
    drawn = [row for row in moved if row["kind"] == "measured"][:MAX_DRAWN]
    templates = environment(_FOLDER)
    templates.filters.update(num=num, est=est, count=count, pct=pct, p=p_value)
    return templates.get_template("drift.html.j2").render(
        document,
        css=stylesheet(),
        moved=moved,
        labels=labels,
        charts=[Markup(histogram(row)) for row in drawn],  # noqa: S704 — drawn and escaped by us
        names={
            verdict: [row["title"] for row in moved if row["verdict"] == verdict]
            for verdict in ("drift", "watch")
        },
    )


def p_value(value: float) -> str:
    """A p-value to two digits; what the draws cannot resolve any further is said to be at most that."""
    return f"{value:.2g}"


@styled
def histogram(row: Json) -> str:
    """Share of the clips in each bin of one feature, the reference's beside the new ones'."""
    cells = row["cells"]
    figure, (ax,) = draw(4.6, 2.6)
    at = np.arange(len(cells))
    for shift, key, colour, label in (
        (-0.2, "reference_share", GREY, "reference"),
        (0.2, "new_share", BLUE, "new"),
    ):
        ax.bar(at + shift, [c[key] for c in cells], width=0.4, color=colour, linewidth=0, label=label)
    ax.set_xticks(at, [_short(c["label"]) for c in cells], rotation=40, ha="right", rotation_mode="anchor")
    ax.set_title(f"{row['title']}{', ' + row['unit'] if row['unit'] else ''}: {row['verdict']}")
    ax.set_ylabel("share of clips")
    ax.grid(visible=False, axis="x")
    ax.legend(loc="best")
    return svg(
        figure, f"drift-{row['name']}", f"{row['title']}: shares of the reference and of the new clips by bin"
    )


def _short(label: str) -> str:
    # matplotlib would read what stands between two dollars as a formula
    text = label if len(label) <= MAX_LABEL else f"{label[: MAX_LABEL - 1]}…"
    return text.replace("$", r"\$")
