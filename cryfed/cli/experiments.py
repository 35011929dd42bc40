"""`cryfed experiments`: how fast the federation learns, with and without its parts."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(experiments)


class Which(StrEnum):
    """What is compared."""

    convergence = "convergence"
    ablation = "ablation"


def experiments(
    plan: Annotated[
        Which,
        typer.Option(
            help="convergence: rounds with and without control variates, proximal term and codec. "
            "ablation: the recipe with one component changed at a time, and by difficulty of the corpus."
        ),
    ] = Which.convergence,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="A look at the machinery in about a minute; its scores mean nothing."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for cells, page and summary; default: RUNS/experiments or RUNS/ablation."),
    ] = None,
) -> None:
    """Compare what the federation is made of over seeds; leave one HTML page.

    One process for each core that this command may use (`taskset` limits it). Finished trainings are kept in FOLDER/*.jsonl:
    run again it resumes.

    ```
    cryfed experiments                   # control variates, proximal term, codec: 240 trainings, hours
    cryfed experiments --plan ablation   # each component at a time, and the benchmark's difficulty: a quarter of an hour
    ```
    """
    from cryfed.cli.runs import _quietly, prefect_session
    from infra.settings import load_settings

    settings = load_settings()
    name = "experiments" if plan is Which.convergence else plan.value
    folder = (out or settings.runs_dir / (f"{name}-quick" if quick else name)).resolve()
    with prefect_session(settings):
        if plan is Which.ablation:
            from flows.ablation import ablation as flow
        else:
            from flows.experiments import experiments as flow

        page = _quietly(lambda _none: flow(folder, quick), None)
    typer.echo(f"page: {page}")
    if plan is Which.convergence:
        typer.echo(f"summary: {folder / 'summary.md'}")
