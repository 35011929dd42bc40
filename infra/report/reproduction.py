"""The paper's table as a page of its own, and in the reports of the runs that it is made of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from infra.report.pages import environment, stylesheet
from infra.report.paper import Sources, cells_of, paper_document
from infra.report.paper_cells import Json
from infra.report.render import render_report, short, when, write_page
from models.errors import DataError

PAPER: Final = "paper.json"
PAGE: Final = "paper.html"
MAX_BYTES: Final = 64 * 2**20

_FOLDER = Path(__file__).parent


def read_document(path: Path) -> dict[str, Any]:
    """A JSON document that one of our commands left.

    Raises:
        DataError: it cannot be read, is too large, or is no JSON object.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path} is larger than {MAX_BYTES} bytes: it is no document of ours")
        found = json.loads(path.read_bytes())
    except OSError as err:
        raise DataError(f"cannot read {path}: {err.strerror}; run the command that makes it") from None
    except ValueError:
        raise DataError(f"{path} is no JSON: delete it, and run the command that makes it again") from None
    if not isinstance(found, dict):
        raise DataError(f"{path} holds no JSON object: delete it, and run the command that makes it again")
    return found


def write_reproduction(
    sources: Sources, found: Sequence[Mapping[str, str]], out: Path, runs: Mapping[str, Path], *, quick: bool = False
) -> Path:  # fmt: skip
    """`paper.json` and `paper.html` in `out`, and the table into the reports of `runs`; returns the page.

    Args:
        sources: what was measured.
        found: where each document came from: `name`, `from` and `how`.
        out: a folder.
        runs: the folders of the runs in `sources`, by column; each gets `paper.json`, and its report is drawn again.
        quick: say that the numbers mean nothing.

    Raises:
        OutputError: a folder cannot be written.
    """
    document = {**paper_document(sources), "quick": quick, "documents": [dict(f) for f in found]}
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    for name, folder in runs.items():
        write_page(text, folder / PAPER)
        render_report(getattr(sources, name), folder / "report.html", document)
    write_page(text, out / PAPER)
    write_page(render_paper(document), out / PAGE)
    return out / PAGE


def render_paper(document: Json) -> str:
    """`paper.json` → HTML; equal documents give equal pages."""
    templates = environment(_FOLDER)
    templates.filters.update(short=short, when=when)
    return templates.get_template("reproduction.html.j2").render(
        paper=document,
        css=stylesheet(),
        measured=len(cells_of(document)),
        cells=2 * len(document["rows"]),
    )
