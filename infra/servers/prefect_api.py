"""Prefect's API for the few questions that are not worth starting its command line: who polls, which runs
were missed, which were lost."""

from __future__ import annotations

import base64
import contextlib
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import psutil

from infra.servers.process import LOOPBACK

_TIMEOUT_S = 30.0
_PATIENCE_S = 60.0
_BUSY = 503  # its SQLite is locked
_RUN_VARIABLE = "PREFECT__FLOW_RUN_ID"  # a worker sets it for the process of a run
_BATCH = 50  # Prefect's own limit on one bulk deletion


def call(environment: Mapping[str, str], path: str, body: Any = None, *, method: str | None = None) -> Any:
    """One request to the API that an environment names; JSON in, JSON out. A busy server is asked again for a while.

    Raises:
        OSError: out of reach, or refused (`urllib.error.HTTPError`).
        ValueError: the answer is not JSON.
    """
    url = environment["PREFECT_API_URL"]
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/{path}", data=data, method=method)  # noqa: S310 - the operator's address
    request.add_header("Content-Type", "application/json")
    if auth := environment.get("PREFECT_API_AUTH_STRING"):
        request.add_header("Authorization", "Basic " + base64.b64encode(auth.encode()).decode())
    elif key := environment.get("PREFECT_API_KEY"):
        request.add_header("Authorization", f"Bearer {key}")
    proxies = [urllib.request.ProxyHandler({})] if LOOPBACK in url else []
    opener = urllib.request.build_opener(*proxies)
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            with opener.open(request, timeout=_TIMEOUT_S) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as err:
            if err.code != _BUSY or time.monotonic() > deadline:
                raise
        time.sleep(1.0)


def polls(environment: Mapping[str, str], pool: str, worker: str, since: float) -> bool:
    """Whether the server has heard from a worker after a moment (seconds since the epoch)."""
    try:
        workers = call(environment, f"work_pools/{pool}/workers/filter", {})
    except (OSError, ValueError):
        return False
    heard = [w["last_heartbeat_time"] for w in workers if w["name"] == worker]
    return any(moment and datetime.fromisoformat(moment).timestamp() >= since for moment in heard)


def drop_missed_runs(environment: Mapping[str, str], flow: str, deployment: str) -> int:
    """Delete the runs of a deployment that came due while nobody polled; returns how many.

    For a deployment that is due every minute and whose next run does what the missed ones would have done: a worker would
    have to refuse them one by one, hundreds after a weekend, before it came to anything else.

    Raises:
        OSError: the server is out of reach or refuses.
    """
    try:
        found = call(environment, f"deployments/name/{flow}/{deployment}")
    except urllib.error.HTTPError as err:
        if err.code == 404:
            return 0
        raise
    missed = {
        "deployment_id": {"any_": [found["id"]]},
        "state": {"type": {"any_": ["SCHEDULED"]}},
        "expected_start_time": {"before_": datetime.now(UTC).isoformat()},
    }
    dropped = 0
    while True:
        deleted = call(environment, "flow_runs/bulk_delete", {"flow_runs": missed, "limit": _BATCH})[
            "deleted"
        ]
        dropped += len(deleted)
        if not deleted:
            return dropped


def settle_lost_runs(environment: Mapping[str, str], pool: str) -> list[str]:
    """Report as crashed what a pool's workers were running on this machine when they ended; returns the runs' names.

    Otherwise such a run stays `Running` for good, and its deployment's one slot stays taken until the lease ends.

    Raises:
        OSError: the server is out of reach or refuses.
    """
    going = {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}}
    runs = call(
        environment, "flow_runs/filter", {"flow_runs": going, "work_pools": {"name": {"any_": [pool]}}}
    )
    alive = _runs_with_a_process()
    lost = [run for run in runs if run["id"] not in alive]
    if lost:
        within = {"parent_flow_run_id": {"any_": [run["id"] for run in lost]}}
        lost += call(environment, "flow_runs/filter", {"flow_runs": {**going, **within}})
    crashed = {"type": "CRASHED", "message": "its worker was stopped; started again, it resumes"}
    for run in lost:
        call(environment, f"flow_runs/{run['id']}/set_state", {"state": crashed, "force": True})
    return [run["name"] for run in lost]


def _runs_with_a_process() -> set[str]:
    found = set()
    for item in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            found.add(item.environ().get(_RUN_VARIABLE, ""))
    return found
