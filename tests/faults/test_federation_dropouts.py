"""Three of ten sites drop out in every round, at another stage each time, and a Ray actor is killed: every round completes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from infra.federation.files import decode_arrays
from infra.federation.job import FederationJob
from infra.federation.rounds import federate
from infra.federation.site import open_site
from infra.federation.transport import LocalTransport
from tests.infra.federation.world import make_job

ROUNDS = 6
STAGES = ("keys", "share", "train", "confirm", "unmask")

DROPPING = """
import json, sys
from dataclasses import replace
from pathlib import Path
from infra.federation import simulation
from infra.federation.client_app import build_app
from infra.federation.site import open_site
from tests.faults.test_federation_dropouts import drops

class Dropping:
    def __init__(self, site, number):
        self.site, self.number, self.max_payload = site, number, site.max_payload

    def handle(self, request):
        return drops(self.site.handle, self.number)(request)

path = sys.argv[1]
app = build_app(lambda c: Dropping(open_site(path, n := int(c.node_config["partition-id"])), n))
simulation.simulate(Path(path), lambda e: print("EVENT " + json.dumps(e), flush=True), client=app)
"""


def drops(handle, number: int):  # type: ignore[no-untyped-def]
    """The site's answers, but that it refuses one stage of every round in which it is one of the three that drop out."""

    def answer(request):  # type: ignore[no-untyped-def]
        from dataclasses import replace

        round_number = request.header.round
        gone = {(3 * round_number + k) % 10 for k in range(3)}
        if number in gone and request.header.action == STAGES[(round_number + number) % 5]:
            return handle(replace(request, payload=b"\x00"))
        return handle(request)

    return answer


def job_of(folder: Path) -> FederationJob:
    return make_job(folder, sites=10, rounds=ROUNDS, retries=2, local={"steps": 2, "batch_size": 4})


def check(job: FederationJob) -> dict:
    history = json.loads((job.out_dir / "history.json").read_text())
    assert [r["skipped"] for r in history["rounds"]] == [None] * ROUNDS
    assert all(len(r["failures"]) == 3 and 7 <= len(r["counted"]) <= 9 for r in history["rounds"])
    (theta,) = decode_arrays((job.out_dir / "theta.safetensors").read_bytes(), "theta").values()
    assert np.isfinite(theta).all()
    found: dict = history
    return found


def test_every_round_completes(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    job.save(tmp_path / "job.json")
    sites = {n: open_site(str(tmp_path / "job.json"), n) for n in job.site_names}
    handlers = {n: drops(s.handle, i) for i, (n, s) in enumerate(sites.items())}
    federate(job, LocalTransport(handlers))
    check(job)


@pytest.mark.slow
@pytest.mark.soak
def test_every_round_completes_on_ray_with_an_actor_killed(tmp_path: Path) -> None:
    plain = job_of(tmp_path / "plain")
    plain.save(tmp_path / "plain.json")
    sites = {n: open_site(str(tmp_path / "plain.json"), n) for n in plain.site_names}
    federate(plain, LocalTransport({n: drops(s.handle, i) for i, (n, s) in enumerate(sites.items())}))
    job = job_of(tmp_path / "ray")
    job.save(tmp_path / "job.json")
    (tmp_path / "dropping.py").write_text(DROPPING)
    environment = {
        **os.environ,
        "RAY_ADDRESS": "local",
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
    }
    killed = 0
    with (
        (tmp_path / "stderr.log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, str(tmp_path / "dropping.py"), str(tmp_path / "job.json")],
            stdout=subprocess.PIPE, stderr=log, env=environment, text=True,
        ) as process,
    ):  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("EVENT ") and json.loads(line[6:]).get("round") == 2:
                family = psutil.Process(process.pid).children(recursive=True)
                actors = [p for p in family if "ClientAppActor" in "".join(p.cmdline())]
                actors[0].kill()
                killed += 1
    assert process.returncode == 0, (tmp_path / "stderr.log").read_text()[-3000:]
    assert killed == 1
    assert check(job)["theta"] == check(plain)["theta"]
