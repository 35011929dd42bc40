"""A Prefect server on loopback with SQLite, for schedules, workers and the UI.

    <work_dir>/prefect/prefect.db  env  prefect.json  prefect.log  auth  port

The API asks for a password, generated per work folder: without one, any user of the machine (and any web page in a
browser on it) could create a deployment that runs commands as us. `client_environment` holds what a worker or
`prefect deploy` needs; it is also written to `env`, to be sourced by a shell.
"""

from __future__ import annotations

import base64
import os
import secrets
import shlex
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from infra import quiet
from infra.servers import process
from infra.servers.lease import lease
from infra.servers.process import LOOPBACK, ServerProcess
from models.errors import ServerError

NAME = "prefect"

_START_TIMEOUT_S = 240.0
_HEALTH_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class PrefectServer:
    """A running Prefect server and the way to it."""

    port: int
    home: Path
    pid: int
    auth: str = field(repr=False)  # user:password

    @property
    def api_url(self) -> str:
        """PREFECT_API_URL."""
        return f"http://{LOOPBACK}:{self.port}/api"

    @property
    def env_file(self) -> Path:
        """Shell file that exports `client_environment`; readable by its owner alone."""
        return self.home / "env"

    def client_environment(self) -> dict[str, str]:
        """Environment of every process that talks to this server."""
        return {
            **quiet.QUIET,
            "PREFECT_HOME": str(self.home),
            "PREFECT_API_URL": self.api_url,
            "PREFECT_API_AUTH_STRING": self.auth,
        }


def ensure_running(work_dir: Path, *, port: int = 0, keep: bool = False) -> PrefectServer:
    """The Prefect server of this work folder, started if it is down.

    `port` 0 takes the last one or a free one; `keep` exempts the server from stopping with its last user (`session`).

    Raises:
        ServerError: the port is busy, or the server does not come up.
        OutputError: the work folder cannot be written.
    """
    home = process.private_folder(_home(work_dir))
    with process.exclusive(home / "lock", timeout=2 * _START_TIMEOUT_S):
        auth = _auth(home)
        running = process.find(home, NAME)
        if running is not None:
            if port and running.ports["port"] != port:
                raise ServerError(
                    f"the Prefect server of {work_dir} already runs on port {running.ports['port']}, not {port}: stop "
                    "it with `cryfed server down` first"
                )
            try:
                process.wait_healthy(running, partial(_healthy, running, auth), timeout=_HEALTH_TIMEOUT_S)
            except ServerError:
                process.stop(home, running)
                running = None
        if running is None:
            running = _start(home, auth, port)
        if keep and not running.keep:
            running = process.mark_kept(home, running)
        server = _describe(home, running, auth)
        lines = [f"export {name}={shlex.quote(value)}" for name, value in server.client_environment().items()]
        process.write_private(server.env_file, "\n".join(lines) + "\n")
    return server


@contextmanager
def session(work_dir: Path) -> Iterator[PrefectServer]:
    """The Prefect server of this work folder for as long as the block runs; it stops with its last user.

    Raises:
        ServerError, OutputError: as `ensure_running`.
    """
    home = process.private_folder(_home(work_dir))

    def leave() -> None:
        with process.exclusive(home / "lock"):
            running = process.find(home, NAME)
            if running is not None and not running.keep:
                process.stop(home, running, grace=15.0)

    with lease(home, leave):
        yield ensure_running(work_dir)


def find_running(work_dir: Path) -> PrefectServer | None:
    """The Prefect server of this work folder if it is up; starts nothing."""
    home = _home(work_dir)
    running = process.find(home, NAME)
    return None if running is None else _describe(home, running, _auth(home))


def stop_running(work_dir: Path) -> bool:
    """Stop the Prefect server of this work folder (its workers first: they log errors otherwise); False where none ran.

    Raises:
        ServerError: it does not end.
    """
    home = _home(work_dir)
    if not home.is_dir():
        return False
    with process.exclusive(home / "lock"):
        running = process.find(home, NAME)
        if running is None:
            return False
        process.stop(home, running, grace=15.0)
        return True


def _start(home: Path, auth: str, port: int) -> ServerProcess:
    if port and not process.port_is_free(port):
        raise ServerError(
            f"port {port} is busy, so the Prefect server cannot use it: choose another, or 0 for any"
        )
    chosen = port or _last_port(home) or process.free_ports(1)[0]
    argv = [sys.executable, "-m", "prefect", "server", "start", "--host", LOOPBACK, "--port", str(chosen)]
    running = process.spawn(home, NAME, argv, _environment(home, auth), {"port": chosen})
    try:
        process.wait_healthy(running, partial(_healthy, running, auth), timeout=_START_TIMEOUT_S)
    except BaseException:
        process.stop(home, running)
        raise
    process.write_private(home / "port", str(chosen))
    return running


def _environment(home: Path, auth: str) -> dict[str, str]:
    # settings of somebody's own Prefect (an API of theirs, another database) must not reach this server
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    return {
        **inherited,
        **quiet.QUIET,
        "PREFECT_HOME": str(home),
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home / 'prefect.db'}",
        "PREFECT_SERVER_API_AUTH_STRING": auth,
        # kept in memory, the lease of a run that was killed with the server would never end, and a deployment with a
        # concurrency limit would never run again
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_API_AUTH_STRING": auth,
        "PREFECT_CLI_PROMPT": "false",
    }


def _healthy(running: ServerProcess, auth: str) -> bool:
    """Whether the API answers to our password: a stranger on its port would not."""
    request = urllib.request.Request(f"http://{LOOPBACK}:{running.ports['port']}/api/admin/version")
    request.add_header("Authorization", "Basic " + base64.b64encode(auth.encode()).decode())
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=5.0) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _auth(home: Path) -> str:
    path = home / "auth"
    try:
        return path.read_text().strip()
    except OSError:
        process.write_private(path, "cryfed:" + secrets.token_urlsafe(24))
        return path.read_text().strip()


def _last_port(home: Path) -> int | None:
    try:
        port = int((home / "port").read_text())
    except (OSError, ValueError):
        return None
    return port if process.port_is_free(port) else None


def _describe(home: Path, running: ServerProcess, auth: str) -> PrefectServer:
    return PrefectServer(running.ports["port"], home, running.pid, auth)


def _home(work_dir: Path) -> Path:
    return work_dir.resolve() / "prefect"
