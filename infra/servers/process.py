"""A background server process: started once, found again by any later process, stopped without leaving anything behind.

What is running is written to `<folder>/<name>.json`: pid, the process's start time and ports. The start
time is what makes the pid trustworthy: a pid alone may long belong to somebody else's process. Servers run in a session
of their own, so that Ctrl-C in the terminal does not reach them and one signal reaches all their children.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import psutil

from models.errors import OutputError, ServerError

LOOPBACK = "127.0.0.1"
_START_TIME_TOLERANCE_S = (
    2.0  # the kernel's boot time, from which start times are derived, shifts with clock updates
)
_LOG_TAIL_CHARS = 1500
_PORT_RELEASE_S = 2.0


@dataclass(frozen=True)
class ServerProcess:
    """A server that was started: enough to find it again, tell it from others, and stop it."""

    name: str
    pid: int
    started: float  # seconds since the epoch, as the operating system reports it
    log: str
    ports: dict[str, int] = field(default_factory=dict)  # what it listens on, by role
    keep: bool = False  # a person asked for it by name, so it does not stop with its last user


def private_folder(path: Path) -> Path:
    """Make a folder that only its owner can read.

    Raises:
        OutputError: it cannot be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError as err:
        raise OutputError(
            f"cannot use the folder {path} ({err.strerror}); set work_dir to a writable one"
        ) from None
    return path


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, at once or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    temporary.replace(path)


@contextlib.contextmanager
def exclusive(path: Path, *, timeout: float = 90.0) -> Iterator[None]:
    """Hold an advisory lock on a file; it falls when its holder dies, however it dies.

    Raises:
        ServerError: another process held it for longer than `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise ServerError(
                        f"another process has held {path} for {timeout:.0f} s; is a start or stop stuck there?"
                    ) from None
                time.sleep(0.05)
        yield


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except (OSError, OverflowError):
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Distinct loopback ports that are free now (another process may still take one before its use)."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for item in sockets:
            item.bind((LOOPBACK, 0))
        return [int(item.getsockname()[1]) for item in sockets]


def record_path(folder: Path, name: str) -> Path:
    """Where a server's process record lies."""
    return folder / f"{name}.json"


def mark_kept(folder: Path, process: ServerProcess) -> ServerProcess:
    """Record that a running server does not stop with its last user."""
    kept = replace(process, keep=True)
    write_record(folder, kept)
    return kept


