"""Matplotlib figures as inline SVG that takes its colours and fonts from the page.

Figures are drawn in stand-in colours, which become CSS variables in the SVG text: one drawing serves light, dark and print.
"""

from __future__ import annotations

import functools
import html
import io
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")

INK, MUTED, RULE, PAPER = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04"
BLUE, ORANGE, GREEN, VIOLET, GREY = "#0a0b11", "#0a0b12", "#0a0b13", "#0a0b14", "#0a0b15"
_VARIABLES = {
    INK: "--ink", MUTED: "--muted", RULE: "--rule", PAPER: "--paper",
    BLUE: "--blue", ORANGE: "--orange", GREEN: "--green", VIOLET: "--violet", GREY: "--grey",
}  # fmt: skip

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text: selectable, searchable, in the page's font
    "svg.hashsalt": "cryfed",
    "font.size": 8.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 8.5,
    "axes.titlesize": 9.5,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 5,
    "ytick.major.pad": 5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "lines.markersize": 5,
}


def named(curves: Mapping[str, tuple[str, str]]) -> tuple[dict[str, str], dict[str, str]]:
    """What a page calls its curves, and their colours, by key, from both."""
    return {key: name for key, (name, _) in curves.items()}, {
        key: colour for key, (_, colour) in curves.items()
    }


def styled(chart: Callable[P, str]) -> Callable[P, str]:
    """Draw a chart in the page's style: matplotlib asks for it at every step, not only at the first."""

    @functools.wraps(chart)
    def inside(*args: P.args, **kwargs: P.kwargs) -> str:
        import matplotlib as mpl

        with mpl.rc_context(_STYLE):
            return chart(*args, **kwargs)

    return inside


def draw(
    width: float, height: float, columns: int = 1, rows: int = 1, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of `columns` axes side by side, in `rows` rows, in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, **options)
    figure.patch.set_visible(False)
    for ax in grid.flat:
        ax.patch.set_visible(False)
    return figure, list(grid.flat)


def box(column: int, row: int, **options: Any) -> Any:
    """A cell of a matrix that is drawn in units of its cells."""
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, **options)


def svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an `<svg>` element; `name` keeps its ids apart from those of other figures on the page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace("url(#", f"url(#{name}-").replace('xlink:href="#', f'xlink:href="#{name}-')
    text = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font: \1 var(--sans)", text)
    text = re.sub(r'(<svg [^>]*?)width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg [^>]*?)height="[^"]*"', r"\1", text, count=1)
    label = html.escape(description, quote=True)
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
