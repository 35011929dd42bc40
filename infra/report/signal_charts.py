"""The chart of a permutation test: what was scored, beside what labels that say nothing would score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from infra.report.figures import BLUE, GREY, MUTED, draw, styled, svg

Json = Mapping[str, Any]


@styled
def permutation(test: Json | None) -> str:
    """Histogram of macro-F1 over the relabellings, with the observed one and the 95 % quantile."""
    if not test or test["p"] is None:
        return ""
    null, observed = test["null"], test["macro_f1"]
    edges, count = np.array(null["edges"]), np.array(null["count"])
    figure, (ax,) = draw(4.6, 3.0)
    low, high = min(edges[0], observed - 0.02), max(edges[-1], observed + 0.02)
    ax.bar(edges[:-1], count, width=np.diff(edges), align="edge", color=GREY, linewidth=0)
    top = 1.28 * max(int(count.max()), 1)
    ax.vlines(null["quantile_95"], 0, 0.8 * top, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    ax.vlines(observed, 0, 0.9 * top, color=BLUE, linewidth=2.2)
    right = observed > (low + high) / 2
    ax.annotate(
        f"observed {observed:.3f}",
        (observed, 0.9 * top),
        (-5 if right else 5, 0),
        textcoords="offset points",
        ha="right" if right else "left",
        va="center",
        color=BLUE,
    )
    ax.set_title(f"Labels permuted within {test['within']}, {test['permutations']} times")
    ax.set_xlabel("macro-F1 of the same answers; dashed: 95 % quantile")
    ax.set_ylabel("relabellings")
    ax.set_xlim(low, high)
    ax.set_ylim(0, top)
    ax.grid(visible=False, axis="x")
    return svg(figure, "permutation", "Macro-F1 of the reason head beside that of permuted labels")
