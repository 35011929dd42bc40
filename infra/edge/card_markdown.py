"""Markdown that other people's words cannot break: labels, sites and notes come from manifests that anybody may have written.

What is escaped shows as it was written, in CommonMark and in GitHub's dialect, and is no markup in HTML either: tags, links,
headings, table cells and code spans all need a character that is escaped here.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

LONGEST: Final = 200
"""Characters of one name; what is longer is cut."""

_ENTITIES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "|": "&#124;"}
_MARKUP = re.compile(
    r"([\\`*{}\[\]#!~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|(?<=:)/(?=/)|(?<=www)\.|^[-+=](?=\s|$|-|=))", re.I
)
_NUMBERED = re.compile(r"^(\d+)([.)])(?=\s|$)")


def plain(text: object, longest: int = LONGEST) -> str:
    """One line of somebody else's words, as text and nothing else."""
    line = " ".join(str(text).split())
    # controls, and characters that reorder what stands beside them
    line = "".join(c for c in line if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn"))
    if len(line) > longest:
        line = line[: longest - 1] + "…"
    marked = _NUMBERED.sub(r"\1\\\2", _MARKUP.sub(r"\\\1", line))
    return "".join(_ENTITIES.get(c, c) for c in marked)


def bullets(lines: Iterable[str]) -> Iterator[str]:
    """A list of lines that are ours."""
    return (f"- {line}" for line in lines)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table of cells that are ours or `plain`, and an empty line."""
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def interval(value: Any) -> str:
    """A number of the evaluation with its interval; a dash where it is undefined."""
    if not isinstance(value, Mapping) or value.get("value") is None:
        return "–"
    text = f"{value['value']:.3f}"
    return text if value.get("low") is None else f"{text} ({value['low']:.3f}–{value['high']:.3f})"


def number(value: Any, digits: int = 3) -> str:
    """A bare number; a dash where it is undefined."""
    return f"{value:.{digits}f}" if isinstance(value, (int, float)) else "–"


def percent(value: Any) -> str:
    """A share."""
    return "–" if value is None else f"{100 * value:.1f} %"
