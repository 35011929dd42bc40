"""The ablation as one self-contained HTML page in the report's style."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from infra.experiments.page import signed, verdict
from infra.report.figures import BLUE, GREY, MUTED, ORANGE, draw, styled, svg
from infra.report.pages import fill
from infra.report.render import count, est, num

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Json = Mapping[str, Any]


def render_ablation(document: Json) -> str:
    """`ablation.json` → HTML; equal documents give equal pages."""
    drawn = {"changes": changes_chart(document), "difficulty": difficulty_chart(document)}
    return fill(
        Path(__file__).with_name("ablation.html.j2"),
        document,
        drawn,
        {"num": num, "est": est, "count": count, "signed": signed, "told": told},
        answer=answer(document),
    )


told = partial(verdict, up="better", down="worse")
"""What an interval of a difference allows one to say."""


def answer(document: Json) -> str:
    """The page's first sentence: which changes showed a difference as recorded or under noise, whatever they were."""
    shown = [
        f"{c['title']} ({told(value)} {where})"
        for c in document["changes"]
        for where, value in (
            ("as recorded", c["difference"]["recorded_macro_f1"]),
            (f"at {document['noisy_db']:g} dB", c["difference"]["noisy_macro_f1"]),
        )
        if told(value) in ("better", "worse")
    ]
    what = f"{len(document['changes'])} changes to the recipe, one at a time, over {len(document['seeds'])} seeds"
    if not shown:
        return f"Of {what}, none shows a difference in reason macro-F1 whose interval excludes zero."
    return f"Of {what}, these show a difference in reason macro-F1: {', '.join(shown)}."


@styled
def changes_chart(document: Json) -> str:
    """Differences to the recipe with their intervals, as recorded and under noise."""
    rows = document["changes"]
    if not rows:
        return ""
    figure, axes = draw(9.4, 0.9 + 0.3 * len(rows), 2, sharey=True)
    y = np.arange(len(rows))[::-1]
    views = (("recorded", "As recorded"), ("noisy", f"At {document['noisy_db']:g} dB, unheard noise"))
    for ax, (view, title) in zip(axes, views, strict=True):
        for at, row in zip(y, rows, strict=True):
            value = row["difference"][f"{view}_macro_f1"]
            colour = {"better": BLUE, "worse": ORANGE}.get(told(value), GREY)
            _line(ax, at, value, colour)
        ax.axvline(0, color=MUTED, linewidth=0.9)
        ax.set_title(title)
        ax.set_xlabel("reason macro-F1, changed − recipe")
        ax.grid(visible=False, axis="y")
    axes[0].set_yticks(y, [row["title"] for row in rows])
    return svg(figure, "changes", "Differences in macro-F1 to the recipe, with intervals")


@styled
def difficulty_chart(document: Json) -> str:
    """Macro-F1 against the corpus's difficulty, of the network and of the simple models."""
    rows = document["difficulty"]
    if len(rows) < 2:
        return ""
    figure, (ax,) = draw(9.4, 3.0)
    systems = (
        ("network", "network, tiny", BLUE),
        ("logistic_regression", "logistic regression, MFCC", ORANGE),
        ("majority", "majority class", GREY),
    )
    x = [row["difficulty"] for row in rows]
    for name, title, colour in systems:
        values = [row[name] for row in rows]
        ax.plot(x, [v["value"] for v in values], color=colour, label=title, marker="o", markersize=3.5)
        if all(v["low"] is not None for v in values):
            ax.fill_between(
                x, [v["low"] for v in values], [v["high"] for v in values], color=colour, alpha=0.13, linewidth=0
            )  # fmt: skip
    ax.set_xticks(x, [f"{d:g}" for d in x])
    ax.set_ylim(0, 1)
    ax.set_xlabel("difficulty (1: the benchmark)")
    ax.set_ylabel("reason macro-F1, held-out infants")
    ax.legend(loc="upper right", labelcolor=MUTED)
    return svg(figure, "difficulty", "Macro-F1 by the difficulty of the synthetic corpus")


def _line(ax: Axes, at: float, value: Json, colour: str) -> None:
    if value["low"] is not None:
        ax.hlines(at, value["low"], value["high"], color=colour, linewidth=2)
    ax.scatter([value["value"]], [at], color=colour, s=28, zorder=3, linewidths=0)
