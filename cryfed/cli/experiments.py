"""`cryfed experiments`: how fast the federation learns, with and without its parts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(experiments)


def experiments(
    quick: Annotated[
        bool,
        typer.Option("--quick", help="A look at the machinery in about a minute; its scores mean nothing."),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for cells, page and summary; default: RUNS/experiments.")
    ] = None,
) -> None:
    """Compare control variates, proximal term and codec over rounds, seeds and unlike sites; leave one HTML page.

    One process for each core that this command may use (`taskset` limits it). Finished trainings are kept in FOLDER/cells.jsonl:
    run again it resumes.
    """
    from cryfed.cli.runs import _quietly, prefect_session
    from infra.settings import load_settings

    settings = load_settings()
    folder = (out or settings.runs_dir / ("experiments-quick" if quick else "experiments")).resolve()
    with prefect_session(settings):
        from flows.experiments import experiments as flow

        page = _quietly(lambda _none: flow(folder, quick), None)
    typer.echo(f"page: {page}")
    typer.echo(f"summary: {folder / 'summary.md'}")
