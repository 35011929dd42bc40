"""kill -9 anywhere in the federation: it ends with the bytes of an undisturbed run, and leaves no process behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from infra.federation.job import FederationJob
from infra.federation.launch import run_federation
from infra.federation.results import FederationResult
from infra.federation.rounds import federate
from tests.infra.federation.world import local_transport, make_job

pytestmark = pytest.mark.slow

LONG = {"rounds": 8, "local": {"steps": 15, "batch_size": 8}, "eval_every": 3}

PARENT = """
import sys
from pathlib import Path
from infra.federation.job import load_job
from infra.federation.launch import run_federation
run_federation(load_job(Path(sys.argv[1])), ray_address="local", on_event=lambda e: print(e["event"], flush=True))
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> FederationResult:
    """What the same job gives without Ray and without a kill."""
    folder = tmp_path_factory.mktemp("plain")
    job = make_job(folder, **LONG)
    return federate(job, local_transport(job, folder))


def _environment() -> dict[str, str]:
    return {**os.environ, "RAY_ADDRESS": "local"}


@contextmanager
def _simulation(job: FederationJob, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Iterator[dict]]]:
    """The simulation process and its events."""
    job.save(folder / "job.json")
    with (
        (folder / "stderr.log").open("ab") as log,
        subprocess.Popen(
            [sys.executable, "-m", "infra.federation.simulation", str(folder / "job.json")],
            stdout=subprocess.PIPE,
            stderr=log,
            env=_environment(),
        ) as process,
    ):
        assert process.stdout is not None
        yield process, (json.loads(line) for line in process.stdout)


def _family(pid: int) -> list[psutil.Process]:
    me = psutil.Process(pid)
    return [me, *me.children(recursive=True)]


def _left(processes: list[psutil.Process], seconds: float = 30.0) -> list[str]:
    """Command lines of those still alive after a while.

    Ray's two agents are not counted: they spend a minute reporting the death of their raylet to its dead peers, and then leave.
    """
    deadline = time.monotonic() + seconds
    while True:
        alive = []
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                command = " ".join(process.cmdline()).strip()
                agent = command.startswith(("ray::DashboardAgent", "ray::RuntimeEnvAgent"))
                if process.is_running() and process.status() != psutil.STATUS_ZOMBIE and not agent:
                    alive.append(f"{process.pid} {command[:200]}")
        if not alive or time.monotonic() > deadline:
            return alive
        time.sleep(0.2)


def test_the_simulation_killed_and_then_a_sites_process(
    tmp_path: Path, undisturbed: FederationResult
) -> None:
    job = make_job(tmp_path, **LONG)
    with _simulation(job, tmp_path) as (process, events):
        for event in events:
            if event.get("round") == 2:
                break
        family = _family(process.pid)
        time.sleep(0.15)  # somewhere inside round 3
        process.kill()
        process.wait()
    assert len(family) > 3
    assert _left(family) == [], "Ray outlived the simulation"
    assert not job.out_dir.exists()

    with _simulation(job, tmp_path) as (process, events):
        first = next(events)
        assert first["resumed_at"] >= 2
        last, killed = first, 0
        for last in events:
            if last.get("round") == 6:
                actors = [p for p in _family(process.pid) if "ClientAppActor" in "".join(p.cmdline())]
                assert len(actors) == 2
                for actor in actors:
                    actor.kill()
                killed = len(actors)
        code = process.wait()
    assert code == 0, (tmp_path / "stderr.log").read_text()[-3000:]
    assert killed == 2
    result = FederationResult.from_dict(last)
    assert result.theta_digest == undisturbed.theta_digest
    assert result.history.read_bytes() == undisturbed.history.read_bytes()
    assert sum(r["repeats"] for r in json.loads(result.timings.read_text())["rounds"]) >= 1


@pytest.mark.soak
def test_the_caller_killed_leaves_no_process_and_the_next_one_goes_on(
    tmp_path: Path, undisturbed: FederationResult
) -> None:
    job = make_job(tmp_path, **LONG)
    job.save(tmp_path / "job.json")
    command = [sys.executable, "-c", PARENT, str(tmp_path / "job.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=_environment()) as caller:
        assert caller.stdout is not None
        for line in caller.stdout:
            if line == b"round\n":
                break
        family = _family(caller.pid)
        caller.kill()
    result = run_federation(job, ray_address="local")  # at once: it waits for the orphan to leave
    assert _left(family) == [], "the simulation outlived its caller"
    assert result.theta_digest == undisturbed.theta_digest
    assert result.history.read_bytes() == undisturbed.history.read_bytes()
