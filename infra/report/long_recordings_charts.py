"""Charts of the page on long recordings, each from its part of the document. A chart without data is an empty string."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from infra.report.figures import BLUE, GREEN, GREY, INK, MUTED, ORANGE, RULE, VIOLET, draw, named, styled, svg

Json = Mapping[str, Any]

NAMES, COLOURS = named(
    {
        "frame": ("single frames", GREY),
        "mean": ("moving mean", ORANGE),
        "ema": ("exponential mean", VIOLET),
        "hysteresis": ("hysteresis", BLUE),
    }
)


@styled
def curve(rules: Json, limit: float) -> str:
    """Missed bouts against false alarms an hour, over thresholds, with the tuned point of every rule."""
    if not rules:
        return ""
    figure, (both, missed, false) = draw(9.4, 3.5, 3)
    for name, one in rules.items():
        x = np.array([p["false_per_hour"]["value"] for p in one["curve"]])
        y = np.array([p["missed"]["value"] for p in one["curve"]])
        x, y = _frontier(x, y)
        both.plot(x, 100 * y, color=COLOURS[name], label=NAMES[name], drawstyle="steps-post")
        t = one["test"]
        a, b = t["false_per_hour"], t["missed"]
        if a["low"] is not None and b["low"] is not None:
            both.plot(
                [a["low"], a["high"]], [100 * b["value"]] * 2, color=COLOURS[name], linewidth=0.9, alpha=0.7
            )
            both.plot(
                [a["value"]] * 2,
                [100 * b["low"], 100 * b["high"]],
                color=COLOURS[name],
                linewidth=0.9,
                alpha=0.7,
            )
        both.plot([a["value"]], [100 * b["value"]], "o", color=COLOURS[name], markersize=5.5, zorder=5)
    both.axvline(limit, color=MUTED, linewidth=0.8, linestyle=(0, (4, 4)))
    both.set_xscale("symlog", linthresh=1.0)
    ticks = [0, 1, 2, 5, 10, 30, 100, 300]
    most = max(p["false_per_hour"]["value"] for one in rules.values() for p in one["curve"])
    shown = [t for t in ticks if t <= 1.3 * max(most, 2 * limit)]
    both.set_xticks(shown, [f"{t:g}" for t in shown])
    both.minorticks_off()
    both.set_xlim(-0.05, max(shown[-1], 1.3 * most))
    both.set_ylim(-2, 102)
    both.set_xlabel("false alarms per hour without crying")
    both.set_ylabel("bouts missed, %")
    both.set_title("What a threshold buys")
    handles, labels = both.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, labelcolor=MUTED, fontsize=8)
    one, name = (
        (rules["hysteresis"], "hysteresis")
        if "hysteresis" in rules
        else next((v, k) for k, v in rules.items())
    )
    for ax, key, scale, label in (
        (missed, "missed", 100.0, "bouts missed, %"),
        (false, "false_per_hour", 1.0, "false alarms per hour"),
    ):
        low, mid, high = (
            np.array([np.nan if p[key][k] is None else scale * p[key][k] for p in one["curve"]])
            for k in ("low", "value", "high")
        )
        x = np.array([p["threshold"] for p in one["curve"]])
        ax.fill_between(x, low, high, color=COLOURS[name], alpha=0.15, linewidth=0)
        ax.plot(x, mid, color=COLOURS[name])
        ax.axvline(one["tuned"]["threshold"], color=MUTED, linewidth=0.8, linestyle=(0, (4, 4)))
        ax.set_xlabel("threshold, log-odds")
        ax.set_title(f"{NAMES[name].capitalize()}: {label}")
        ax.set_ylim(bottom=0)
    missed.set_ylim(-2, 102)
    return svg(
        figure, "long-curve", "Missed bouts against false alarms per hour over thresholds, for every rule"
    )


def _frontier(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """In order of false alarms, the fewest missed so far: what the rule can be set to."""
    order = np.lexsort((y, x))
    return x[order], np.minimum.accumulate(y[order])


@styled
def by_snr(chosen: Json) -> str:
    """Missed bouts by the level of the cries over the bed, and by origin."""
    rows = [(f"{r['snr_db'][0]:g}–{r['snr_db'][1]:g} dB", r) for r in chosen["by_snr"] if r["bouts"]]
    rows += [(f"{r['origin']} infants", r) for r in chosen["by_origin"]]
    if not rows:
        return ""
    figure, (ax,) = draw(4.6, 0.8 + 0.36 * len(rows))
    for k, (_, r) in enumerate(rows):
        m, colour = r["missed"], GREEN if "origin" in r else BLUE
        if m["low"] is not None:
            ax.plot([100 * m["low"], 100 * m["high"]], [k, k], color=colour, linewidth=1.2, alpha=0.7)
        ax.plot([100 * m["value"]], [k], "o", color=colour)
    ax.set_yticks(range(len(rows)), [f"{name}  ({r['bouts']})" for name, r in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlim(-3, 103)
    ax.set_xlabel("bouts missed, %")
    ax.set_title("Which bouts are missed")
    ax.grid(visible=False, axis="y")
    return svg(figure, "long-snr", "Share of bouts missed by signal-to-noise ratio and origin")


@styled
def by_kind(chosen: Json) -> str:
    """What the false alarms began with."""
    rows = [k for k in chosen["by_kind"] if k["alarms"]][:9]
    if not rows:
        return ""
    from matplotlib.ticker import MaxNLocator

    figure, (ax,) = draw(4.6, 0.8 + 0.36 * len(rows))
    for k, r in enumerate(rows):
        ax.barh(k, r["alarms"], color=ORANGE, height=0.55)
        ax.annotate(
            f"{60 * r['hours']:.0f} min heard",
            (r["alarms"], k),
            (4, 0),
            textcoords="offset points",
            va="center",
            color=MUTED,
            fontsize=7.5,
        )
    ax.set_yticks(range(len(rows)), [r["kind"].replace("_", " ") for r in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlim(0, 1.35 * max(r["alarms"] for r in rows))
    ax.set_xlabel("false alarms")
    ax.set_title("What false alarms began with")
    ax.grid(visible=False, axis="y")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return svg(figure, "long-kinds", "Number of false alarms by the kind of sound that began them")


@styled
def timeline(t: Json) -> str:
    """Ten minutes: bouts, logits, alarms."""
    if not t["seconds"]:
        return ""
    from matplotlib.patches import Rectangle

    figure, (ax,) = draw(9.4, 3.3)
    start = t["begin_s"]
    x = (np.array(t["seconds"]) - start) / 60.0
    own, smoothed = np.array(t["own"]), np.array(t["smoothed"])
    low, high = (float(q) for q in np.quantile(own, [0.005, 0.995]))
    low, high = min(low, t["off_threshold"] - 1.0), max(high, t["threshold"] + 1.0)
    span = high - low
    gaps = np.flatnonzero(np.diff(x) > 1.1 / 60.0) + 1
    ax.plot(
        x, np.clip(own, low, high), ".", color=GREY, markersize=2.2, alpha=0.8, label="a second's own logit"
    )
    ax.plot(
        np.insert(x, gaps, np.nan),
        np.insert(smoothed, gaps, np.nan),
        color=INK,
        linewidth=1.1,
        label="smoothed",
    )
    ax.axhline(t["threshold"], color=MUTED, linewidth=0.8, linestyle=(0, (4, 4)))
    if t["off_threshold"] != t["threshold"]:
        ax.axhline(t["off_threshold"], color=MUTED, linewidth=0.8, linestyle=(0, (1, 3)))
    lanes = {"bouts": high + 0.18 * span, "alarms": high + 0.05 * span}
    for bout in t["bouts"]:
        a, b = ((bout[k] - start) / 60.0 for k in ("begin", "end"))
        ax.axvspan(a, b, color=GREEN, alpha=0.10, linewidth=0)
        box = Rectangle(
            (a, lanes["bouts"]),
            b - a,
            0.09 * span,
            facecolor=GREEN if bout["found"] else "none",
            edgecolor=GREEN,
        )
        ax.add_patch(box)
        ax.annotate(
            f"{bout['snr_db']:.0f} dB",
            ((a + b) / 2, lanes["bouts"] + 0.11 * span),
            ha="center",
            color=MUTED,
            fontsize=7,
        )
    for alarm in t["alarms"]:
        a, b = ((alarm[k] - start) / 60.0 for k in ("begin", "end"))
        ax.add_patch(
            Rectangle((a, lanes["alarms"]), b - a, 0.09 * span, color=ORANGE if alarm["false"] else BLUE)
        )
        ax.plot(
            [(alarm["at"] - start) / 60.0] * 2,
            [lanes["alarms"] - 0.02 * span, lanes["alarms"] + 0.11 * span],
            color=INK,
            linewidth=1,
        )
    ax.set_ylim(low - 0.03 * span, high + 0.36 * span)
    ax.set_xlim(0, (t["end_s"] - start) / 60.0)
    kept = [v for v in ax.get_yticks() if low <= v <= high]
    ax.set_yticks(
        [*kept, lanes["alarms"] + 0.045 * span, lanes["bouts"] + 0.045 * span],
        [*(f"{v:g}".replace("-", "−") for v in kept), "alarms", "bouts"],
    )
    ax.set_xlabel(f"minutes, from {start / 60:.0f} min of {t['recording']}")
    ax.set_ylabel("log-odds of a cry", y=0.38)
    ax.grid(visible=False)
    ax.axhline(high, color=RULE, linewidth=0.7)
    return svg(figure, "long-timeline", "Ten minutes of a test recording: bouts of crying, logits and alarms")
