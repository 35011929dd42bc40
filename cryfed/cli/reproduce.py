"""`cryfed reproduce`: the paper's table, measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(reproduce)


def reproduce(
    quick: Annotated[
        bool,
        typer.Option("--quick", help="A look at the machinery in a few minutes; its numbers mean nothing."),
    ] = False,
    full: Annotated[
        bool,
        typer.Option(
            "--full", help="Also run all of `cryfed experiments` and `cryfed evidence`: many hours."
        ),
    ] = False,
    again: Annotated[
        bool,
        typer.Option(
            "--again",
            help="Run the pipeline although a run with the same parameters is there; the store decides.",
        ),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for table and trainings; default: RUNS/reproduce.")
    ] = None,
) -> None:
    """Make the paper's table: claimed, measured on the synthetic benchmark, measured on real clips, and why they differ.

    Runs the pipeline on synthetic clips and, where CRYFED_DATA has them, on real ones, the ablation, and a small comparison of
    control variates; reads what `cryfed experiments` and `cryfed evidence` left; times the released graphs. What is there is
    read, and a run that was killed goes on. The table is also put into the reports of the two runs.

    ```
    cryfed reproduce           # about an hour on 2 cores
    cryfed reproduce --quick   # the machinery alone
    ```
    """
    from cryfed.cli.runs import _checked, _quietly, prefect_session
    from flows.parameters import ReproduceParameters
    from infra.settings import load_settings

    settings = load_settings()
    chosen = _checked(
        ReproduceParameters, {"quick": quick, "full": full, "again": again, "out": out and out.resolve()}
    )
    with prefect_session(settings):
        from flows.reproduce import reproduce as flow

        page = Path(_quietly(flow, chosen))
    typer.echo(f"page: {page}")
    typer.echo(f"numbers: {page.with_suffix('.json')}")
