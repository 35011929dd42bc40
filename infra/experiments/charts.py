"""The experiments' charts, in the report's style. A chart without data is an empty string."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from infra.report.figures import BLUE, GREEN, GREY, MUTED, ORANGE, RULE, VIOLET, draw, styled, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Json = Mapping[str, Any]

_MAIN = {"average": GREY, "prox": ORANGE, "cv": BLUE, "cv_prox": VIOLET}
_CODECS = {"cv": BLUE, "cv_8bit": GREEN, "cv_4bit": ORANGE, "cv_4bit_ffa": VIOLET}
_OPTIONS = {"cv": BLUE, "cv_option_1": ORANGE}
_CODEC_TITLES: Mapping[str, str] = {"cv": "float32"}
_OPTION_TITLES: Mapping[str, str] = {"cv": "Option II", "cv_option_1": "Option I"}


def degree(alpha: float) -> str:
    """A partition in words."""
    words = {100.0: "alike", 1.0: "unlike", 0.1: "very unlike"}
    return f"α = {alpha:g}" + (f", sites {words[alpha]}" if alpha in words else "")


def _arms(setting: Json, colours: Mapping[str, Any]) -> list[tuple[Json, Any]]:
    by_name = {arm["arm"]: arm for arm in setting["arms"]}
    return [(by_name[name], colour) for name, colour in colours.items() if name in by_name]


def _band(ax: Axes, x: npt.ArrayLike, curve: Json, colour: str, label: str) -> None:
    if None not in curve["low"]:
        ax.fill_between(x, curve["low"], curve["high"], color=colour, alpha=0.13, linewidth=0)
    ax.plot(x, curve["mean"], color=colour, label=label, linewidth=1.6)


def _top(settings: Sequence[Json], key: str) -> float:
    """Room above the best curve, at most 1."""
    best = max(max(arm[key]["mean"]) for setting in settings for arm in setting["arms"])
    return min(1.0, 0.1 * float(np.ceil(10 * best + 1)))


@styled
def by_round(document: Json, participation: float, key: str = "macro_f1") -> str:
    """A curve by round for each arm of the comparison proper, one panel a degree of skew."""
    settings = [s for s in document["settings"] if s["participation"] == participation and _arms(s, _MAIN)]
    if not settings:
        return ""
    figure, axes = draw(9.4, 3.1, len(settings), sharey=True)
    for ax, setting in zip(axes, settings, strict=True):
        for arm, colour in _arms(setting, _MAIN):
            rounds = np.arange(1, len(arm[key]["mean"]) + 1)
            _band(ax, rounds, arm[key], colour, arm["title"])
        if key == "macro_f1":
            ax.axhline(setting["target"], color=MUTED, linewidth=0.8, linestyle=(0, (4, 4)))
        ax.set_title(degree(setting["alpha"]))
        ax.set_xlabel("round")
        ax.set_xlim(0, len(rounds))
    if key == "macro_f1":
        axes[0].set_ylim(0, _top(settings, "macro_f1"))
        axes[0].set_ylabel("reason macro-F1, held-out infants")
    else:
        axes[0].set_ylabel("gate AUROC, held-out infants")
    axes[-1].legend(loc="lower right", labelcolor=MUTED)
    name = f"{key}-{participation:g}".replace(".", "").replace("_", "-")
    return svg(figure, name, f"{key} by round, {participation:.0%} of the sites asked a round")


@styled
def by_megabyte(document: Json) -> str:
    """Macro-F1 of the codecs by round, and by what all sites together had uploaded."""
    settings = [s for s in document["settings"] if len(_arms(s, _CODECS)) > 1]
    if not settings:
        return ""
    setting = settings[0]
    figure, (left, right) = draw(9.4, 3.2, 2, sharey=True)
    for arm, colour in _arms(setting, _CODECS):
        rounds = np.arange(1, len(arm["macro_f1"]["mean"]) + 1)
        title = _CODEC_TITLES.get(arm["arm"], arm["title"])
        _band(left, rounds, arm["macro_f1"], colour, title)
        _band(right, rounds * arm["mb_per_round"], arm["macro_f1"], colour, title)
    right.set_xscale("log")
    right.xaxis.set_major_formatter("{x:g}")
    left.set_title("By round")
    left.set_xlabel("round")
    left.set_xlim(0, len(rounds))
    left.set_ylim(0, _top([setting], "macro_f1"))
    left.set_ylabel("reason macro-F1, held-out infants")
    right.set_title("By what was uploaded")
    right.set_xlabel("MB uploaded by all sites together")
    left.legend(loc="lower right", labelcolor=MUTED)
    return svg(figure, "by-megabyte", "Macro-F1 of the codecs by round and by uploaded megabytes")


@styled
def options(document: Json) -> str:
    """Options I and II of renewing a site's variate, and averaging without."""
    settings = [s for s in document["settings"] if len(_arms(s, _OPTIONS)) > 1]
    if not settings:
        return ""
    figure, (ax,) = draw(4.6, 3.0)
    for arm, colour in _arms(settings[0], {"average": GREY, **_OPTIONS}):
        rounds = np.arange(1, len(arm["macro_f1"]["mean"]) + 1)
        _band(ax, rounds, arm["macro_f1"], colour, _OPTION_TITLES.get(arm["arm"], arm["title"]))
    ax.set_title(f"Control variates, {degree(settings[0]['alpha'])}")
    ax.set_xlabel("round")
    ax.set_ylabel("reason macro-F1, held-out infants")
    ax.set_xlim(0, len(rounds))
    ax.set_ylim(0, _top(settings[:1], "macro_f1"))
    ax.legend(loc="lower right", labelcolor=MUTED)
    return svg(figure, "options", "Macro-F1 by round with options I and II of control variates")


