"""`cryfed deploy --fleet` as an operator types it: real servers, real agents, and what is left of it afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.fleet_devices import Behaviour
from benchmarks.fleet_home import FLEET, Home, Polling
from infra.store import registry
from infra.store.content import S3Content
from infra.store.registry import Release
from tests.releases import export_tiny, make_whole_bundle, publish

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

DEVICES = 8


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A fleet on which version 3 fails everywhere."""
    folder = tmp_path_factory.mktemp("operator")
    with Home(folder, DEVICES, lambda device, number: Behaviour(healthy=number != 3)) as home:
        assert home.cryfed("server", "up").returncode == 0
        yield home


@pytest.fixture(scope="module")
def releases(home: Home, tmp_path_factory: pytest.TempPathFactory) -> list[Release]:
    """Three versions; the second is signed off by nobody."""
    folder = tmp_path_factory.mktemp("bundles")
    graph, content = export_tiny(folder / "model.onnx"), S3Content(home.world.store, folder / "cache")
    made = []
    for note in ("first", "unsigned", "bad"):
        release = publish(content, make_whole_bundle(folder / note, graph, notes=(note,)))
        home.world.state(release, signed_off=note != "unsigned")
        made.append(release)
    return made


def points_at(home: Home) -> str | None:
    found = registry.get_channel(home.world.store, "infant-cry-dev")
    return None if found is None else found.manifest_digest


def test_a_fleet_gets_what_is_signed_off_and_keeps_it_when_the_next_one_fails(
    home: Home, releases: list[Release]
) -> None:
    first, unsigned, _ = releases
    world = home.world
    deploy = ("deploy", "dev", "--fleet", FLEET, "--poll", "0.5")
    with Polling(world, every_s=0.5):
        good = home.cryfed(*deploy, "--reference", "1")
        assert good.returncode == 0, good.stdout + good.stderr
        assert "signed off by Dr Example, key " in good.stdout
        assert "infant-cry-dev now at infant-cry@1" in good.stdout
        assert world.running(first.manifest_digest) == DEVICES
        assert points_at(home) == first.manifest_digest

        refused = home.cryfed(*deploy, "--reference", "2")
        assert refused.returncode == 1
        assert "error: nobody has signed off release" in refused.stderr

        bad = home.cryfed(*deploy, "--reference", "3")
        assert bad.returncode == 1
        assert "infant-cry@3 was rolled back on ward: 1 of 1 devices failed (Unhealthy ×1)" in bad.stderr

    assert world.running(first.manifest_digest) == DEVICES
    assert points_at(home) == first.manifest_digest
    assert sum("Unhealthy" in d.refusals for d in world.devices.values()) == 1
    assert not any(unsigned.manifest_digest in key.key for key in world.store.list("fleets/ward/rollouts/"))

    page = (home.runs / "fleets" / "ward.html").read_text()
    assert "infant-cry@3 was rolled back" in page
    assert not any(reach in page for reach in ("<script", "src=", "<link", "@import", "url(h"))
    said = home.cryfed("fleet", "status", FLEET, "--json")
    assert said.returncode == 0, said.stderr
    status = json.loads(said.stdout)
    assert [d["reported"] for d in status["devices"]] == ["infant-cry@1"] * DEVICES
    assert "nothing to do yet" in home.cryfed("fleet", "renew", FLEET).stdout


def test_what_prefect_keeps_of_it(home: Home, releases: list[Release]) -> None:
    from infra.servers import prefect_api, prefect_server

    server = prefect_server.find_running(home.work)
    assert server is not None
    found = prefect_api.call(server.client_environment(), "artifacts/filter", {"limit": 200})
    kinds = {a["key"]: a["type"] for a in found}
    assert kinds["fleet-ward-rings"] == kinds["fleet-ward-devices"] == "table"
    assert kinds["rollout-progress"] == "progress"


def test_a_machine_without_the_fleets_root_deploys_nothing(home: Home, tmp_path: Path) -> None:
    said = home.cryfed("fleet", "status", FLEET, keys=tmp_path / "keys")
    assert said.returncode == 1
    assert "error: no root of ward in" in said.stderr
