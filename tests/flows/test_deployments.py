"""The deployments, as an operator runs them: a real server and worker on loopback, one home folder, commands of our own.

One home for the whole file. Its worker executes a scheduled run (`watch`, which finds what was announced) and runs on demand
(`gate`, `deploy`); the test talks to Prefect's API as anybody would and looks into the store for what came of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

from cryfed.cli import data
from infra.data.manifest import load_manifest
from infra.data.synth.config import SynthConfig
from infra.data.synth.corpus import synthesise
from infra.servers import prefect_api, prefect_server, prefect_worker
from infra.servers.prefect_server import PrefectServer
from infra.settings import LimitSettings
from infra.store import embedded, incoming, registry
from infra.store.client import ObjectStore
from infra.store.content import S3Content
from infra.store.registry import Release
from tests.releases import export_tiny, make_bundle, publish

REPO = Path(__file__).resolve().parents[2]
CORPUS = SynthConfig(
    sites=2, infants_per_site=5, cries_per_infant=2, noncries_per_site=6, public_noise=12, clip_seconds=1.2
)
RUN_TIMEOUT_S = 240.0
SCHEDULED_IN = timedelta(seconds=8)  # the scheduler looks at what was touched every 5 s
CHANGED, MALFORMED = "c" * 64, "0-not-an-announcement"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Operator:
    """A home folder, what is in it, and what a person does there."""

    def __init__(self, home: Path, elsewhere: Path) -> None:
        self.home, self._elsewhere = home, elsewhere
        self.work = home / ".cryfed"
        outside = {k: v for k, v in os.environ.items() if not k.startswith(("CRYFED_", "PREFECT_"))}
        # the worker looks for runs every 3 s (by default it takes up to 10 to notice one); one process is enough for Ray
        quick = {"PREFECT_WORKER_QUERY_SECONDS": "3", "CRYFED_COMPUTE__CPUS": "1"}
        self._environment = {**outside, **quick, "CRYFED_HOME": str(home)}
        self.server: PrefectServer
        self.store: ObjectStore
        self.releases: list[Release] = []
        self.asked: dict[str, str] = {}  # ids of runs on demand

    def connect(self) -> None:
        """Find what `cryfed server up` started."""
        found, served = prefect_server.find_running(self.work), embedded.find_running(self.work)
        assert found is not None
        assert served is not None
        self.server, self.store = found, served.connect()

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Type `cryfed …` in a folder that is not the home."""
        return subprocess.Popen(
            [sys.executable, "-m", "cryfed", *arguments],
            cwd=self._elsewhere,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def cryfed(self, *arguments: str, status: int = 0) -> str:
        """Type it and wait."""
        return finish(self.start(*arguments), status)

    def api(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """Ask Prefect's API."""
        return prefect_api.call(self.server.client_environment(), path, body, method=method)

    def deployment(self, name: str) -> dict[str, Any]:
        """A deployment by name, as the server holds it."""
        return self.api(f"deployments/name/{name}/{name}")

    def ask(self, name: str, parameters: dict[str, Any]) -> str:
        """Ask for a run now; returns its id."""
        body = {"parameters": {"parameters": parameters}, "state": {"type": "SCHEDULED"}}
        return self.api(f"deployments/{self.deployment(name)['id']}/create_flow_run", body)["id"]

    def schedule(self, name: str, delay: timedelta) -> None:
        """Give a deployment a second schedule, due soon."""
        path = f"deployments/{self.deployment(name)['id']}"
        due = (datetime.now(UTC) + delay).isoformat()
        self.api(f"{path}/schedules", [{"schedule": {"interval": 86_400, "anchor_date": due}}])
        self.api(path, {"tags": ["cryfed"]}, "PATCH")  # the scheduler looks at once at what was touched

    def outcome(self, run: str) -> dict[str, Any]:
        """A run, by its id or by what it was asked for, once it has ended."""
        run = self.asked.get(run, run)
        deadline = time.monotonic() + RUN_TIMEOUT_S
        while True:
            found = self.api(f"flow_runs/{run}")
            if found["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
                return found
            assert time.monotonic() < deadline, f"{found['name']} is {found['state']} yet.\n{self.log()}"
            time.sleep(1.0)

    def points_at(self, channel: str) -> str | None:
        """Manifest digest of what a channel holds."""
        found = registry.get_channel(self.store, f"infant-cry-{channel}")
        return None if found is None else found.manifest_digest

    def log(self) -> str:
        """What the worker and its flows said."""
        return (self.work / "prefect" / "worker.log").read_text()


def finish(command: subprocess.Popen[str], status: int = 0) -> str:
    """Output of a command that has to end with this status."""
    out, _ = command.communicate(timeout=RUN_TIMEOUT_S)
    assert command.returncode == status, out
    return out


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """Servers up, flows deployed, a worker, a release on dev, a corpus announced, a look due soon, and runs asked for.

    All of them at once, as they would come: the tests then look at what came of each.
    """
    operator = Operator(tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("elsewhere"))
    try:
        up = operator.start("server", "up")
        clips = synthesise(CORPUS, operator.home / "clips")
        graph = export_tiny(operator.home / "model.onnx")
        bundles = [make_bundle(operator.home / note, graph, notes=(note,)) for note in ("first", "second")]
        finish(up)
        deploy, worker = operator.start("server", "deploy"), operator.start("server", "worker")
        operator.connect()
        content = S3Content(operator.store, operator.home / "cache")
        operator.releases = [publish(content, bundle) for bundle in bundles]
        first = operator.releases[0].manifest_digest
        registry.move_channel(operator.store, "infant-cry-dev", first, expect=None)
        operator.store.put(incoming.INCOMING + MALFORMED, b"{")
        incoming.announce(operator.store, clips, CHANGED)
        assert "announced: " in operator.cryfed("data", "announce", str(clips))
        finish(worker)
        assert finish(deploy).count("successfully") == 4
        operator.schedule("watch", SCHEDULED_IN)
        operator.asked = {
            "staged": operator.ask("deploy", {"channel": "staging", "expect": "nothing"}),  # what dev holds
            "hasty": operator.ask("deploy", {"channel": "prod", "reference": "latest"}),
            "gate": operator.ask("gate", {"manifest": "clips/manifest.csv"}),  # below the home
        }
        yield operator
    finally:
        prefect_worker.stop_running(operator.work)
        prefect_server.stop_running(operator.work)
        embedded.stop_running(operator.work)


def test_what_is_deployed_names_no_machine(operator: Operator) -> None:
    found = {name: operator.deployment(name) for name in ("retrain", "gate", "watch", "deploy")}
    for name, deployment in found.items():
        assert deployment["entrypoint"] == f"flows.{name}.{name}"
        assert deployment["pull_steps"] == []
        assert deployment["path"] is None
        assert deployment["work_pool_name"] == "cryfed"
        text = json.dumps(deployment)
        for here in (str(REPO), str(operator.home), str(Path.home()), os.uname().nodename, "127.0.0.1"):
            assert here not in text, f"{name} bakes in {here}"
    (weekly,) = found["retrain"]["schedules"]
    assert (weekly["schedule"]["cron"], weekly["schedule"]["timezone"]) == ("0 2 * * 1", "UTC")
    assert {s["slug"]: s["schedule"]["interval"] for s in found["watch"]["schedules"]}["look"] == 60.0
    assert found["gate"]["schedules"] == found["deploy"]["schedules"] == []
    for name, strategy in (("retrain", "ENQUEUE"), ("watch", "CANCEL_NEW")):
        assert found[name]["global_concurrency_limit"]["limit"] == 1
        assert found[name]["concurrency_options"]["collision_strategy"] == strategy
    assert found["retrain"]["parameters"]["parameters"]["preset"] == "compact"


def test_a_release_is_promoted_and_a_stale_expectation_refused(operator: Operator) -> None:
    first, _ = operator.releases
    assert operator.outcome("staged")["state"]["type"] == "COMPLETED", operator.log()
    assert operator.points_at("staging") == first.manifest_digest

    refused = operator.outcome("hasty")["state"]
    assert refused["type"] == "FAILED"
    assert "infant-cry@2 is not on infant-cry-staging" in refused["message"]
    assert operator.points_at("prod") is None

    said = operator.cryfed("deploy", "staging", "--reference", "2", "--expect", "nothing", status=1)
    assert f"error: channel infant-cry-staging points at {first.manifest_digest}, not at nothing" in said
    assert operator.points_at("staging") == first.manifest_digest


def test_a_scheduled_look_gates_what_was_announced_and_one_on_demand_does_too(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadline = time.monotonic() + RUN_TIMEOUT_S
    while incoming.waiting(operator.store):
        assert time.monotonic() < deadline, operator.log()
        time.sleep(0.5)
    clips = operator.home / "clips" / "manifest.csv"
    found = incoming.find_outcome(operator.store, load_manifest(clips, limits=LimitSettings()).digest)
    assert found is not None
    assert found["passed"], found
    assert found["verdict"].startswith("stage:gate/")
    refused = incoming.find_outcome(operator.store, CHANGED)
    assert refused is not None
    assert "was changed after it was announced" in refused["error"]
    assert f"gated/{MALFORMED}" in {o.key for o in operator.store.list("gated/")}

    looks = operator.api("flow_runs/filter", {"flows": {"name": {"any_": ["watch"]}}, "limit": 200})
    ended = [operator.outcome(r["id"]) for r in looks if r["run_count"]]
    assert ended
    assert {(r["state"]["type"], r["auto_scheduled"]) for r in ended} == {("COMPLETED", True)}, ended

    run = operator.outcome("gate")
    assert run["state"]["type"] == "COMPLETED", operator.log()
    keys = {a["key"] for a in operator.api("artifacts/filter", {"limit": 200})}
    assert {"gate", "gate-findings", "gate-sites", "deploy"} <= keys

    for name in ("CRYFED_WORK_DIR", "CRYFED_RUNS_DIR"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("CRYFED_HOME", str(operator.home))
    asked = CliRunner().invoke(data.app, ["announce", str(clips)])
    assert "announced before, passed" in asked.output, asked.output


def test_down_leaves_nothing_behind(operator: Operator) -> None:
    worker = prefect_worker.find_running(operator.work)
    assert worker is not None
    family = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]
    family += [psutil.Process(operator.server.pid)]
    said = operator.cryfed("server", "down")
    assert [line.split()[:2] for line in said.splitlines()] == [
        ["worker", "stopped"],
        ["prefect", "stopped"],
        ["store", "stopped"],
    ]
    assert not any(p.is_running() for p in family)
    assert operator.cryfed("server", "status").count("down") == 3
    assert "`cryfed server up` first" in operator.cryfed("server", "worker", status=1)