@styled
def savings(document: Json) -> str:
    """Share of rounds that control variates save, setting by setting, with and without a proximal term; the paper's claim."""
    shown = [c for c in document["comparisons"] if (c["with"], c["without"]) in
             (("cv", "average"), ("cv_prox", "prox"))]  # fmt: skip
    if not shown:
        return ""
    claim = document["definitions"]["claim"]
    labels, rows = [], []
    for comparison in shown:
        beside = "no proximal term" if comparison["without"] == "average" else "with proximal term"
        lines: Sequence[tuple[str, Json]] = [
            *((f"α = {s['alpha']:g}, {s['participation']:.0%} of sites", s["saving"]) for s in comparison["settings"]),
            ("all settings", comparison["overall"]),
        ]  # fmt: skip
        for label, value in lines:
            labels.append(f"{beside}, {label}")
            rows.append(
                (value, BLUE if comparison["without"] == "average" else VIOLET, label == "all settings")
            )
    figure, (ax,) = draw(9.4, 0.9 + 0.24 * len(rows))
    y = np.arange(len(rows))[::-1]
    ends = [v["low"] if v["low"] is not None else v["value"] for v, _, _ in rows]
    low_end = max(
        -1.5, np.floor(2 * min(*ends, 0.0)) / 2
    )  # what costs more than 2.5 times the rounds is cut off
    for at, (value, colour, bold) in zip(y, rows, strict=True):
        if value["low"] is not None:
            low = max(value["low"], low_end)
            ax.hlines(at, low, value["high"], color=colour, linewidth=3.2 if bold else 1.6)
        ax.scatter(
            [max(value["value"], low_end)], [at], color=colour, s=46 if bold else 26, zorder=3, linewidths=0
        )
    ax.axvline(0, color=MUTED, linewidth=0.9)
    ax.axvline(claim, color=ORANGE, linewidth=1.2, linestyle=(0, (4, 3)))
    ax.annotate(
        f"the paper: {claim:.0%}", (claim, len(rows) - 0.45), (4, 0), textcoords="offset points",
        color=ORANGE, fontsize=8, va="center", annotation_clip=False,
    )  # fmt: skip
    ax.set_title("Rounds saved by control variates")
    ax.set_xlabel("share of rounds saved (left of 0: more rounds were needed)")
    ax.set_yticks(y, labels)
    ax.set_ylim(-0.7, len(rows) - 0.2)
    ax.set_xlim(low_end, 1.0)
    ticks = np.arange(low_end, 1.01, 0.5)
    ax.set_xticks(ticks, [f"{100 * t:.0f} %".replace("-", "−") for t in ticks])
    ax.grid(visible=False, axis="y")
    ax.axhline(y[len(rows) // 2] + 0.5, color=RULE, linewidth=0.7)
    return svg(figure, "savings", "Share of rounds saved by control variates in each setting, with intervals")
