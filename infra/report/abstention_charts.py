"""Charts of the abstention page, each from its part of the document. A chart without data is an empty string."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from infra.report.figures import (
    BLUE,
    GREEN,
    GREY,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    RULE,
    VIOLET,
    box,
    draw,
    named,
    styled,
    svg,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Json = Mapping[str, Any]

NAMES, COLOURS = named(
    {
        "energy": ("energy", BLUE),
        "max_softmax": ("top reason probability", GREY),
        "gate": ("gate probability", ORANGE),
        "mahalanobis": ("Mahalanobis distance", VIOLET),
    }
)
_TICKS = ([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])


def _unit(ax: Axes) -> None:
    ax.set_xlim(-0.02, 1.02)
    ax.set_xticks(*_TICKS)
    ax.set_ylim(-0.02, 1.02)
    ax.set_yticks(*_TICKS)


@styled
def roc(ranking: Json) -> str:
    """ROC of every signal against all, the sites' own and public non-cries."""
    panels = [
        (title, ranking[which]["signals"])
        for which, title in (
            ("all", "All non-cries"),
            ("site", "The sites' own"),
            ("public", "Public noise"),
        )
        if any(s["roc"][0] for s in ranking[which]["signals"].values())
    ]
    if not panels:
        return ""
    figure, axes = draw(9.4, 3.3, len(panels), sharey=True)
    for ax, (title, signals) in zip(axes, panels, strict=True):
        ax.plot([0, 1], [0, 1], color=RULE, linewidth=1)
        for name, one in reversed(list(signals.items())):
            ax.plot(*one["roc"], color=COLOURS[name], label=f"{NAMES[name]}, {one['auroc']['value']:.3f}")
        ax.set_title(title)
        ax.set_xlabel("non-cries let through")
        _unit(ax)
        handles, labels = ax.get_legend_handles_labels()
        ax.legend(handles[::-1], labels[::-1], loc="lower right", labelcolor=MUTED, fontsize=7.5)
    axes[0].set_ylabel("cries kept")
    return svg(
        figure, "abstention-roc", "Receiver operating characteristic of every signal, by kind of non-cry"
    )


@styled
def precision_recall(ranking: Json) -> str:
    """Precision against recall of the cries, against all non-cries."""
    one = ranking["all"]
    signals = {n: s for n, s in one["signals"].items() if s["precision_recall"][0]}
    if not signals:
        return ""
    figure, (ax,) = draw(4.6, 3.3)
    ax.axhline(one["prevalence"], color=MUTED, linewidth=0.8, linestyle=(0, (4, 4)))
    for name, s in reversed(list(signals.items())):
        ax.plot(
            *s["precision_recall"],
            color=COLOURS[name],
            label=f"{NAMES[name]}, {s['average_precision']['value']:.3f}",
        )
    ax.set_title("Precision of what is kept")
    ax.set_xlabel("share of cries kept (recall)")
    ax.set_ylabel("cries among what is kept")
    _unit(ax)
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(handles[::-1], labels[::-1], loc="lower left", labelcolor=MUTED, fontsize=7.5)
    return svg(figure, "abstention-pr", "Precision against recall of the cries under every signal")


@styled
def risk_coverage(risk: Json | None) -> str:
    """Share of wrong reasons among the cries answered, most trusted first."""
    if not risk or not risk["best_possible"][0]:
        return ""
    figure, (ax,) = draw(4.6, 3.6)
    ax.axhline(risk["error_rate"]["value"], color=MUTED, linewidth=0.8, linestyle=(0, (4, 4)))
    ax.plot(*risk["best_possible"], color=RULE, label="best possible")
    top = risk["error_rate"]["value"]
    for name, one in reversed(list(risk["signals"].items())):
        coverage, wrong = (np.array(v) for v in one["curve"])
        ax.plot(coverage, wrong, color=COLOURS[name], label=NAMES[name])
        top = max(top, float(wrong[coverage > 0.1].max(initial=0)))
    ax.set_title("Answer fewer, err less?")
    ax.set_xlabel("share of cries answered")
    ax.set_ylabel("wrong reasons among them")
    _unit(ax)
    top = min(1.02, max(1.2 * top, 0.05))
    ticks = [t for t in np.arange(0, 1.01, 0.1 if top < 0.6 else 0.2) if t <= top]
    ax.set_yticks(ticks, [f"{t:.1f}" for t in ticks])
    ax.set_ylim(-0.02 * top, top)
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(
        handles[::-1], labels[::-1], loc="outside lower center", labelcolor=MUTED, fontsize=7.5, ncols=3
    )
    return svg(figure, "abstention-risk", "Risk against coverage of the reason head under every signal")


