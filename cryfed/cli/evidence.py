"""`cryfed evidence`: how well the gate does on recordings that it never met."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(evidence)


def evidence(
    manifest: Annotated[
        Path | None, typer.Option(help="CSV or Parquet of the clips; default: manifest.csv in CRYFED_DATA.")
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="A look at the machinery in a few minutes; its scores mean nothing."),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for scores and pages; default: RUNS/evidence.")
    ] = None,
) -> None:
    """Train the gate over grouped folds, seeds and arms on recordings; leave pages about it.

    Federated and central, with and without the denoiser, and without each class of noise. The federated networks are then played
    altered cries, sounds that are none, and hours of a ward made of clips that they never met. One process for each core that
    this command may use (`taskset` limits it). What is finished is kept in FOLDER/cells and FOLDER/heard: run again it resumes.
    """
    from cryfed.cli.runs import _quietly, prefect_session
    from infra.settings import load_settings

    settings = load_settings()
    folder = (out or settings.runs_dir / ("evidence-quick" if quick else "evidence")).resolve()
    table = (manifest or settings.data / "manifest.csv").resolve()
    with prefect_session(settings):
        from flows.evidence import evidence as flow

        page = _quietly(lambda _none: flow(table, folder, quick), None)
    typer.echo(f"page: {page}")
