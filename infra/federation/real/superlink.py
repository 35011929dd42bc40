"""The SuperLink of a federation as a server process: found, started, stopped.

    <folder>/ca.pem  server.pem  server.key      `certificates.make_server`
    <folder>/sites/NAME.pub                      `members`: who may take part
    <folder>/superlink.json  superlink.log  flower/

A restart ends the run that is on; submitted again, it resumes from its own journal.

Sites reach the Fleet API (TLS, signed by registered keys). The Control API (TLS) and the ServerAppIo API (Flower's own link to
the ServerApp, plain) listen on loopback alone: whoever reaches them acts as the server, so the machine should be nobody else's.
"""

from __future__ import annotations

import os
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infra import quiet
from infra.federation.real.certificates import CA, CERTIFICATE, KEY, load_certificate
from infra.federation.real.control import Control
from infra.federation.real.members import announce
from infra.servers import process
from infra.servers.process import LOOPBACK, ServerProcess
from models.errors import ServerError

NAME: Final = "superlink"

_START_TIMEOUT_S: Final = 90.0
_PROBE_S: Final = 2.0
_LOOK_S: Final = 0.5
_FLEET, _CONTROL, _APPS = "fleet", "control", "apps"


@dataclass(frozen=True)
class SuperLink:
    """A running SuperLink and the way to it."""

    folder: Path
    pid: int
    fleet: str  # host:port, as sites on this machine reach it
    control: str
    log: str

    def connect(self, *, timeout_s: float = 20.0) -> Control:
        """Its Control API."""
        return Control(self.control, self.folder / CA, timeout_s=timeout_s)


def ensure_running(folder: Path, *, listen: str = LOOPBACK, port: int = 0) -> SuperLink:
    """The SuperLink of this folder, started in the background if it is down.

    Args:
        folder: holds the server's certificate.
        listen: the address on which sites reach it.
        port: for sites; 0 takes any that is free.

    Raises:
        ConfigError: the folder holds no valid server certificate.
        ServerError: the port is busy, or it does not come up.
    """
    with process.exclusive(process.private_folder(folder) / "lock"):
        if (running := process.find(folder, NAME)) is not None:
            return _describe(folder, running)
        ports = _ports(port)
        running = process.spawn(folder, NAME, command(folder, listen, ports), environment(folder), ports)
        link = _describe(folder, running)
        try:
            process.wait_healthy(running, lambda: _healthy(link), timeout=_START_TIMEOUT_S)
            with link.connect() as control:
                announce(folder, control)
        except BaseException:
            process.stop(folder, running)
            raise
    return link


def run_in_foreground(folder: Path, *, listen: str, port: int, on_up: Callable[[SuperLink], None]) -> None:
    """Start the SuperLink of this folder and stay until this process is interrupted, which ends both.

    Raises:
        ConfigError, ServerError: as `ensure_running`; also where it runs already, or ends by itself.
    """
    if (running := process.find(process.private_folder(folder), NAME)) is not None:
        raise ServerError(f"the SuperLink of {folder} runs already (pid {running.pid})")
    try:
        link = ensure_running(folder, listen=listen, port=port)
        on_up(link)
        while process.find(folder, NAME) is not None:
            time.sleep(_LOOK_S)
        raise ServerError(f"the SuperLink of {folder} has ended; its log says why: {link.log}")
    except KeyboardInterrupt:
        return
    finally:
        stop_running(folder)


def find_running(folder: Path) -> SuperLink | None:
    """The SuperLink of this folder if it is up."""
    running = process.find(folder, NAME)
    return None if running is None else _describe(folder, running)


def require_running(folder: Path) -> SuperLink:
    """The SuperLink of this folder.

    Raises:
        ServerError: it is down.
    """
    link = find_running(folder)
    if link is None:
        raise ServerError(
            f"no SuperLink of {folder} is up: start it with `cryfed federation server start {folder}`"
        )
    return link


def stop_running(folder: Path) -> bool:
    """Stop the SuperLink of this folder with the ServerApp that it runs; False where none ran.

    Raises:
        ServerError: it does not end.
    """
    running = process.find(folder, NAME)
    if running is None:
        return False
    process.stop(folder, running)
    return True


def command(folder: Path, listen: str, ports: dict[str, int]) -> list[str]:
    """Its command line.

    Raises:
        ConfigError: the folder holds no valid server certificate.
        ServerError: Flower is not installed beside this Python.
    """
    for name in (CA, CERTIFICATE):
        load_certificate(folder / name)
    program = Path(sysconfig.get_path("scripts")) / "flower-superlink"
    if not program.is_file():
        raise ServerError(f"{program} does not exist: install flwr into the environment of this Python")
    host = f"[{listen}]" if ":" in listen else listen
    return [
        str(program),
        *("--fleet-api-address", f"{host}:{ports[_FLEET]}"),
        *("--control-api-address", f"{LOOPBACK}:{ports[_CONTROL]}"),
        *("--serverappio-api-address", f"{LOOPBACK}:{ports[_APPS]}"),
        *("--ssl-ca-certfile", str(folder / CA)),
        *("--ssl-certfile", str(folder / CERTIFICATE)),
        *("--ssl-keyfile", str(folder / KEY)),
        "--enable-supernode-auth",
        "--disable-runtime-dependency-installation",
    ]


def environment(folder: Path) -> dict[str, str]:
    """Its environment: quiet, at home in its folder, and with Flower's other programs on the path."""
    scripts = sysconfig.get_path("scripts")
    return {
        **os.environ,
        **quiet.QUIET,
        "FLWR_HOME": str(folder / "flower"),
        "FLWR_LOG_LEVEL": os.environ.get("FLWR_LOG_LEVEL", "WARNING"),  # INFO logs every poll of every site
        "PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }


def _ports(port: int) -> dict[str, int]:
    if port and not process.port_is_free(port):
        raise ServerError(
            f"port {port} is busy, so the SuperLink cannot use it: choose another, or 0 for any"
        )
    fleet, control, apps = process.free_ports(3)
    return {_FLEET: port or fleet, _CONTROL: control, _APPS: apps}


def _healthy(link: SuperLink) -> bool:
    try:
        with link.connect(timeout_s=_PROBE_S) as control:
            control.nodes()
            return True
    except ServerError:
        return False


def _describe(folder: Path, running: ServerProcess) -> SuperLink:
    fleet, control = (f"{LOOPBACK}:{running.ports[role]}" for role in (_FLEET, _CONTROL))
    return SuperLink(folder, running.pid, fleet, control, running.log)