@styled
def by_snr(rows: Sequence[Json]) -> str:
    """AUROC, cries kept and non-cries refused at every SNR, noisiest first."""
    order = list(reversed(rows))
    if len(order) < 2:
        return ""
    ticks = ["as\nrecorded" if r["snr_db"] is None else f"{r['snr_db']:g}".replace("-", "−") for r in order]
    panels = [
        (key, title)
        for key, title in (
            ("auroc", "AUROC"),
            ("cries_kept", "Cries kept"),
            ("noncries_refused", "Non-cries refused"),
        )
        if any(s[key] for r in order for s in r["signals"].values())
    ]
    figure, axes = draw(9.4, 3.2, len(panels))
    x = np.arange(len(order))
    for ax, (key, title) in zip(axes, panels, strict=True):
        for name in reversed(list(order[-1]["signals"])):
            cells = [(r["signals"].get(name) or {}).get(key) or {} for r in order]
            value, low, high = (
                np.array([np.nan if c.get(k) is None else c[k] for c in cells], float)
                for k in ("value", "low", "high")
            )
            ax.fill_between(x, low, high, color=COLOURS[name], alpha=0.13, linewidth=0)
            ax.plot(x, value, color=COLOURS[name], marker="o", markersize=3.5, label=NAMES[name])
        ax.set_title(title)
        ax.set_xticks(x, ticks)
        ax.set_xlabel("SNR of the noise mixed in, dB")
        ax.set_ylim(top=1.02)
        ax.grid(visible=False, axis="x")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles[::-1], labels[::-1], loc="outside lower center", ncols=4, labelcolor=MUTED, fontsize=8
    )
    return svg(figure, "abstention-snr", "Every signal at each signal-to-noise ratio")


@styled
def differences(ranking: Json) -> str:
    """Each signal less energy: AUROC and FPR95 with paired intervals, by kind of non-cry."""
    kinds = (("all", "all", INK), ("site", "the sites' own", ORANGE), ("public", "public noise", GREEN))
    names = list(ranking["all"]["against_energy"])
    if not names:
        return ""
    figure, axes = draw(9.4, 1.0 + 0.62 * len(names), 2, sharey=True)
    y = np.arange(len(names))[::-1]
    for ax, (key, title) in zip(
        axes, (("auroc", "AUROC less energy's"), ("fpr95", "FPR95 less energy's")), strict=True
    ):
        ax.axvline(0, color=MUTED, linewidth=0.9)
        for offset, (which, label, colour) in zip((0.2, 0.0, -0.2), kinds, strict=True):
            cells = [ranking[which]["against_energy"].get(n, {}).get(key) for n in names]
            for at, c in zip(y + offset, cells, strict=True):
                if c and c["value"] is not None:
                    if c["low"] is not None:
                        ax.hlines(at, c["low"], c["high"], color=colour, linewidth=2)
                    ax.scatter(
                        [c["value"]],
                        [at],
                        color=colour,
                        s=24,
                        zorder=3,
                        linewidths=0,
                        label=label if at == y[0] + offset else None,
                    )
        ax.set_title(title)
        ax.locator_params(axis="x", nbins=6)
        ax.set_yticks(y, [NAMES[n] for n in names])
        ax.set_ylim(-0.5, len(names) - 0.5)
        ax.grid(visible=False, axis="y")
    axes[0].set_xlabel("to the left: energy is better")
    axes[1].set_xlabel("to the right: energy is better")
    axes[1].legend(title="against", loc="center left", bbox_to_anchor=(1.0, 0.5), labelcolor=MUTED)
    return svg(figure, "abstention-differences", "Paired differences of every signal to energy")


@styled
def cross_site(table: Json, key: str) -> str:
    """Site i's threshold at site j: a share and its count in every cell; the frame marks a site's own."""
    cross = table["cross"]
    to, n = cross["to"], cross["cries" if key == "kept" else "noncries"]
    if not to:
        return ""
    figure, (ax,) = draw(4.6, 0.9 + 0.36 * (len(to) + 1))
    for i, row in enumerate(cross[key]):
        for j, cell in enumerate(row):
            if cell["value"] is None:
                ax.annotate("–", (j, i), ha="center", va="center", color=MUTED)
                continue
            colour = BLUE if key == "kept" else ORANGE
            # what is missing is what matters: the fuller the colour, the fewer are kept (or refused)
            alpha = 0.06 + 0.8 * min(1.0, (1 - cell["value"]) / (0.4 if key == "kept" else 1.0))
            ax.add_patch(box(j, i, color=colour, alpha=alpha))
            ax.annotate(
                f"{100 * cell['value']:.0f}",
                (j, i),
                ha="center",
                va="center",
                fontsize=8,
                color=PAPER if alpha > 0.55 else INK,
            )
            if i == j:
                ax.add_patch(box(j, i, fill=False, edgecolor=INK, linewidth=1.2))
    ax.set_xlim(-0.5, len(to) - 0.5)
    ax.set_ylim(len(cross["from"]) - 0.5, -0.5)
    short = [name.removeprefix("site") or name for name in to]
    ax.set_xticks(
        range(len(to)), [f"{name}\n{count}" if count else name for name, count in zip(short, n, strict=True)]
    )
    ax.set_yticks(range(len(cross["from"])), cross["from"])
    ax.set_title("Cries kept, %" if key == "kept" else "Non-cries refused, %")
    ax.set_xlabel(f"applied at site (below: its {'cries' if key == 'kept' else 'non-cries'})")
    ax.set_ylabel("threshold of site")
    ax.grid(visible=False)
    for side in ax.spines.values():
        side.set_visible(False)
    return svg(figure, f"cross-site-{key}", f"Threshold of every site at every other site: {key}")
