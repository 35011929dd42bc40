"""A SuperLink and three sites as processes, over TLS: the plain loop's result, a killed site, strangers, foreign code.

One module fixture starts everything once.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from flwr.cli.build import build_fab_from_files
from flwr.proto.fleet_pb2 import RegisterNodeFleetRequest

from infra.federation.job import FederationJob
from infra.federation.real import control as control_module
from infra.federation.real import superlink
from infra.federation.real.certificates import load_site_key, make_server, make_site
from infra.federation.real.config import SiteConfig, check_site, load_site_config
from infra.federation.real.demo import start_site, stop_sites
from infra.federation.real.fleet import Fleet
from infra.federation.real.members import admit, announce
from infra.federation.real.run import run_job
from infra.federation.real.superlink import SuperLink
from infra.federation.real.supernode import serve
from infra.federation.rounds import federate
from infra.servers import process
from infra.servers.process import ServerProcess
from models.errors import ConfigError, ServerError
from tests.infra.federation.world import local_transport, make_job

pytestmark = [pytest.mark.slow, pytest.mark.soak]

SLOW = {"steps": 100, "batch_size": 8}  # a second of work, so that a site can be killed in the middle of it


@dataclass
class Federation:
    root: Path
    link: SuperLink
    sites: dict[str, ServerProcess]

    def job(self, name: str, **changes: Any) -> tuple[FederationJob, Path]:
        """A job over the same sites and features, with journal and output of its own."""
        own = {"checkpoint_dir": self.root / name / "checkpoint", "out_dir": self.root / name / "out"}
        job = make_job(self.root / "world", **{"rounds": 2, "retries": 0, **own, **changes})
        path = self.root / f"{name}.json"
        job.save(path)
        return job, path

    def config(self, site: str, **changes: Path) -> SiteConfig:
        """The configuration of a site; its key is made with it."""
        folder = self.root / "sites" / f"{site}-{len(list(self.root.glob('sites/*')))}"
        key, _ = make_site(folder, site)
        lines = {
            "site": site,
            "superlink": self.link.fleet,
            "ca": self.link.folder / "ca.pem",
            "key": key,
            "job": self.root / "for-sites.json",
            "folder": folder / "own",
            "features": self.root / "world" / site / "features.safetensors",
            **changes,
        }
        path = folder / "site.toml"
        path.write_text("".join(f"{name} = {json.dumps(str(value))}\n" for name, value in lines.items()))
        return load_site_config(path)


def wait_online(server: Path, sites: int) -> None:
    """Wait until so many sites are connected."""
    deadline, online = time.monotonic() + 60, 0
    while online < sites:
        assert time.monotonic() < deadline, f"{online} of {sites} sites are connected after a minute"
        time.sleep(0.3)
        if (link := superlink.find_running(server)) is not None:
            with contextlib.suppress(ServerError), link.connect(timeout_s=2.0) as control:
                online = sum(node.status == "online" for node in control.nodes())


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    root = tmp_path_factory.mktemp("real")
    make_server(root / "server")
    try:
        configs: list[SiteConfig] = []
        link = superlink.ensure_running(root / "server", port=process.free_ports(1)[0])
        made = Federation(root, link, {})
        made.job("for-sites")
        for site in ("site0", "site1", "site2"):
            config = made.config(site)
            admit(root / "server", config.key.with_suffix(".pub"))
            configs.append(config)
        with made.link.connect() as control:
            announce(root / "server", control)
        for config in configs:
            made.sites[config.site] = start_site(config.folder.parent, config.folder.parent / "site.toml")
        wait_online(root / "server", 3)
        yield made
    finally:
        stop_sites(root.glob("sites/*"))
        superlink.stop_running(root / "server")
    assert superlink.find_running(root / "server") is None


def test_it_gives_what_the_plain_loop_gives(federation: Federation, tmp_path: Path) -> None:
    _, path = federation.job("plain")
    events: list[dict] = []
    result = run_job(federation.link, path, lambda event: events.append(dict(event)))
    plain = make_job(tmp_path, rounds=2, retries=0)
    expected = federate(plain, local_transport(plain, tmp_path))
    assert result.theta.read_bytes() == expected.theta.read_bytes()
    assert result.history.read_bytes() == expected.history.read_bytes()
    assert events[0]["event"] == "start"
    assert events[-1]["event"] == "done"
    rounds = [e for e in events if e["event"] == "round"]
    # five exchanges each under masks; Flower's own processes and polls take 10 s for one
    assert sum(e["seconds"] for e in rounds) < 60


def test_a_stranger_is_refused_and_a_strange_server_not_trusted(federation: Federation) -> None:
    stranger = federation.config("site1")
    with pytest.raises(ConfigError, match="does not know this site's key"):
        serve(stranger)
    # nor can it register itself, as Flower's own SuperNode tries where it has no key
    fleet = Fleet(stranger.superlink, stranger.ca.read_bytes(), load_site_key(stranger.key), max_bytes=1)
    with pytest.raises(grpc.RpcError) as refused:
        fleet._stub.RegisterNode(RegisterNodeFleetRequest(public_key=fleet._public_key))
    assert "must be registered via the CLI" in refused.value.details()  # type: ignore[attr-defined]
    make_server(federation.root / "other")
    wrong = federation.config("site1", ca=federation.root / "other" / "ca.pem")
    with pytest.raises(ConfigError, match="does not vouch for"):
        serve(wrong)
    assert [c.ok for c in check_site(stranger)] == [True] * 7
    assert {c.what for c in check_site(wrong) if not c.ok} == {"server"}
    with federation.link.connect() as control:
        assert [node.status for node in control.nodes()] == ["online"] * 3


EVIL = """
from pathlib import Path
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

