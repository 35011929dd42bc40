"""Charts of the calibration page, each from its part of the document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from infra.report.figures import BLUE, GREY, INK, MUTED, PAPER, RULE, box, draw, named, styled, svg

Json = Mapping[str, Any]

NAMES, COLOURS = named({"none": ("as learned", GREY), "own": ("the site's own fit", BLUE)})


@styled
def reliability(points: Json, counts: Json) -> str:
    """Pooled and by site: what was said against what happened; below, how many clips said it."""
    sites = list(points["own"])
    rows = -(-len(sites) // 3)
    figure, axes = draw(9.4, 2.4 * rows + 0.2, 3, rows, sharex=True, sharey=True)
    for spare in axes[len(sites) :]:
        spare.set_visible(False)
    for ax, site in zip(axes, sites, strict=False):
        ax.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (4, 4)))
        for kind in ("none", "own"):
            said, happened, count = (np.array(c) for c in points[kind][site])
            line = 1.2 if site == "all" else 0.0  # between a site's few clips a line says nothing
            ax.plot(said, happened, color=COLOURS[kind], linewidth=line, label=NAMES[kind])
            ax.scatter(
                said,
                happened,
                s=8 + 110 * count / max(count.sum(), 1),
                color=COLOURS[kind],
                linewidths=0,
                zorder=3,
            )
        n = counts[site]["cries"] + counts[site]["non_cries"] if site in counts else None
        total = sum(c["cries"] + c["non_cries"] for c in counts.values())
        ax.set_title(f"{'all sites' if site == 'all' else site}, {n if n is not None else total} clips")
        ax.set_xlim(-0.02, 1.02)
        ax.set_ylim(-0.02, 1.02)
    axes[0].legend(loc="upper left", labelcolor=MUTED, fontsize=7)
    figure.supxlabel("p(cry) that was said", fontsize=8, color=MUTED)
    figure.supylabel("share that were cries", fontsize=8, color=MUTED)
    return svg(figure, "reliability", "Reliability diagrams, pooled and by site")


@styled
def bands(own: Json) -> str:
    """ECE of every site against the band that perfect calibration would show on as many clips."""
    figure, (ax,) = draw(9.4, 0.9 + 0.26 * len(own))
    y = np.arange(len(own))[::-1]
    low, high = (np.array([site["band"][k] for site in own.values()]) for k in (0, 1))
    ax.hlines(y, low, high, color=RULE, linewidth=9, label="95 % band of a perfectly calibrated predictor")
    for key, colour, label in (("before", GREY, NAMES["none"]), ("ece", BLUE, NAMES["own"])):
        ax.scatter([s[key]["value"] for s in own.values()], y, color=colour, s=34, label=label, zorder=3)
    ax.set_yticks(y, list(own))
    ax.set_xlim(left=0)
    ax.set_xlabel("expected calibration error, 15 bins of equal width")
    ax.grid(visible=False, axis="y")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, labelcolor=MUTED)
    return svg(figure, "bands", "ECE by site and the band of perfect calibration")


@styled
def matrix(cells: Json, metric: str, title: str) -> str:
    """Fits (rows) at sites (columns); fuller colour is worse."""
    rows, columns = list(cells), list(next(iter(cells.values())))
    values = np.array([[cells[r][c][metric] for c in columns] for r in rows])
    figure, (ax,) = draw(4.6, 0.9 + 0.34 * len(rows))
    least, most = float(values.min()), max(float(values.max()), 1e-9)
    for i, row in enumerate(values):
        for j, v in enumerate(row):
            alpha = 0.06 + 0.8 * (v - least) / max(most - least, 1e-9)
            dark = alpha > 0.55
            ax.add_patch(box(j, i, color=BLUE, alpha=alpha))
            ax.annotate(
                f"{v:.3f}".lstrip("0"), (j, i), ha="center", va="center", fontsize=7, color=PAPER if dark else INK
            )  # fmt: skip
    ax.set_xlim(-0.5, len(columns) - 0.5)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xticks(range(len(columns)), [c.removeprefix("site") for c in columns])
    ax.set_yticks(range(len(rows)), rows)
    ax.set_title(title)
    ax.grid(visible=False)
    ax.set_xlabel("applied at site")
    for side in ax.spines.values():
        side.set_visible(False)
    return svg(figure, f"matrix-{metric}", f"{title}: the fit of every row at the site of every column")
