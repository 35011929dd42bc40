"""The state machine by itself: its order, and what it remembers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infra.edge.agent.documents import time_text
from infra.edge.agent.errors import ConfigError, Refused
from infra.edge.agent.trusted import Trusted
from infra.edge.trust.trusted import Device
from tests import fleets
from tests.fleets import Offer
from tests.infra.edge.agent.signing import verify
from tests.infra.edge.agent.world import DAY, DEVICE, FLEET, HARDWARE, NOW, Publisher
from tests.refusals import DEVICE as REFUSING
from tests.refusals import REFUSALS


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher(tmp_path / "store")


def _trusted(publisher: Publisher, **changes: object) -> Trusted:
    given = {"fleet": FLEET, "root": publisher.root, "memory": None, **changes}
    made = Trusted(given["fleet"], DEVICE, HARDWARE, verify, given["root"], given["memory"])  # type: ignore[arg-type]
    made.begin(NOW)
    return made


def test_steps_out_of_order_are_bugs(publisher: Publisher) -> None:
    digest = publisher.release(1)
    desired = publisher.want(digest)
    trusted = _trusted(publisher)
    for step in (
        lambda: trusted.add_desired(desired),
        lambda: trusted.add_release(b"", 0),
        lambda: trusted.add_signoff(b""),
        lambda: trusted.add_manifest(b""),
    ):
        with pytest.raises(RuntimeError):
            step()
    trusted.finish_roots()
    ring = trusted.add_desired(desired)
    assert ring is not None
    assert (ring.release, ring.rollback) == (digest, False)
    trusted.add_release((publisher.folder / publisher.key(f"releases/{digest}")).read_bytes(), 0)
    with pytest.raises(RuntimeError):
        trusted.add_manifest((publisher.folder / f"manifests/{digest}.json").read_bytes())


def test_a_new_poll_begins_at_the_beginning(publisher: Publisher) -> None:
    desired = publisher.want(publisher.release(1))
    trusted = _trusted(publisher)
    trusted.finish_roots()
    trusted.add_desired(desired)
    trusted.begin(NOW)
    with pytest.raises(RuntimeError):
        trusted.add_desired(desired)


def test_its_memory_is_json_and_brings_it_back(publisher: Publisher) -> None:
    trusted = _trusted(publisher)
    publisher.rotate("fleet")
    trusted.add_root((publisher.folder / publisher.key("root/2")).read_bytes())
    trusted.finish_roots()
    trusted.add_desired(publisher.want(publisher.release(1)))
    trusted.installed(1)
    memory = json.loads(json.dumps(trusted.memory))
    again = _trusted(publisher, memory=memory)
    assert again.memory == trusted.memory
    assert (again.next_root, again.desired_version) == (3, 1)
    assert len(memory["retired"]["fleet"]) == 2


def test_the_time_does_not_go_back_with_a_later_desired_state(publisher: Publisher) -> None:
    """The device's own clock says 1970; the second desired state was signed by a clock that goes ten days behind."""
    trusted = _trusted(publisher)
    digest = publisher.release(1)
    for issued in (NOW, NOW - 10 * DAY):
        trusted.begin(0)
        trusted.finish_roots()
        trusted.add_desired(publisher.want(digest, issued=time_text(issued)))
    assert trusted.memory["issued"] == NOW


def test_memory_is_a_copy(publisher: Publisher) -> None:
    trusted = _trusted(publisher)
    before = json.dumps(trusted.memory)
    trusted.memory["retired"]["fleet"]["x"] = "y"
    assert json.dumps(trusted.memory) == before


def test_a_newer_provisioned_root_replaces_the_remembered_one(publisher: Publisher) -> None:
    memory = _trusted(publisher).memory
    publisher.keys["root"] = publisher.keys["release"]
    fresh = publisher.publish_root()
    assert _trusted(publisher, root=fresh, memory=memory).next_root == 3
    assert _trusted(publisher, root=publisher.root, memory=memory).next_root == 2


@pytest.mark.parametrize("root", [b"", b"{}"])
def test_a_root_that_is_none(publisher: Publisher, root: bytes) -> None:
    with pytest.raises(ConfigError, match="provisioned root"):
        _trusted(publisher, root=root)


def test_another_fleets_root(publisher: Publisher) -> None:
    with pytest.raises(ConfigError, match="belongs to elsewhere"):
        _trusted(publisher, fleet="elsewhere")


def _follow(offer: Offer, device: Device = REFUSING, days: float = 0) -> None:
    """Everything up to the sign-off."""
    trusted = Trusted(
        fleets.FLEET, device.name, device.hardware, verify, offer.roots[0], None, desired_floor=device.desired
    )
    trusted.begin(fleets.NOW.timestamp() + days * 86_400)
    for data in offer.roots[1:]:
        trusted.add_root(data)
    trusted.finish_roots()
    assert trusted.add_desired(offer.desired) is not None
    trusted.add_release(offer.release, device.running)
    trusted.add_signoff(offer.signoff)


@pytest.mark.parametrize("name", REFUSALS)
def test_it_refuses_what_the_fleet_refuses_and_as_the_same(name: str) -> None:
    """The two readers share no code; `tests/infra/edge/trust/test_trusted.py` holds the other against the same offers."""
    case = REFUSALS[name]()
    with pytest.raises(Refused) as caught:
        _follow(case.offer, case.device, case.days)
    assert caught.value.kind == case.kind.__name__, caught.value


def test_and_takes_what_the_fleet_takes() -> None:
    assert len(REFUSALS) == 29
    _follow(Offer())