def find(folder: Path, name: str) -> ServerProcess | None:
    """The recorded server if it is still running, else None (a stale or unreadable record counts as none)."""
    try:
        raw = json.loads(record_path(folder, name).read_text())
        process = ServerProcess(
            name=str(raw["name"]),
            pid=int(raw["pid"]),
            started=float(raw["started"]),
            log=str(raw["log"]),
            ports={str(k): int(v) for k, v in raw["ports"].items()},
            keep=bool(raw["keep"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return process if alive(process) else None


def spawn(
    folder: Path, name: str, argv: Sequence[str], env: Mapping[str, str], ports: Mapping[str, int]
) -> ServerProcess:
    """Start a server in a session of its own, its output appended to `<folder>/<name>.log`, and record it.

    Raises:
        ServerError: the program cannot be started.
    """
    log = folder / f"{name}.log"
    descriptors = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    try:
        pid = os.posix_spawn(argv[0], list(argv), dict(env), file_actions=descriptors, setsid=True)
        started = psutil.Process(pid).create_time()
    except (OSError, psutil.Error) as err:
        raise ServerError(f"cannot start the {name} server with {argv[0]}: {err}") from None
    process = ServerProcess(name=name, pid=pid, started=started, log=str(log), ports=dict(ports))
    write_record(folder, process)
    return process


def write_record(folder: Path, process: ServerProcess) -> None:
    """Record a running server, in place of what was recorded."""
    write_private(record_path(folder, process.name), json.dumps(asdict(process), indent=1))


def end_strays(argument: str, *, grace: float) -> None:
    """End our own user's processes that carry this exact argument: servers whose starter died before recording them."""
    strays = [
        item
        for item in psutil.process_iter(["cmdline", "uids"])
        if argument in (item.info["cmdline"] or []) and item.info["uids"].real == os.getuid()
    ]
    for item in strays:
        with contextlib.suppress(psutil.Error):
            item.terminate()
    _, left = psutil.wait_procs(strays, timeout=grace)
    for item in left:
        with contextlib.suppress(psutil.Error):
            item.kill()
    psutil.wait_procs(left, timeout=grace)


def alive(process: ServerProcess) -> bool:
    """Whether this very process, and not a later one with its pid, is running."""
    try:
        found = psutil.Process(process.pid)
        if abs(found.create_time() - process.started) > _START_TIME_TOLERANCE_S:
            return False
        if found.status() != psutil.STATUS_ZOMBIE:
            return True
    except psutil.Error:
        return False
    try:
        # our own child stays a zombie until it is waited for, and cannot be waited for before its last thread is gone
        return os.waitpid(process.pid, os.WNOHANG)[0] == 0
    except ChildProcessError:  # somebody else's child is not ours to wait for
        return False


def wait_healthy(process: ServerProcess, healthy: Callable[[], bool], *, timeout: float) -> None:
    """Poll until the server answers.

    Raises:
        ServerError: it ended or did not answer in `timeout` seconds; the message carries the end of its log.
    """
    deadline = time.monotonic() + timeout
    while not healthy():
        if not alive(process):
            raise ServerError(f"the {process.name} server ended while starting. {_log_tail(process)}")
        if time.monotonic() > deadline:
            raise ServerError(
                f"the {process.name} server did not answer within {timeout:.0f} s. {_log_tail(process)}"
            )
        time.sleep(0.05)


def stop(folder: Path, process: ServerProcess, *, grace: float = 10.0) -> None:
    """End a server and everything it started: SIGTERM, after `grace` seconds SIGKILL; then forget its record.

    Raises:
        ServerError: it still runs after SIGKILL.
    """
    family = _family(process)
    _signal_session(process, signal.SIGTERM)
    if not _wait_gone(process, family, grace):
        _signal_session(process, signal.SIGKILL)
        for member in family:
            with contextlib.suppress(psutil.Error):
                member.kill()
        if not _wait_gone(process, family, 5.0):
            raise ServerError(
                f"the {process.name} server (pid {process.pid}) does not end, not even by SIGKILL"
            )
    record_path(folder, process.name).unlink(missing_ok=True)
    # the kernel closes a dead process's sockets a moment after the process itself is gone
    deadline = time.monotonic() + _PORT_RELEASE_S
    while time.monotonic() < deadline and not all(port_is_free(p) for p in process.ports.values()):
        time.sleep(0.02)


def _family(process: ServerProcess) -> list[psutil.Process]:
    if not alive(process):
        return []
    try:
        children: list[psutil.Process] = psutil.Process(process.pid).children(recursive=True)
    except psutil.Error:
        return []
    return children


def _signal_session(process: ServerProcess, number: int) -> None:
    # the pid leads its own process group; checking it is still ours keeps a reused pid out of harm
    if alive(process):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)


def _wait_gone(process: ServerProcess, family: Sequence[psutil.Process], timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        # psutil's is_running compares start times as well, so a reused pid counts as gone
        if not alive(process) and not any(_running(member) for member in family):
            return True
        time.sleep(0.05)
    return False


def _running(member: psutil.Process) -> bool:
    try:
        return bool(member.is_running() and member.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _log_tail(process: ServerProcess) -> str:
    try:
        text = Path(process.log).read_text(errors="replace")[-_LOG_TAIL_CHARS:].strip()
    except OSError:
        text = ""
    return f"The end of its log ({process.log}):\n{text}" if text else f"Its log is empty ({process.log})"
