"""`cryfed drift`: do new clips still look like what a release learned from?"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from models.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from infra.data.manifest import Manifest
    from infra.settings import LimitSettings
    from validation.reference import Reference

DRIFTED: Final = 3
"""Exit status where a feature drifted; 1 stays for what could not be done."""

_TABLES: Final = {".csv", ".parquet", ".pq"}

Part = Literal["all", "train", "val", "test", "rest"]


def register(app: typer.Typer) -> None:
    """Add the command to the top level."""
    app.command()(drift)


def drift(
    manifest: Annotated[Path, typer.Argument(help="CSV or Parquet of the new clips.")],
    against: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a run, a reference file, or a manifest to measure. Default: the latest run."
        ),
    ] = None,
    part: Annotated[
        Part, typer.Option(help="New clips to look at, by fold as `retrain` would; rest is all but test.")
    ] = "all",
    against_part: Annotated[
        Part, typer.Option(help="The same of --against, where that is a manifest.")
    ] = "all",
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="Only new clips whose COLUMN=VALUE, e.g. site=ward-2; several must all hold.",
            metavar="COLUMN=VALUE",
        ),
    ] = None,
    html: Annotated[
        Path, typer.Option(help="Page to write; the numbers go beside it, with the ending .json.")
    ] = Path("drift.html"),
    reference_out: Annotated[
        Path | None,
        typer.Option(
            help="Write the clips of MANIFEST as a reference to this file, compare nothing, and stop."
        ),
    ] = None,
) -> None:
    """Hold new clips against what a release learned from: PSI and KL of every measurement and label share.

    The clips are measured as the gate measures them. PSI of small samples is never 0, so each feature has its own threshold: what
    chance gives at these numbers of clips and infants. `watch` is above that; `drift` is above what chance gives in any feature.

    ```
    cryfed drift new.csv                                   # against runs/latest
    cryfed drift new.csv --against runs/latest --html new-drift.html
    cryfed drift new.csv --where site=ward-2 --against last-year.csv
    cryfed drift clips.csv --part rest --reference-out reference.json
    ```

    Exit status 0: no drift, though perhaps something to watch. 3: at least one feature drifted. 1: it could not be said.
    """
    from infra.data.manifest import load_manifest
    from infra.federation.files import write_atomic
    from infra.report.drift import render_drift
    from infra.report.render import write_page
    from infra.settings import load_settings
    from validation.drift import compare
    from validation.reference import make_reference

    settings = load_settings()
    limits = settings.limits
    clips = load_manifest(manifest, limits=limits)
    rows = _chosen(_of_part(clips, part), where or [])
    if reference_out is not None:
        made = make_reference(_observed(clips, rows, limits), clips.digest)
        write_atomic(reference_out, made.to_json().encode())
        typer.echo(f"reference: {reference_out}, {made.clips} clips of {made.groups} groups")
        return
    base = against or settings.runs_dir / "latest"
    reference = _reference(base, against_part, limits)
    document = compare(reference, _observed(clips, rows, limits))
    document |= {"command": _command(), "source": _source(manifest, part, where or [], base, against_part)}
    write_atomic(html.with_suffix(".json"), (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())
    write_page(render_drift(document), html)
    _print(document)
    typer.echo(f"page: {html}\nnumbers: {html.with_suffix('.json')}")
    if document["verdict"] == "drift":
        raise typer.Exit(DRIFTED)


def _reference(path: Path, part: Part, limits: LimitSettings) -> Reference:
    from infra.data.manifest import load_manifest
    from validation.reference import make_reference, read_reference

    if path.suffix.lower() in _TABLES:
        clips = load_manifest(path, limits=limits)
        return make_reference(_observed(clips, _of_part(clips, part), limits), clips.digest)
    if part != "all":
        raise ConfigError(f"--against-part belongs to a manifest, and {path} is none: leave it out")
    return read_reference(path)


def _of_part(clips: Manifest, part: Part) -> pd.DataFrame:
    from infra.data.splits import assign_folds, parts
    from models.frames import PART_NAMES

    if part == "all":
        return clips.table
    names = parts(assign_folds(clips.table)).map(dict(enumerate(PART_NAMES)))
    return clips.table[(names != "test") if part == "rest" else (names == part)]


def _chosen(rows: pd.DataFrame, where: list[str]) -> pd.DataFrame:
    for condition in where:
        column, equals, value = condition.partition("=")
        if not equals or column not in rows:
            raise ConfigError(
                f"--where {condition!r}: write COLUMN=VALUE; columns are {', '.join(rows.columns)}"
            )
        rows = rows[rows[column].astype(str) == value]
    return rows


def _observed(clips: Manifest, rows: pd.DataFrame, limits: LimitSettings) -> pd.DataFrame:
    """Measure the clips, with progress where somebody is there to see it."""
    import pandas as pd
    from rich.console import Console
    from rich.progress import track

    from models.errors import DataError
    from validation.measure import measure_site
    from validation.reference import observe, recorded

    rows = recorded(rows)
    if rows.empty:
        raise DataError(f"{clips.path}: no clip so chosen was recorded at a site; choose other rows")
    steps = [rows.iloc[k : k + 10] for k in range(0, len(rows), 10)]
    shown = track(steps, "measuring clips", console=Console(stderr=True), transient=True,
                  disable=not sys.stderr.isatty())  # fmt: skip
    measured = [
        measure_site(some, clips.root, max_seconds=limits.max_clip_seconds, max_bytes=limits.max_file_bytes)
        for some in shown
    ]
    return observe(rows, pd.concat(measured, ignore_index=True))


def _command() -> str:
    """The command as it was typed, for the page."""
    return shlex.join(["cryfed", *sys.argv[1:]])


def _source(manifest: Path, part: Part, where: list[str], base: Path, against_part: Part) -> str:
    new = ", ".join([f"{manifest.name} ({part})", *where])
    old = f"{base.name} ({against_part})" if base.suffix.lower() in _TABLES else str(base.resolve().name)
    return f"New: {new}. Reference: {old}."


def _print(document: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    new, reference = document["new"], document["reference"]
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title=f"{new['clips']} clips of {new['groups']} groups against {reference['clips']} of {reference['groups']}",
        title_justify="left",
        caption="95 % intervals over the new groups · no drift: what chance gives on average\n"
        "threshold: what chance exceeds in one of 20 features",
        caption_justify="left",
    )
    table.add_column("feature", no_wrap=True)
    for name in ("PSI", "interval", "no drift", "threshold", "KL"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    style = {"none": "dim", "watch": "yellow", "drift": "bold red"}
    for row in document["features"]:
        psi = row["psi"]
        ends = "–" if psi["low"] is None else f"{psi['low']:.2f}–{psi['high']:.2f}"
        numbers = [f"{row[key]:.2f}" for key in ("expected", "threshold", "kl")]
        verdict = Text(row["verdict"], style[row["verdict"]])
        table.add_row(row["title"], f"{psi['value']:.2f}", ends, *numbers, verdict)
    console = Console()
    console.print(table)
    for name, why in document["left_out"].items():
        console.print(f"[dim]{name} is not judged: {why}[/dim]")
