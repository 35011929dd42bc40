"""`cryfed server`: the embedded S3 and Prefect servers, up and down."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="""The servers that cryfed brings along: an S3 object store and a Prefect server, both on loopback.

`cryfed retrain` starts them by itself and stops them at the end. Start them here to keep them: for schedules and workers,
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

    To schedule the flows and run them, go on with `cryfed server deploy` and `cryfed server worker`. For commands of
    Prefect's own:

    ```
    source .cryfed/prefect/env      # address and password
    ```
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
    """Stop the servers of this work folder and its worker; what they store stays.

    A flow that is running is stopped with the worker; started again, it resumes.
    """
    from infra.servers import prefect_server, prefect_worker
    from infra.settings import load_settings
    from infra.store import embedded

    work_dir = load_settings().work_dir
    if prefect:
        if prefect_worker.stop_running(work_dir):  # before the server, or it would only log errors
            typer.echo("worker   stopped")
        typer.echo(f"prefect  {'stopped' if prefect_server.stop_running(work_dir) else 'was not running'}")
    if store:
        typer.echo(f"store    {'stopped' if embedded.stop_running(work_dir) else 'was not running'}")


@app.command()
def status() -> None:
    """Say which servers of this work folder are up, and where."""
    from infra.servers import prefect_server, prefect_worker
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
    worker = prefect_worker.find_running(settings.work_dir)
    typer.echo(f"worker   {f'pool {prefect_worker.POOL}  (pid {worker.pid})' if worker else 'down'}")


@app.command()
def deploy(
    file: Annotated[
        Path | None, typer.Option(help="Another prefect.yaml; default: the one that cryfed brings along.")
    ] = None,
) -> None:
    """Deploy the flows: retrain weekly, watch for new data every minute, gate and deploy on demand.

    ```
    cryfed server up && cryfed server deploy && cryfed server worker
    ```

    The same as `prefect deploy --all`, to the embedded server or to the one that PREFECT_API_URL names.
    """
    from infra.servers import prefect_worker
    from infra.settings import home, load_settings

    said = prefect_worker.deploy_all(
        load_settings().work_dir, home(), (file or prefect_worker.deployments_file()).resolve()
    )
    for line in said:
        if "successfully" in line:
            typer.echo(line.strip(" │"))


@app.command()
def worker(
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay in the terminal, for systemd or a container.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="Flows at the same time.")] = 3,
    name: Annotated[str | None, typer.Option(help="Name at the server; in the foreground alone.")] = None,
) -> None:
    """Start a worker, which runs what is scheduled or asked for, with this folder as its home.

    In the background, until `cryfed server down`. For a server elsewhere (PREFECT_API_URL) it stays in the foreground.
    """
    from infra.servers import prefect_worker
    from infra.settings import home, load_settings

    work_dir = load_settings().work_dir
    if foreground or prefect_worker.elsewhere(work_dir):
        argv = prefect_worker.command(name=name, limit=limit)
        environment = prefect_worker.environment(work_dir, home())
        prefect_worker.drop_missed_looks(environment)
        os.execve(argv[0], argv, environment)  # noqa: S606
    running = prefect_worker.ensure_running(work_dir, home(), limit=limit)
    typer.echo(f"worker   pool {prefect_worker.POOL}, home {home()}  (pid {running.pid})")
    typer.echo(f"         log in {running.log}")
