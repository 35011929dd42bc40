"""A Prefect worker for the pool `cryfed`: it polls the server of the work folder and runs each flow in a process of its own.

    <work_dir>/prefect/worker.json  worker.log

Flows run in temporary folders; CRYFED_HOME tells them where relative paths and `cryfed.toml` are, the rest of the worker's
environment (CRYFED_*, RAY_ADDRESS) is passed on to them.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from infra import quiet
from infra.servers import prefect_api, prefect_server, process
from infra.servers.prefect_server import PrefectServer
from infra.servers.process import ServerProcess
from models.errors import ConfigError, ServerError

NAME = "worker"
POOL = "cryfed"
WATCH = "watch"
DEPLOYMENTS = "prefect.yaml"

_START_TIMEOUT_S = 90.0
_COMMAND_TIMEOUT_S = 300.0
_STOP_GRACE_S = 20.0
_POLL_S = 0.25


def environment(work_dir: Path, home: Path) -> dict[str, str]:
    """Environment of what talks to Prefect for this work folder: the server that PREFECT_API_URL names, or the embedded one.

    Raises:
        ServerError: neither is there.
    """
    common = {**os.environ, **quiet.QUIET, "CRYFED_HOME": str(home), "PREFECT_CLI_PROMPT": "false"}
    if elsewhere(work_dir):
        return common
    server = _require_server(work_dir)
    inherited = {k: v for k, v in common.items() if not k.startswith("PREFECT_API_")}
    return {**inherited, **server.client_environment()}


def elsewhere(work_dir: Path) -> bool:
    """Whether PREFECT_API_URL names another server than the embedded one."""
    url = os.environ.get("PREFECT_API_URL")
    server = prefect_server.find_running(work_dir)
    return bool(url) and (server is None or url != server.api_url)


def command(*, name: str | None = None, limit: int | None = None) -> list[str]:
    """The worker's command line."""
    options = ["--name", name] if name else []
    options += ["--limit", str(limit)] if limit else []
    return _prefect("worker", "start", "--pool", POOL, "--type", "process", *options)


def ensure_running(work_dir: Path, home: Path, *, limit: int | None = None) -> ServerProcess:
    """The worker of this work folder at the embedded server, started in the background if it is down.

    Raises:
        ServerError: the Prefect server is down, or the worker does not come up.
    """
    server = _require_server(work_dir)
    with process.exclusive(server.home / "worker.lock", timeout=2 * _START_TIMEOUT_S):
        running = process.find(server.home, NAME)
        if running is not None:
            return running
        name = f"cryfed-{socket.gethostname()}"
        env = environment(work_dir, home)
        _tidy(env)
        running = process.spawn(server.home, NAME, command(name=name, limit=limit), env, {})

        def healthy() -> bool:
            time.sleep(_POLL_S)
            return prefect_api.polls(env, POOL, name, running.started)

        try:
            process.wait_healthy(running, healthy, timeout=_START_TIMEOUT_S)
        except BaseException:
            process.stop(server.home, running)
            raise
    return running


def drop_missed_looks(env: Mapping[str, str]) -> None:
    """Forget the looks for new data that came due while no worker was up: the next one sees what they would have seen."""
    with contextlib.suppress(
        OSError, ValueError
    ):  # a server that cannot do it costs the worker time, no more
        prefect_api.drop_missed_runs(env, WATCH, WATCH)


def find_running(work_dir: Path) -> ServerProcess | None:
    """The worker of this work folder if it is up."""
    return process.find(_home(work_dir), NAME)


def stop_running(work_dir: Path) -> bool:
    """Stop the worker of this work folder and the flows that it runs; False where none ran.

    A flow that is stopped is reported as crashed; started again, it resumes from what it has filed.

    Raises:
        ServerError: it does not end.
    """
    home = _home(work_dir)
    running = process.find(home, NAME)
    if running is None:
        return False
    process.stop(home, running, grace=_STOP_GRACE_S)
    server = prefect_server.find_running(work_dir)
    if server is not None:
        _settle(server.client_environment())
    return True


def deploy_all(work_dir: Path, home: Path, file: Path) -> list[str]:
    """Make the pool unless it is there, and deploy everything that `file` declares; returns what Prefect said.

    Raises:
        ServerError: no server, or it refuses.
    """
    env = environment(work_dir, home)
    _run(_prefect("work-pool", "create", POOL, "--type", "process"), env, accept="already exists")
    return _run(_prefect("--no-prompt", "deploy", "--all", "--prefect-file", str(file)), env)


def deployments_file() -> Path:
    """`prefect.yaml` as shipped: inside the installed package, or at the root of a checkout.

    Raises:
        ConfigError: it is in neither place.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package, package.parent):
        if (folder / DEPLOYMENTS).is_file():
            return folder / DEPLOYMENTS
    raise ConfigError(f"{DEPLOYMENTS} is neither in {package} nor beside it: name it with --file")


def _tidy(env: Mapping[str, str]) -> None:
    """What a worker that ended, by itself or by `kill -9`, left at the server."""
    _settle(env)
    drop_missed_looks(env)


def _settle(env: Mapping[str, str]) -> None:
    with contextlib.suppress(
        OSError, ValueError
    ):  # then they are seen as running until somebody says otherwise
        prefect_api.settle_lost_runs(env, POOL)


def _prefect(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "prefect", *arguments]


def _run(argv: list[str], env: Mapping[str, str], *, accept: str | None = None) -> list[str]:
    """Run a Prefect command, its width fixed so that nothing is broken into lines."""
    done = subprocess.run(
        argv,
        env={**env, "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=_COMMAND_TIMEOUT_S,
        check=False,
    )
    said = done.stdout + done.stderr
    if done.returncode and not (accept and accept in said):
        raise ServerError(f"`prefect {' '.join(argv[3:])}` failed:\n{said.strip()[-1500:]}")
    return said.splitlines()


def _require_server(work_dir: Path) -> PrefectServer:
    server = prefect_server.find_running(work_dir)
    if server is None:
        raise ServerError(
            f"no Prefect server of {work_dir} is up: `cryfed server up` first, or name another with PREFECT_API_URL"
        )
    return server


def _home(work_dir: Path) -> Path:
    return work_dir.resolve() / "prefect"
