"""The page of clips that look mislabelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infra.report.pages import Link, environment, stylesheet
from infra.report.render import num

Json = Mapping[str, Any]

_FOLDER = Path(__file__).parent


def render_suspects(document: Json, nav: Sequence[Link] = ()) -> str:
    """Document → HTML, pictures included."""
    templates = environment(_FOLDER)
    templates.filters.update(num=num)
    return templates.get_template("suspects.html.j2").render(document, css=stylesheet(), nav=nav)
