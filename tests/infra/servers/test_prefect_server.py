"""The Prefect server: up once, password on its API, a flow runs against it, down without a trace."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from infra.servers import prefect_api, prefect_server, process
from infra.servers.prefect_server import PrefectServer
from models.errors import ServerError

FLOW = """
from prefect import flow, task

@task
def one():
    return 1

@flow(log_prints=True)
def two():
    return one() + 1

assert two() == 2
"""


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def server(work_dir: Path) -> Iterator[PrefectServer]:
    yield prefect_server.ensure_running(work_dir)
    prefect_server.stop_running(work_dir)


@pytest.mark.slow
def test_server_is_found_and_listens_on_loopback_only(server: PrefectServer, work_dir: Path) -> None:
    assert prefect_server.ensure_running(work_dir) == server
    assert prefect_server.find_running(work_dir) == server
    family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    listening = [c.laddr for p in family for c in p.net_connections() if c.status == psutil.CONN_LISTEN]
    assert {(a.ip, a.port) for a in listening} == {("127.0.0.1", server.port)}
    with pytest.raises(ServerError, match=f"already runs on port {server.port}"):
        prefect_server.ensure_running(work_dir, port=server.port + 1)


@pytest.mark.slow
def test_api_asks_for_the_password(server: PrefectServer) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(server.api_url + "/admin/version", timeout=10)
    assert server.auth not in repr(server)
    assert server.env_file.stat().st_mode & 0o777 == 0o600
    assert server.auth not in " ".join(psutil.Process(server.pid).cmdline())


@pytest.mark.slow
def test_a_flow_runs_against_it_with_the_environment_file(server: PrefectServer, tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text(FLOW)
    done = subprocess.run(
        ["sh", "-c", f". {server.env_file}; exec {sys.executable} flow.py"],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"http://127.0.0.1:{server.port}/runs/flow-run/" in done.stdout + done.stderr


@pytest.mark.slow
def test_a_concurrency_slot_is_leased_on_disk(server: PrefectServer) -> None:
    """In memory, a lease is lost with the server, and its slot would stay taken for good."""
    env = server.client_environment()
    flow = prefect_api.call(env, "flows/", {"name": "limited"})["id"]
    limited = {"name": "one", "flow_id": flow, "concurrency_limit": 1}
    deployment = prefect_api.call(env, "deployments/", limited)["id"]
    run = prefect_api.call(env, f"deployments/{deployment}/create_flow_run", {})["id"]
    pending = {"state": {"type": "PENDING"}}
    state = prefect_api.call(env, f"flow_runs/{run}/set_state", pending)["state"]
    lease = state["state_details"]["deployment_concurrency_lease_id"]
    assert (server.home / "concurrency_leases" / f"{lease}.json").is_file()


@pytest.mark.slow
def test_missed_runs_are_dropped_and_due_ones_kept(
    server: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = server.client_environment()
    flow = prefect_api.call(env, "flows/", {"name": "watch"})["id"]
    kept = []
    for name in ("watch", "other"):
        made = prefect_api.call(env, "deployments/", {"name": name, "flow_id": flow})["id"]
        for minutes in (-3, -2, -1, 60):
            due = (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat()
            state = {"type": "SCHEDULED", "state_details": {"scheduled_time": due}}
            run = prefect_api.call(env, f"deployments/{made}/create_flow_run", {"state": state})
            if name == "other" or minutes > 0:
                kept.append(run["id"])
    monkeypatch.setattr(prefect_api, "_BATCH", 2)
    assert prefect_api.drop_missed_runs(env, "watch", "watch") == 3
    assert prefect_api.drop_missed_runs(env, "watch", "watch") == 0
    assert prefect_api.drop_missed_runs(env, "watch", "no-such") == 0
    left = prefect_api.call(env, "flow_runs/filter", {"flows": {"name": {"any_": ["watch"]}}})
    assert sorted(r["id"] for r in left) == sorted(kept)
    with pytest.raises(urllib.error.HTTPError, match="401"):
        prefect_api.drop_missed_runs({**env, "PREFECT_API_AUTH_STRING": "x:y"}, "watch", "watch")


@pytest.mark.slow
def test_lost_runs_are_reported_and_give_their_slot_back(server: PrefectServer) -> None:
    env = server.client_environment()
    prefect_api.call(env, "work_pools/", {"name": "pool", "type": "process"})
    flow = prefect_api.call(env, "flows/", {"name": "long"})["id"]

    def state_of(run: str) -> str:
        return prefect_api.call(env, f"flow_runs/{run}")["state"]["type"]

    def start(name: str) -> tuple[str, str]:
        made = {"name": name, "flow_id": flow, "work_pool_name": "pool", "concurrency_limit": 1}
        deployment = prefect_api.call(env, "deployments/", made)["id"]
        run = prefect_api.call(env, f"deployments/{deployment}/create_flow_run", {})["id"]
        for state in ("PENDING", "RUNNING"):
            prefect_api.call(env, f"flow_runs/{run}/set_state", {"state": {"type": state}})
        return deployment, run

    deployment, lost = start("lost")
    _, alive = start("alive")
    step = {"flow_run_id": lost, "task_key": "step", "dynamic_key": "0"}
    parent = prefect_api.call(env, "task_runs/", step)["id"]
    inner = {"flow_id": flow, "parent_task_run_id": parent, "state": {"type": "RUNNING"}}
    within = prefect_api.call(env, "flow_runs/", inner)["id"]
    by_hand = prefect_api.call(env, "flow_runs/", {"flow_id": flow, "state": {"type": "RUNNING"}})["id"]
    with subprocess.Popen(["sleep", "60"], env={**os.environ, "PREFECT__FLOW_RUN_ID": alive}) as engine:
        assert len(prefect_api.settle_lost_runs(env, "pool")) == 2
        assert prefect_api.settle_lost_runs(env, "pool") == []
        engine.kill()
    states = {run: state_of(run) for run in (lost, within, alive, by_hand)}
    assert states == {lost: "CRASHED", within: "CRASHED", alive: "RUNNING", by_hand: "RUNNING"}
    found = prefect_api.call(env, f"deployments/{deployment}")
    assert found["global_concurrency_limit"]["active_slots"] == 0


def test_busy_port_is_one_clear_error(tmp_path: Path) -> None:
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        with pytest.raises(ServerError, match=rf"port {squatter.getsockname()[1]} is busy"):
            prefect_server.ensure_running(tmp_path, port=squatter.getsockname()[1])
    assert prefect_server.find_running(tmp_path) is None
    assert not prefect_server.stop_running(tmp_path)


@pytest.mark.slow
def test_stopped_server_is_gone_and_comes_back_on_its_port_until_its_last_user_leaves(
    server: PrefectServer, work_dir: Path
) -> None:
    assert prefect_server.stop_running(work_dir)
    assert not psutil.pid_exists(server.pid)
    assert process.port_is_free(server.port)
    assert prefect_server.find_running(work_dir) is None
    again = prefect_server.ensure_running(work_dir)
    assert again.pid != server.pid
    assert again.client_environment() == server.client_environment()

    with prefect_server.session(work_dir) as used:
        assert used == again
        with prefect_server.session(work_dir):
            pass
        assert prefect_server.find_running(work_dir) == again
    assert prefect_server.find_running(work_dir) is None  # gone with its last user
