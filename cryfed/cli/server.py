"""`cryfed server`: the embedded S3 and Prefect servers, up and down."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="""The servers that cryfed brings along: an S3 object store and a Prefect server, both on loopback.

`cryfed retrain` starts the store by itself and stops it at the end. Start them here to keep them: for schedules and workers,
for the Prefect UI, or to look into the store with any S3 client.
""",
)


@app.command()
def up(
    store: Annotated[bool, typer.Option(help="Start the object store.")] = True,
    prefect: Annotated[bool, typer.Option(help="Start the Prefect server.")] = True,
    store_port: Annotated[
        int, typer.Option(min=0, max=65535, help="S3 port; 0: the setting, the last one, or any.")
    ] = 0,
    prefect_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Prefect's port; 0: the last or any.")
    ] = 0,
) -> None:
    """Start the servers in the background, or find them running; they stay until `cryfed server down`.

    cryfed server up
    source .cryfed/prefect/env      # address and password for `prefect deploy --all`, `prefect worker start`
    """
    from infra.servers import prefect_server
    from infra.settings import load_settings
    from infra.store import embedded

    settings = load_settings()
    if store and settings.store.endpoint:
        typer.echo(f"store    not started: settings name {settings.store.endpoint}")
    elif store:
        server = embedded.ensure_running(
            settings.work_dir, port=store_port or settings.store.embedded_port, keep=True
        )
        typer.echo(f"store    http://{server.endpoint}  (pid {server.pid})")
        typer.echo(f"         keys in {embedded.credentials_file(settings.work_dir)}")
    if prefect:
        typer.echo("prefect  starting, about 10 seconds …", err=True)
        served = prefect_server.ensure_running(settings.work_dir, port=prefect_port, keep=True)
        typer.echo(f"prefect  {served.api_url.removesuffix('/api')}  (pid {served.pid})")
        typer.echo(f"         source {served.env_file}")


@app.command()
def down(
    store: Annotated[bool, typer.Option(help="Stop the object store.")] = True,
    prefect: Annotated[bool, typer.Option(help="Stop the Prefect server.")] = True,
) -> None:
    """Stop the servers of this work folder; what they store stays. Stop Prefect workers first."""
    from infra.servers import prefect_server
    from infra.settings import load_settings
    from infra.store import embedded

    work_dir = load_settings().work_dir
    if prefect:
        typer.echo(f"prefect  {'stopped' if prefect_server.stop_running(work_dir) else 'was not running'}")
    if store:
        typer.echo(f"store    {'stopped' if embedded.stop_running(work_dir) else 'was not running'}")


@app.command()
def status() -> None:
    """Say which servers of this work folder are up, and where."""
    from infra.servers import prefect_server
    from infra.settings import load_settings
    from infra.store import embedded

    settings = load_settings()
    server = embedded.find_running(settings.work_dir)
    typer.echo(f"store    {f'http://{server.endpoint}  (pid {server.pid})' if server else 'down'}")
    if settings.store.endpoint:
        typer.echo(f"         settings name another: {settings.store.endpoint}")
    served = prefect_server.find_running(settings.work_dir)
    where = f"{served.api_url.removesuffix('/api')}  (pid {served.pid})" if served else "down"
    typer.echo(f"prefect  {where}")
