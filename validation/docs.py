"""Data Docs that need no web: GX's pages without what they load from other hosts, under an index of our own."""

from __future__ import annotations

import html
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from models.errors import OutputError

# what a page would load from other hosts: scripts (with those that need them), styles, pictures
_REMOTE: Final = re.compile(
    r"<script\b.*?</script>|<link\b[^>]*>|<img\b[^>]*\bsrc=\"(?:https?:)?//[^>]*>"
    r"|<footer\b.*?</footer>",
    re.I | re.S,
)
_UNCLOSED: Final = re.compile(r"<(?=/?script\b)", re.I)
_REMOTE_URL: Final = re.compile(r"url\(['\"]?(?:https?:)?//[^)]*\)", re.I)
# file names and labels come from outside: whatever they contain, a page runs no script and loads nothing
_POLICY: Final = (
    "<meta http-equiv='Content-Security-Policy' "
    "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src 'self'\">"
)
_CSS: Final = Path(__file__).with_name("docs.css")
_SHOWN: Final = 50


@dataclass(frozen=True)
class RuleResult:
    """One rule's outcome: `found` says what was seen, `paths` are all offending rows in table order."""

    rule: str
    severity: str
    success: bool
    what: str
    found: str
    fix: str
    paths: tuple[str, ...]


@contextmanager
def fresh_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder beside `target` that takes its place on success, so that a half-written one is never found.

    Raises:
        OutputError: the folder cannot be written, or `target` holds something else than Data Docs.
    """
    target = target.absolute()
    fresh: Path | None = None
    try:
        if (
            target.exists()
            and not (target / "index.html").is_file()
            and (target.is_file() or any(target.iterdir()))
        ):
            raise OutputError(f"{target} holds something else than Data Docs: choose an empty folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        yield fresh
        fresh.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        fresh.replace(target)
    except OSError as err:
        raise OutputError(
            f"cannot write Data Docs to {target}: {err.strerror or err}; choose a folder that can be written"
        ) from None
    finally:
        if fresh is not None:
            shutil.rmtree(fresh, ignore_errors=True)


def localise(folder: Path) -> None:
    """Rewrite the pages below `folder`: reading a report must not call out to other hosts."""
    shutil.rmtree(
        folder / "static", ignore_errors=True
    )  # 4 MB of fonts and pictures that no page shows any more
    style = f"<style>\n{_CSS.read_text('utf-8')}</style>\n</head>"
    for page in folder.rglob("*.html"):
        text = _REMOTE_URL.sub("none", _REMOTE.sub("", page.read_text("utf-8")))
        text = _UNCLOSED.sub(
            "&lt;", text
        )  # GX writes file names as they are; an open script would hide the rest
        page.write_text(text.replace("<head>", f"<head>{_POLICY}", 1).replace("</head>", style, 1), "utf-8")


def write_index(folder: Path, results: Sequence[RuleResult]) -> None:
    """Write `index.html`: the verdict first, then each rule with what was found and where, then GX's own pages."""
    failed = [r for r in results if not r.success]
    critical = sum(r.severity == "critical" for r in failed)
    headline = (
        f"Failed: {critical} critical, {len(failed) - critical} warning(s)"
        if critical
        else f"Passed with {len(failed)} warning(s)"
        if failed
        else "Passed"
    )
    order = sorted(results, key=lambda r: (r.success, r.severity != "critical"))
    rows = "".join(_row(r) for r in order)
    links = "".join(
        f'<li><a href="{html.escape(page.relative_to(folder).as_posix())}">{kind} of the {suite} suite</a></li>'
        for kind, suite, page in _pages(folder)
    )
    (folder / "index.html").write_text(
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>"
        + _POLICY
        + "<meta name='viewport' content='width=device-width'>"
        f"<title>Data-quality gate</title><style>\n{_CSS.read_text('utf-8')}</style></head><body>"
        f"<main class='gate'><h4>Data-quality gate</h4>"
        f"<p class='verdict {'text-danger' if critical else 'text-success'}'>{headline}</p>"
        f"<p class='lead'>{len(results)} rules checked. A critical failure stops training; a warning is reported.</p>"
        "<table class='table'><thead><tr><th></th><th>Rule</th><th>Severity</th><th>Expected</th><th>Found</th></tr></thead>"
        f"<tbody>{rows}</tbody></table><h6>Great Expectations' own pages</h6><ul>{links}</ul></main></body></html>\n",
        "utf-8",
    )


def _row(result: RuleResult) -> str:
    mark = (
        "fa-check-circle"
        if result.success
        else "fa-times"
        if result.severity == "critical"
        else "fa-exclamation-triangle"
    )
    found = html.escape(result.found)
    if not result.success:
        found += f"<br><em>{html.escape(result.fix[0].upper() + result.fix[1:])}.</em>"
        if result.paths:
            shown = "".join(f"<li>{html.escape(p)}</li>" for p in result.paths[:_SHOWN])
            more = f"<li>… and {len(result.paths) - _SHOWN} more</li>" if len(result.paths) > _SHOWN else ""
            found += f"<details><summary>{len(result.paths)} row(s)</summary><ul>{shown}{more}</ul></details>"
    return (
        f"<tr><td><i class='{mark}'></i></td><td><code>{html.escape(result.rule)}</code></td><td>{result.severity}</td>"
        f"<td>{html.escape(result.what)}</td><td>{found}</td></tr>"
    )


def _pages(folder: Path) -> Iterator[tuple[str, str, Path]]:
    for page in sorted((folder / "validations").rglob("*.html")):
        yield "Results", page.relative_to(folder / "validations").parts[0], page
    for page in sorted((folder / "expectations").glob("*.html")):
        yield "Rules", page.stem, page
