"""`cryfed fleet`: look at a fleet of devices, stop a rollout, keep the desired state fresh."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from infra.edge.fleet.operate import Driver

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="""Fleets of devices.

`cryfed keys init` makes one, `cryfed keys add-device` adds to it, `cryfed deploy CHANNEL --fleet FLEET` takes a release to it.
""",
)

_Fleet = Annotated[str, typer.Argument(help="Name of the fleet.")]


@app.command()
def status(
    fleet: _Fleet,
    page: Annotated[
        Path | None,
        typer.Option(help="Where to write the page; default: fleets/FLEET.html of the runs folder."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """What every device ought to run and says it runs, and how the rollout stands."""
    from infra.edge.fleet.page import headline, lede, render_page, ring_rows, rows
    from infra.report.render import write_page
    from infra.settings import load_settings
    from infra.store import registry

    with _driver(fleet) as driver:
        driver.reports.read()
        view = driver.view(
            {r.manifest_digest: f"{r.name}@{r.version}" for r in registry.releases(driver.store)}
        )
    out = (page or load_settings().runs_dir / "fleets" / f"{fleet}.html").resolve()
    write_page(render_page(view), out)
    if as_json:
        import json

        everyone = rows(view, limit=len(view.devices))
        typer.echo(
            json.dumps({"headline": headline(view), "rings": ring_rows(view), "devices": everyone}, indent=2)
        )
        return
    from rich.console import Console
    from rich.table import Table

    typer.secho(headline(view), bold=True)
    typer.echo(lede(view))
    for listed in (ring_rows(view), rows(view, limit=20)):
        if listed:
            table = Table(*listed[0], box=None, pad_edge=False)
            for row in listed:
                table.add_row(*map(str, row.values()))
            Console().print(table)
    if len(view.devices) > 20:
        typer.echo(f"… and {len(view.devices) - 20} more")
    typer.echo(f"page: {out}")


@app.command()
def stop(
    fleet: _Fleet,
    why: Annotated[str, typer.Option(help="Reason; it is recorded.")] = "stopped by hand",
    wait: Annotated[float, typer.Option(help="Seconds to wait for the devices to go back.")] = 120.0,
) -> None:
    """Stop the rollout of a fleet and take its release off every device that has it."""
    import time

    from infra.edge.fleet.state import Phase

    with _driver(fleet) as driver:
        if driver.rollout.phase is not Phase.ROLLING:
            typer.echo(
                f"rollout {driver.rollout.number} of {driver.rollout.title} is {driver.rollout.phase} already"
            )
        else:
            driver.stop(why)
        deadline = time.monotonic() + wait
        while not driver.rollout.phase.over:
            step = driver.step()
            if step.rollout.phase.over or time.monotonic() >= deadline:
                break
            time.sleep(1.0)
        typer.echo(f"{driver.rollout.title}: {driver.rollout.phase}, {driver.rollout.why}")


@app.command()
def renew(
    fleet: _Fleet,
    adopt: Annotated[
        bool,
        typer.Option(
            "--adopt", help="After an exchange of keys: sign now, and take over what the retired keys signed."
        ),
    ] = False,
) -> None:
    """Sign the desired state anew where it has less than half of its time left; to be run daily.

    Devices refuse one that has expired, for else whoever holds the store could keep them from ever hearing of a newer.
    """
    with _driver(fleet, adopt=adopt) as driver:
        typer.echo("signed anew" if driver.renew(force=adopt) else "nothing to do yet")


@app.command("agent-bundle")
def agent_bundle(
    out: Annotated[Path, typer.Argument(help="Folder to write it into; it has to be empty or not there.")],
) -> None:
    """Write what a device gets: the agent with all it needs, its unit, and their checksums."""
    from infra.edge.agent_bundle import SUMS, write_agent

    count = len(write_agent(out))
    typer.echo(f"{count} files and {SUMS} in {out}; docs/device.md says how to install them")


@contextmanager
def _driver(fleet: str, *, adopt: bool = False) -> Iterator[Driver]:
    from infra.edge.fleet.operate import open_driver
    from infra.settings import load_settings
    from infra.store.embedded import open_store

    settings = load_settings()
    with open_store(settings.store, settings.work_dir) as store:
        yield open_driver(store, fleet, settings.keys_dir, adopt=adopt)
