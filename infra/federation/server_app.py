"""Flower's ServerApp: thin over `run_job`.

`app` is what a SuperLink runs; its run configuration names the job file: `flwr run . --run-config 'job="/srv/federation.json"'`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from infra.federation.flower_transport import FlowerTransport
from infra.federation.job import FederationJob, load_job
from infra.federation.results import FederationResult
from infra.federation.rounds import Emit
from infra.federation.whole_job import run_job
from models.errors import ConfigError


def build_app(
    find_job: Callable[[Context], FederationJob],
    emit: Emit = lambda _event: None,
    on_result: Callable[[FederationResult], None] = lambda _result: None,
) -> ServerApp:
    """A ServerApp that runs one job over the grid it is given."""
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        on_result(run_job(find_job(context), FlowerTransport(grid), emit))

    return server


def _from_run_config(context: Context) -> FederationJob:
    try:
        return load_job(Path(str(context.run_config["job"])))
    except KeyError:
        raise ConfigError(
            "the run configuration lacks `job`: flwr run . --run-config 'job=\"…/federation.json\"'"
        ) from None


app = build_app(_from_run_config)
