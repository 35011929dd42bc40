"""The report's charts, each from its part of the metrics document. A chart without data is an empty string."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from infra.report.figures import BLUE, GREEN, GREY, INK, MUTED, ORANGE, RULE, VIOLET, draw, styled, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Json = Mapping[str, Any]
_HALF, _FULL = (4.6, 3.0), (9.4, 3.0)


def _nan(values: Sequence[float | None]) -> npt.NDArray[np.float64]:
    return np.array([np.nan if v is None else v for v in values], np.float64)


def _unit(ax: Axes, *, x: bool = True, y: bool = True) -> None:
    ticks = [0, 0.25, 0.5, 0.75, 1]
    if x:
        ax.set_xlim(-0.02, 1.02)
        ax.set_xticks(ticks, ["0", ".25", ".5", ".75", "1"])
    if y:
        ax.set_ylim(-0.02, 1.02)
        ax.set_yticks(ticks, ["0", ".25", ".5", ".75", "1"])


@styled
def learning(federation: Json | None) -> str:
    """Validation macro-F1 by round and by uploaded megabyte, and the losses by round."""
    rounds = (federation or {}).get("rounds") or []
    if not rounds:
        return ""
    number = [r["round"] for r in rounds]
    uploaded = np.cumsum([sum(r["bytes_up"].values()) for r in rounds]) / 1e6
    judged = [i for i, r in enumerate(rounds) if r.get("validation")]
    figure, (by_round, by_mb, loss) = draw(9.4, 2.9, 3)
    for key, colour, label in (
        ("reason_macro_f1", BLUE, "reason"),
        ("gate_macro_f1", ORANGE, "cry or not"),
    ):
        y = _nan([rounds[i]["validation"].get(key) for i in judged])
        marker = "o" if len(judged) < 12 else ""
        by_round.plot([number[i] for i in judged], y, color=colour, label=label, marker=marker, markersize=3)
        by_mb.plot(uploaded[judged], y, color=colour, label=label, marker=marker, markersize=3)
    for ax, title, x in (
        (by_round, "Validation macro-F1", "round"),
        (by_mb, "… against what was uploaded", "MB uploaded by all sites together"),
    ):
        ax.set_title(title)
        ax.set_xlabel(x)
        _unit(ax, x=False)
        ax.set_xlim(left=0)
    if judged:
        by_round.legend(loc="lower right", labelcolor=MUTED)
    names = {"gate": "gate", "reason": "reason", "energy": "energy margin", "prox": "proximal"}
    shown = [k for k in names if any(k in r["losses"] for r in rounds)]
    for key, colour in zip(shown, (ORANGE, BLUE, GREEN, VIOLET), strict=False):
        loss.plot(number, _nan([r["losses"].get(key) for r in rounds]), color=colour, label=names[key])
    if shown:
        loss.legend(loc="upper right", labelcolor=MUTED)
    loss.set_title("Training loss, mean over sites")
    loss.set_xlabel("round")
    loss.set_ylim(bottom=0)
    loss.set_xlim(left=0)
    return svg(
        figure,
        "learning",
        "Validation macro-F1 by round and by uploaded megabytes, and training losses by round",
    )


@styled
def gate_roc(gate: Json | None) -> str:
    """ROC of the gate against each kind of non-cry."""
    curves = [
        (name, colour, gate["negatives"][which])
        for which, name, colour in (
            ("site", "the sites' own non-cries", ORANGE),
            ("public", "public noise", GREEN),
            ("all", "all non-cries", BLUE),
        )
        if gate and gate["negatives"][which]["roc"][0]
    ]
    return _roc(
        [(n, c, d["roc"], d["auroc"]["value"]) for n, c, d in curves],
        "gate-roc",
        "ROC of the gate",
        "cries let through",
    )


@styled
def abstention_roc(abstention: Json | None) -> str:
    """ROC of telling cries from non-cries by each signal of doubt."""
    curves = []
    for key, name, colour in (
        ("max_softmax", "top reason probability", GREY),
        ("gate", "gate", ORANGE),
        ("energy", "energy", BLUE),
    ):
        one = ((abstention or {}).get("signals") or {}).get(key)
        if one and one["all"]["roc"][0]:
            curves.append((name, colour, one["all"]["roc"], one["all"]["auroc"]["value"]))
    return _roc(curves, "abstention-roc", "Abstain on what isn't a cry", "cries kept")


def _roc(curves: list[tuple[str, str, Any, float]], name: str, title: str, y: str) -> str:
    if not curves:
        return ""
    figure, (ax,) = draw(*_HALF)
    ax.plot([0, 1], [0, 1], color=RULE, linewidth=1)
    for label, colour, (fpr, tpr), area in curves:
        ax.plot(fpr, tpr, color=colour, label=f"{label}, {area:.3f}")
    ax.set_title(title)
    ax.set_xlabel("non-cries let through")
    ax.set_ylabel(y)
    _unit(ax)
    ax.legend(
        loc="lower right", title="AUROC against", labelcolor=MUTED
    ) if name == "gate-roc" else ax.legend(loc="lower right", labelcolor=MUTED)
    return svg(figure, name, f"Receiver operating characteristic: {title}")


@styled
def reliability(calibration: Json | None, name: str, title: str, x: str, y: str) -> str:
    """Reliability before and after temperature; the area of a point is its number of clips."""
    if not calibration or not calibration["after"]["reliability"][0]:
        return ""
    figure, (ax,) = draw(*_HALF)
    ax.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (4, 4)))
    for when, colour, label in (("before", GREY, "as learned"), ("after", BLUE, "after temperature")):
        said, happened, count = (np.array(c) for c in calibration[when]["reliability"])
        ece = calibration[when]["ece"]["value"]
        ax.plot(said, happened, color=colour, linewidth=1.2, label=f"{label}, ECE {ece:.3f}")
        ax.scatter(
            said, happened, s=8 + 110 * count / max(count.sum(), 1), color=colour, linewidths=0, zorder=3
        )
    ax.set_title(title)
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    _unit(ax)
    ax.legend(loc="upper left", labelcolor=MUTED)
    return svg(figure, name, f"Reliability diagram: {title}")


@styled
def site_calibration(sites: Sequence[Json]) -> str:
    """ECE of the reasons (or of the gate where there are none) per site, before and after its own temperature."""
    panels = [
        (key, title)
        for key, title in (("reason_ece", "Reason"), ("gate_ece", "Cry or not"))
        if any(s.get(key) and s[key]["after"] is not None for s in sites)
    ]
    if not panels:
        return ""
    figure, axes = draw(_FULL[0], 0.9 + 0.24 * len(sites), len(panels), sharey=True)
    y = np.arange(len(sites))[::-1]
    for ax, (key, title) in zip(axes, panels, strict=True):
        before = _nan([(s.get(key) or {}).get("before") for s in sites])
        after = _nan([(s.get(key) or {}).get("after") for s in sites])
        ax.hlines(y, before, after, color=RULE, linewidth=3)
        ax.scatter(before, y, color=GREY, s=26, label="as learned", zorder=3, linewidths=0)
        ax.scatter(after, y, color=BLUE, s=34, label="after the site's temperature", zorder=4, linewidths=0)
        ax.set_title(f"{title}: calibration error by site")
        ax.set_xlabel("expected calibration error")
        ax.set_xlim(left=0)
        ax.grid(visible=False, axis="y")
        ax.set_yticks(y, [s["site"] for s in sites])
        ax.set_ylim(-0.7, len(sites) - 0.3)
    axes[0].legend(loc="best", labelcolor=MUTED)
    return svg(figure, "site-calibration", "Calibration error of every site before and after its temperature")


@styled
def risk_coverage(risk: Json | None) -> str:
    """Share of wrong reasons among the clips answered, the most confident first."""
    if not risk:
        return ""
    figure, (ax,) = draw(*_HALF)
    rate = risk["error_rate"]
    ax.axhline(rate, color=MUTED, linewidth=0.8, linestyle=(0, (4, 4)))
    top = rate
    for key, label, colour in (
        ("oracle", "best possible", RULE),
        ("energy", "by energy", ORANGE),
        ("max_softmax", "by top probability", BLUE),
    ):
        if key in risk["signals"]:
            coverage, wrong = risk["signals"][key]["curve"]
            ax.plot(coverage, wrong, color=colour, label=label)
            tail = np.array(wrong)[np.array(coverage) > 0.1]
            top = max(top, float(tail.max(initial=0)))
    ax.set_title("Answer fewer, err less")
    ax.set_xlabel("share of cries answered")
    ax.set_ylabel("wrong reasons among them")
    _unit(ax, y=False)
    ax.set_ylim(-0.02 * max(top, 0.05), min(1.02, max(1.25 * top, 0.05)))
    ax.legend(loc="upper left", labelcolor=MUTED)
    return svg(figure, "risk-coverage", "Risk against coverage of the reason head")


@styled
def snr(rows: Sequence[Json]) -> str:
    """Macro-F1 and gate AUROC at each SNR with intervals, noisiest first."""
    order = sorted(rows, key=lambda r: np.inf if r["snr_db"] is None else r["snr_db"])
    if len(order) < 2:
        return ""
    names = ["as\nrecorded" if r["snr_db"] is None else f"{r['snr_db']:g}".replace("-", "−") for r in order]
    panels = [
        (key, title, colour)
        for key, title, colour in (
            ("macro_f1", "Reason macro-F1", BLUE),
            ("gate_auroc", "Gate AUROC", ORANGE),
        )
        if any(r[key] and r[key]["value"] is not None for r in order)
    ]
    if not panels:
        return ""
    figure, axes = draw(*_FULL, len(panels))
    x = np.arange(len(order))
    for ax, (key, title, colour) in zip(axes, panels, strict=True):
        value, low, high = (_nan([(r[key] or {}).get(k) for r in order]) for k in ("value", "low", "high"))
        ax.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
        ax.plot(x, value, color=colour, marker="o")
        for i, v in enumerate(value):
            if not np.isnan(v):
                ax.annotate(
                    f"{v:.3f}",
                    (x[i], v),
                    (0, 7),
                    textcoords="offset points",
                    ha="center",
                    color=MUTED,
                    fontsize=7.5,
                )
        ax.set_xticks(x, names)
        ax.set_xlim(-0.4, len(order) - 0.6)
        floor = np.nanmin(np.r_[low, value])
        ax.set_ylim(max(0.0, floor - 0.25 * (1.0 - floor) - 0.02), 1.0 + 0.12 * (1.0 - floor) + 0.005)
        ax.grid(visible=False, axis="x")
        ax.set_title(title)
        ax.set_xlabel("SNR of the noise mixed in, dB")
    return svg(figure, "snr", "Reason macro-F1 and gate AUROC by signal-to-noise ratio")


@styled
def forest(
    rows: Sequence[tuple[str, Json | None]], name: str, title: str, *, lowest: float = 0.0, first: bool = True
) -> str:
    """Values with their intervals, one a line; the first line is the one the others are read against."""
    lines = [(label, v) for label, v in rows if v and v["value"] is not None]
    if not lines:
        return ""
    figure, (ax,) = draw(_HALF[0], 0.75 + 0.27 * len(lines))
    y = np.arange(len(lines))[::-1]
    for k, (at, (_, v)) in enumerate(zip(y, lines, strict=True)):
        colour = BLUE if k == 0 or not first else GREY
        if v["low"] is not None:
            ax.hlines(at, v["low"], v["high"], color=colour, linewidth=2.4)
        ax.scatter([v["value"]], [at], color=colour, s=36, zorder=3, linewidths=0)
        edge = v["high"] if v["high"] is not None else v["value"]
        ax.annotate(
            f"{v['value']:.3f}",
            (edge, at),
            (6, 0),
            textcoords="offset points",
            va="center",
            color=INK,
            fontsize=8,
        )
    if first:
        ax.axvline(lines[0][1]["value"], color=RULE, linewidth=0.9, zorder=0)
    ax.set_title(title)
    ax.set_yticks(y, [label for label, _ in lines])
    ax.set_ylim(-0.6, len(lines) - 0.4)
    low = min(min(v["value"], v["low"] if v["low"] is not None else v["value"]) for _, v in lines)
    floor = (lowest if low >= lowest else 0.0) if first else max(0.0, float(np.floor(10 * low - 0.5)) / 10)
    ax.set_xlim(floor, 1.0 + 0.14 * (1 - floor))
    ax.set_xticks([t for t in ax.get_xticks() if floor <= t <= 1.0 + 1e-9])
    ax.grid(visible=False, axis="y")
    return svg(figure, name, title)
