"""What all our pages share: how templates are filled, and one look."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup

_FOLDER = Path(__file__).parent


EVIDENCE: Final = {
    "evidence": "The gate",
    "abstention": "Abstention",
    "calibration": "Calibration",
    "behaviour": "Behaviour",
    "long_recordings": "Long recordings",
    "suspects": "Clips to listen to",
}
"""The evidence's pages, by file name without its ending, in the order of their navigation."""


@dataclass(frozen=True)
class Link:
    """To a page beside this one; `here` on the page itself."""

    href: str
    title: str
    here: bool


def navigation(here: str, shown: Collection[str]) -> list[Link]:
    """From one of the evidence's pages to those of `EVIDENCE` that there are."""
    return [Link(f"{name}.html", title, name == here) for name, title in EVIDENCE.items() if name in shown]


def environment(folder: Path) -> jinja2.Environment:
    """Templates of a folder: everything is escaped, and a name that is not given is an error."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def fill(
    template: Path,
    document: Mapping[str, Any],
    charts: Mapping[str, str],
    filters: Mapping[str, Callable[..., Any]],
    **more: Any,
) -> str:
    """A page of a document and its charts, in our style.

    Args:
        template: its file.
        document: what the template calls by name.
        charts: SVG by name, drawn and escaped by us.
        filters: for the template.
        more: further names.
    """
    from markupsafe import Markup

    templates = environment(template.parent)
    templates.filters.update(filters)
    return templates.get_template(template.name).render(
        document,
        css=stylesheet(),
        charts={name: Markup(figure) for name, figure in charts.items()},  # noqa: S704 — see above
        **more,
    )


def palette() -> str:
    """Colours and typefaces, light and dark, as CSS variables; needs no template library."""
    return (_FOLDER / "palette.css").read_text("utf-8")


def stylesheet() -> Markup:
    """The report's style, to stand in a page."""
    from markupsafe import Markup

    return Markup(palette() + (_FOLDER / "page.css").read_text("utf-8"))  # noqa: S704 — our own files
