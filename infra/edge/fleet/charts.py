"""Latency of a fleet, as figures of the page. A figure without data is an empty string."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from infra.edge.fleet.abort import AbortRule
from infra.edge.fleet.view import DeviceView
from infra.report.figures import BLUE, GREY, MUTED, ORANGE, RULE, draw, styled, svg

_DOTS = 400  # beyond it a curve says the same with fewer bytes


@styled
def ratios(values: Sequence[float], rule: AbortRule) -> str:
    """Every device against itself, the slowest last, with what the rule tolerates."""
    if not values:
        return ""
    ordered = np.sort(np.array(values))
    share = 100 * (np.arange(len(ordered)) + 0.5) / len(ordered)
    figure, (ax,) = draw(4.6, 3.0)
    ax.axhline(1.0, color=RULE, linewidth=1)
    ax.axhline(rule.slower, color=ORANGE, linewidth=0.9, linestyle=(0, (4, 4)))
    ax.annotate(
        f"tolerated: {rule.slower:g}",
        (50, rule.slower),
        (0, -9),
        textcoords="offset points",
        ha="center",
        color=MUTED,
        fontsize=7.5,
    )
    if len(ordered) <= _DOTS:
        ax.scatter(
            share,
            ordered,
            s=12 if len(ordered) < 100 else 5,
            color=np.where(ordered > rule.slower, ORANGE, BLUE),
            linewidths=0,
        )
    else:
        ax.plot(share, ordered, color=BLUE)
    ax.set_title("p95 with the new build, over the device’s own before")
    ax.set_xlabel("devices, fastest to slowest, %")
    ax.set_xlim(0, 100)
    ax.set_ylim(min(0.7, ordered[0] * 0.97), max(1.4, ordered[-1] * 1.04))
    ax.grid(visible=False, axis="x")
    return svg(figure, "ratios", "Ratio of new to old p95 latency by device")


@styled
def latency(devices: Sequence[DeviceView], titles: Sequence[tuple[str, str]]) -> str:
    """Share of devices at or below a p95, release by release; `titles` are (digest, name), the newest first."""
    figure, (ax,) = draw(4.6, 3.0)
    drawn, top = 0, 0.0
    for (digest, title), colour in zip(titles, (BLUE, GREY, ORANGE), strict=False):
        values = np.sort([d.p95_ms for d in devices if d.reported == digest and d.p95_ms is not None])
        if not len(values):
            continue
        ax.step(
            np.r_[values[0], values],
            100 * np.arange(len(values) + 1) / len(values),
            where="post",
            color=colour,
            label=f"{title}, {len(values)} devices",
        )
        drawn, top = drawn + 1, max(top, float(values[-1]))
    if not drawn:
        return ""
    ax.set_title("p95 of a clip, by what runs")
    ax.set_xlabel("ms")
    ax.set_ylabel("devices at or below, %")
    ax.set_xlim(0, 1.05 * top)
    ax.set_ylim(-2, 102)
    ax.legend(loc="lower right", labelcolor=MUTED)
    return svg(figure, "latency", "Distribution of p95 latency over devices, by release")
