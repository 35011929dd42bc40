"""Flower and Ray for real: the simulation gives what the plain loop gives, and a hostile site cannot break a round."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.federation.launch import run_federation
from infra.federation.rounds import federate
from infra.federation.transport import LocalTransport
from infra.federation.whole_job import CALIBRATIONS, run_job
from models.errors import ConfigError
from tests.infra.federation.recordings import corpus, local_job, open_sites
from tests.infra.federation.world import local_transport, make_job

pytestmark = pytest.mark.slow

HOSTILE = """
import json, sys
from pathlib import Path
from dataclasses import replace
from infra.federation import simulation
from infra.federation.site import open_site
from infra.federation.wire import from_records, to_records
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from models.errors import FederationError

def hostile_app(path):
    client = ClientApp()

    def answer(message, context):
        number = int(context.node_config["partition-id"])
        site = open_site(path, number)
        request = from_records(message.content, max_payload=site.max_payload)
        reply = to_records(site.handle(request))
        if request.header.action == "train":
            if number == 1:
                raise RuntimeError("a bug at the site")
            if number == 2 or (number == 3 and request.header.round == 2):
                reply = RecordDict({"junk": ConfigRecord({"x": 1})})
        return Message(reply, reply_to=message)

    client.query("hello")(answer)
    client.train("step")(answer)
    return client

path = Path(sys.argv[1])
try:
    simulation.simulate(path, lambda event: None, client=hostile_app(str(path)))
except FederationError as err:
    print(type(err).__name__, err)
"""


def test_the_simulation_equals_the_plain_loop(tmp_path: Path) -> None:
    job = make_job(tmp_path / "ray", sites=4, participation=0.75)
    plain = make_job(tmp_path / "plain", sites=4, participation=0.75)
    events: list[dict] = []
    result = run_federation(job, ray_address="local", on_event=lambda e: events.append(dict(e)))
    expected = federate(plain, local_transport(plain, tmp_path / "plain"))
    assert result.theta_digest == expected.theta_digest
    assert result.theta.read_bytes() == expected.theta.read_bytes()
    assert result.history.read_bytes() == expected.history.read_bytes()
    assert [e["event"] for e in events] == ["start", *["round"] * job.rounds, "closing", "done"]


def test_hostile_sites_are_left_out_over_flower(tmp_path: Path) -> None:
    """Site 1 crashes, site 2 answers with junk; in round 2 site 3 does too, which is one too many."""
    job = make_job(tmp_path, sites=4, rounds=2, min_sites=2, retries=1, secure=False)
    job.save(tmp_path / "job.json")
    (tmp_path / "hostile.py").write_text(HOSTILE)
    done = subprocess.run(
        [sys.executable, tmp_path / "hostile.py", tmp_path / "job.json"],
        check=False,
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "RAY_ADDRESS": "local"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "FederationError round 2: 1 of 4 sites delivered, at least 2 are needed" in done.stdout
    journal = [json.loads(line) for line in (job.checkpoint_dir / "journal.jsonl").read_text().splitlines()]
    assert [e.get("stage") for e in journal] == [None, "open", "closed", "open"]
    record = journal[2]["record"]
    assert record["survivors"] == ["site0", "site3"]
    assert record["failures"]["site1"]["kind"] == "lost"
    assert "a bug at the site" in record["failures"]["site1"]["reason"]
    assert record["failures"]["site2"]["kind"] == "rejected"


def test_sites_gate_extract_and_calibrate_over_flower_as_in_one_process(tmp_path: Path) -> None:
    manifest = corpus(tmp_path)
    events: list[dict] = []
    job = local_job(tmp_path / "ray", manifest)
    result = run_federation(job, ray_address="local", on_event=lambda e: events.append(dict(e)))
    plain = local_job(tmp_path / "plain", manifest)
    sites = {name: site.handle for name, site in open_sites(plain, tmp_path).items()}
    expected = run_job(plain, LocalTransport(sites))
    assert [e["event"] for e in events] == [
        "gate",
        "features",
        "start",
        "round",
        "calibrate",
        "done",
    ]
    assert result.theta_digest == expected.theta_digest
    for name in (CALIBRATIONS, "history.json"):
        assert (job.out_dir / name).read_bytes() == (plain.out_dir / name).read_bytes()


def test_an_unreachable_cluster_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_gcs_rpc_server_connect_timeout_s", "1")
    monkeypatch.setenv("RAY_gcs_server_request_timeout_seconds", "2")
    with pytest.raises(ConfigError, match=r"no Ray cluster answers at 127\.0\.0\.1:9"):
        run_federation(make_job(tmp_path), ray_address="127.0.0.1:9")
