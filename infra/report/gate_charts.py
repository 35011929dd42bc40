"""Charts of the gate's evidence: ranking by noise and arm, differences between arms, and classes that training never heard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from infra.report.charts import forest
from infra.report.figures import BLUE, GREEN, GREY, INK, MUTED, ORANGE, VIOLET, draw, named, styled, svg

Json = Mapping[str, Any]

NAMES, COLOURS = named(
    {
        "central": ("central", BLUE),
        "federated": ("federated", ORANGE),
        "no-denoiser": ("without denoiser", GREEN),
        "joint": ("denoiser learning too", VIOLET),
        "no-calls": ("without synthetic calls", GREY),
    }
)
NOISES: Final = {"public": "public noise", "site": "rejected uploads as noise"}


@styled
def by_snr(arms: Json) -> str:
    """AUROC over all negatives at every SNR, a panel for each kind of noise."""
    kinds = [k for k in NOISES if any(r["noise"] == k for arm in arms.values() for r in arm["noisy"])]
    if not kinds:
        return ""
    figure, axes = draw(9.4, 3.3, len(kinds), sharey=True)
    for ax, kind in zip(axes, kinds, strict=True):
        for name, arm in arms.items():
            rows = sorted((r for r in arm["noisy"] if r["noise"] == kind), key=lambda r: r["snr_db"])
            if not rows:
                continue
            cells = [r["all"] for r in rows] + [arm["recorded"]["all"]["auroc"]]
            value, low, high = (
                np.array([np.nan if c[k] is None else c[k] for c in cells], float)
                for k in ("value", "low", "high")
            )
            x = np.arange(len(cells))
            colour = COLOURS.get(name, GREY)
            ax.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
            ax.plot(x, value, color=colour, marker="o", markersize=3.5, label=NAMES.get(name, name))
            ticks = [f"{r['snr_db']:g}".replace("-", "−") for r in rows] + ["as\nrecorded"]
            ax.set_xticks(x, ticks)
        ax.set_title(f"Gate AUROC, {NOISES[kind]}")
        ax.set_xlabel("SNR of the noise mixed in, dB")
        ax.grid(visible=False, axis="x")
    axes[0].legend(loc="lower right", labelcolor=MUTED)
    return svg(figure, "gate-snr", "Gate AUROC by signal-to-noise ratio and arm")


@styled
def differences(rows: Sequence[Json], name: str, title: str) -> str:
    """Paired differences of AUROC with intervals, one a line."""
    lines = [
        (
            (
                "as recorded"
                if r["snr_db"] is None
                else f"{NOISES[r['noise']]}, {r['snr_db']:g} dB".replace("-", "−")
            ),
            r["all"],
        )
        for r in rows
        if r["all"]["value"] is not None
    ]
    if not lines:
        return ""
    figure, (ax,) = draw(6.4, 0.9 + 0.25 * len(lines))
    y = np.arange(len(lines))[::-1]
    ax.axvline(0.0, color=INK, linewidth=0.8)
    for at, (_, v) in zip(y, lines, strict=True):
        sure = v["low"] is not None and (v["low"] > 0 or v["high"] < 0)
        colour = BLUE if sure else GREY
        if v["low"] is not None:
            ax.hlines(at, 100 * v["low"], 100 * v["high"], color=colour, linewidth=2.4)
        ax.scatter([100 * v["value"]], [at], color=colour, s=30, zorder=3, linewidths=0)
    ax.set_yticks(y, [label for label, _ in lines])
    ax.set_ylim(-0.6, len(lines) - 0.4)
    ax.set_xlabel("points of AUROC")
    ax.set_title(title)
    ax.grid(visible=False, axis="y")
    return svg(figure, name, title)


def left_out(document: Json | None) -> str:
    """Each class of noise that training never heard, hardest first, and their mean."""
    if not document or not document["classes"]:
        return ""
    rows = sorted(document["classes"].items(), key=lambda item: item[1]["auroc"]["value"] or 0.0)
    return forest(
        [("mean", document["mean"]), *((name.replace("_", " "), c["auroc"]) for name, c in rows)],
        "left-out", "AUROC against a class never heard in training", lowest=0.5,
    )  # fmt: skip