app, client = ServerApp(), ClientApp()

@client.query("hello")
def steal(message, context):
    Path("MARK").write_text("run")
    return Message(RecordDict(), reply_to=message)

@app.main()
def main(grid, context):
    nodes = list(grid.get_node_ids())
    sent = [Message(RecordDict(), dst_node_id=n, message_type="query.hello") for n in nodes]
    for reply in grid.send_and_receive(sent, timeout=20):
        print("answer", reply.error.reason if reply.has_error() else "content")
"""


def test_code_that_the_server_sends_is_not_run(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = federation.root / "mark"
    bundle = control_module.BUNDLE.replace("infra.federation.real.server_app", "evil")
    bundle = bundle.replace("infra.federation.client_app:app", "evil:client")
    files = {"pyproject.toml": bundle.encode(), "evil.py": EVIL.replace("MARK", str(mark)).encode()}
    monkeypatch.setattr(control_module, "build_fab_from_files", lambda _ours: build_fab_from_files(files))
    with federation.link.connect() as control:
        lines = [line for line in control.lines(control.start(mark)) if line.startswith("answer")]
    assert len(lines) == 3
    assert all("UpdateRejected: a message must hold the records" in line for line in lines)
    assert not mark.exists()


def test_a_run_that_fails_is_an_error_of_its_own_class(federation: Federation) -> None:
    with pytest.raises(ConfigError, match="cannot read the federation job"):
        run_job(federation.link, federation.root / "none.json")
    _, path = federation.job("broken", base_model=federation.root / "none.safetensors")
    with pytest.raises(ConfigError, match="cannot read the base model"):
        run_job(federation.link, path)


def test_a_site_that_is_killed_is_left_out(federation: Federation) -> None:
    victim = federation.sites["site1"]
    job, path = federation.job("kill", secure=False, local=SLOW, rounds=3, min_sites=2)
    seen = len(Path(victim.log).read_text())

    def watch() -> None:
        while "round 2: train.step" not in Path(victim.log).read_text()[seen:]:
            time.sleep(0.02)
        os.kill(victim.pid, signal.SIGKILL)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    result = run_job(federation.link, path)
    watcher.join()
    rounds = json.loads(result.history.read_text())["rounds"]
    assert [r["survivors"] for r in rounds] == [list(job.site_names), ["site0", "site2"], ["site0", "site2"]]
    assert rounds[1]["failures"]["site1"]["kind"] == "lost"
    # the server knows within 20 s that it is gone, and then asks for nothing more in vain
    seconds = [r["seconds"] for r in json.loads(result.timings.read_text())["rounds"]]
    assert seconds[1] < 60 < job.timeout_s
    assert seconds[2] < seconds[1]


def test_a_restarted_server_gets_its_sites_back_and_they_it(federation: Federation) -> None:
    """A SuperLink holds registrations in memory: it is told of them again, and the sites notice. The killed one returns, too."""
    root, port = federation.root, federation.link.fleet.rpartition(":")[2]
    superlink.stop_running(root / "server")
    start = "from cryfed.cli.federation import app; app()"
    argv = [sys.executable, "-c", start, "server", "start", str(root / "server"), "--port", port]
    with subprocess.Popen(argv) as server:
        try:
            if not process.alive(victim := federation.sites["site1"]):
                killed = Path(victim.log).parent
                start_site(killed, killed / "site.toml")
            wait_online(root / "server", 3)
        finally:
            server.terminate()
        assert server.wait(timeout=30) == 0
    assert superlink.find_running(root / "server") is None
