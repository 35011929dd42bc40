"""The process helper: what it calls running is running, what it stops is gone, children included."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from infra.servers import process
from infra.servers.process import ServerProcess
from models.errors import OutputError, ServerError

SLEEPER = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPER
PARENT = (
    "import subprocess, sys; subprocess.Popen([sys.executable, '-c', "
    '"import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"]); ' + SLEEPER
)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    if (left := process.find(tmp_path, "demo")) is not None:
        process.stop(tmp_path, left, grace=0.1)


def start(folder: Path, code: str) -> ServerProcess:
    server = process.spawn(folder, "demo", [sys.executable, "-c", code], dict(os.environ), {"http": 0})
    process.wait_healthy(server, lambda: "up" in (folder / "demo.log").read_text(), timeout=20)
    return server


def test_started_server_is_found_and_leads_a_session_of_its_own(folder: Path) -> None:
    server = start(folder, SLEEPER)
    assert process.find(folder, "demo") == server
    assert os.getsid(server.pid) == server.pid
    process.stop(folder, server)
    assert process.find(folder, "demo") is None
    assert not (folder / "demo.json").exists()
    assert not psutil.pid_exists(server.pid)


def test_server_that_ignores_sigterm_is_killed_with_its_children(folder: Path) -> None:
    server = start(folder, STUBBORN)
    process.stop(folder, server, grace=0.2)
    assert not process.alive(server)

    server = start(folder, PARENT)
    (child,) = psutil.Process(server.pid).children()
    time.sleep(0.3)
    process.stop(folder, server, grace=0.5)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_killed_server_and_reused_pid_count_as_gone(folder: Path) -> None:
    server = start(folder, SLEEPER)
    someone_else = replace(server, started=server.started - 3600)
    assert process.alive(server)
    assert not process.alive(someone_else)
    process.stop(folder, someone_else, grace=0.2)  # has our pid, is not ours: not a signal must reach it
    assert process.alive(server)
    os.kill(server.pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while process.alive(server) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.find(folder, "demo") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"name": "demo", "pid": "x", "started": 1, "log": "", "ports": {}, "keep": false}',
        "null",
    ],
)
def test_damaged_record_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "demo.json").write_text(text)
    assert process.find(tmp_path, "demo") is None


def test_failures_carry_the_log(folder: Path) -> None:
    server = process.spawn(
        folder, "demo", [sys.executable, "-c", "raise SystemExit('no luck today')"], dict(os.environ), {}
    )
    with pytest.raises(ServerError, match=r"demo server ended while starting(.|\n)*no luck today"):
        process.wait_healthy(server, lambda: False, timeout=20)
    server = start(folder, SLEEPER)
    with pytest.raises(ServerError, match=r"did not answer within 0 s(.|\n)*up"):
        process.wait_healthy(server, lambda: False, timeout=0.1)
    with pytest.raises(ServerError, match="cannot start the demo server"):
        process.spawn(folder, "demo", [str(folder / "missing")], {}, {})


def test_private_files(tmp_path: Path) -> None:
    process.write_private(tmp_path / "secret", "1")
    process.write_private(tmp_path / "secret", "2")
    assert (tmp_path / "secret").read_text() == "2"
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    assert process.private_folder(tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    with pytest.raises(OutputError, match="cannot use the folder"):
        process.private_folder(tmp_path / "secret" / "x")


def test_lock_is_exclusive_and_its_wait_is_bounded(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with (
        process.exclusive(lock),
        pytest.raises(ServerError, match="has held"),
        process.exclusive(lock, timeout=0.1),
    ):
        pass
    with process.exclusive(lock, timeout=0.1):
        pass


def test_ports() -> None:
    ports = process.free_ports(5)
    assert len(set(ports)) == 5
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert not process.port_is_free(taken.getsockname()[1])
    assert not process.port_is_free(70_000)


def test_record_is_plain_json(folder: Path) -> None:
    server = start(folder, SLEEPER)
    record = json.loads((folder / "demo.json").read_text())
    assert (record["pid"], record["ports"]) == (server.pid, {"http": 0})
