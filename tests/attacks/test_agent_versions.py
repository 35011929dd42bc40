"""Rollback, fast-forward, freeze."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.edge.agent.documents import time_text
from tests.infra.edge.agent.signing import new_key, seal
from tests.infra.edge.agent.world import DAY, NOW, Device, Publisher, refuses, settled

Fleet = tuple[Publisher, Device, str]


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return settled(tmp_path)


class TestRollback:
    def test_an_older_desired_state(self, fleet: Fleet) -> None:
        publisher, device, first = fleet
        old = (publisher.folder / publisher.key("desired")).read_bytes()
        second = publisher.release(6)
        publisher.want(second)
        assert device.refusal() is None
        publisher.put(publisher.key("desired"), old)
        refuses(device, "Rollback", says="2 was accepted before")
        device.start()
        refuses(device, "Rollback", says="2 was accepted before")
        assert device.current == second != first

    def test_the_version_counts_even_where_its_release_was_refused(self, fleet: Fleet) -> None:
        publisher, device, _ = fleet
        old = (publisher.folder / publisher.key("desired")).read_bytes()
        publisher.want("0" * 64)
        refuses(device, "StoreUnreachable")
        publisher.put(publisher.key("desired"), old)
        refuses(device, "Rollback")

    def test_an_older_release(self, fleet: Fleet) -> None:
        publisher, device, _ = fleet
        publisher.want(publisher.release(4))
        refuses(device, "Rollback", says="number 4, older than 5")

    def test_unless_the_desired_state_calls_it_one(self, fleet: Fleet) -> None:
        publisher, device, _ = fleet
        older = publisher.release(4)
        publisher.want(older, rollback=True)
        assert device.refusal() is None
        assert device.current == older

    def test_an_older_root_under_the_next_number(self, fleet: Fleet) -> None:
        publisher, device, _ = fleet
        publisher.put(publisher.key("root/2"), publisher.root)
        refuses(device, "Rollback")

    def test_a_provisioned_root_that_is_older_than_the_one_remembered(self, fleet: Fleet) -> None:
        publisher, device, _ = fleet
        stolen = publisher.rotate("fleet")
        publisher.want(publisher.release(6))
        assert device.refusal() is None
        device.start()
        (publisher.folder / publisher.key("root/2")).unlink()
        publisher.keys["fleet"] = stolen
        publisher.want(publisher.release(7))
        refuses(device, "KeyRevoked")


class TestFastForward:
    def test_a_desired_state_that_leaps(self, fleet: Fleet) -> None:
        publisher, device, _ = fleet
        digest = publisher.release(6)
        publisher.want(digest, version=1 + 10_001)
        refuses(device, "FastForward")
        publisher.want(digest, version=1 + 10_000)
        assert device.refusal() is None

    def test_a_new_device_in_an_old_fleet(self, tmp_path: Path) -> None:
        publisher = Publisher(tmp_path / "store")
        publisher.want(publisher.release(1), version=12_345)
        device = Device(tmp_path / "device", publisher)
        assert device.refusal() == "FastForward"
        told = Device(tmp_path / "told", publisher, desired_floor=12_000)
        assert told.refusal() is None

    def test_a_release_number_that_leaps(self, fleet: Fleet) -> None:
        publisher, device, _ = fleet
        publisher.want(publisher.release(5 + 10_001))
        refuses(device, "FastForward")

    def test_a_root_ahead_of_the_next(self, fleet: Fleet) -> None:
        publisher, device, _ = fleet
        data = seal("root", publisher.root_document(3), publisher.keys["root"])
        publisher.put(publisher.key("root/2"), data)
        refuses(device, "FastForward")

    @pytest.mark.parametrize("version", [2**53 + 1, 10**18, 0, -1, True, 1.0, "7"])
    def test_a_version_that_is_none(self, fleet: Fleet, version: object) -> None:
        publisher, device, digest = fleet
        document = publisher.desired_document({"release": digest, "devices": []})
        data = seal("desired", {**document, "version": version}, publisher.keys["fleet"])
        publisher.put(publisher.key("desired"), data)
        refuses(device, "WrongSoftware")

    def test_new_keys_are_not_shut_out_by_what_stolen_ones_did(self, fleet: Fleet) -> None:
        publisher, device, digest = fleet
        for version in (10_001, 20_001, 30_001):
            publisher.want(digest, version=version)
            assert device.refusal() is None
        publisher.rotate("fleet")
        second = publisher.release(6)
        publisher.want(second, version=2)
        assert device.refusal() is None
        assert device.current == second

    def test_a_rotation_that_keeps_enough_keys_forgets_nothing(self, fleet: Fleet) -> None:
        """Else an old desired state of the key that stayed would be welcome again."""
        publisher, device, digest = fleet
        stays = publisher.keys["fleet"][0]
        old = (publisher.folder / publisher.key("desired")).read_bytes()
        publisher.want(digest)
        assert device.refusal() is None
        publisher.keys["fleet"] = [stays, new_key()]
        publisher.publish_root()
        publisher.put(publisher.key("desired"), old)
        refuses(device, "Rollback", says="2 was accepted before")

    def test_a_higher_threshold_alone_forgets_nothing(self, fleet: Fleet) -> None:
        """No key is gone, so both signatures on an old desired state still count."""
        publisher, device, digest = fleet
        old = (publisher.folder / publisher.key("desired")).read_bytes()
        publisher.want(digest)
        assert device.refusal() is None
        publisher.thresholds["fleet"] = 2
        publisher.publish_root()
        publisher.put(publisher.key("desired"), old)
        refuses(device, "Rollback", says="2 was accepted before")


class TestFreeze:
    @pytest.mark.parametrize("what", ["root", "desired", "release", "signoff"])
    def test_an_expired_document(self, fleet: Fleet, what: str) -> None:
        publisher, device, _ = fleet
        dates = {"issued": time_text(NOW - 9 * DAY), "expires": time_text(NOW)}
        if what == "root":
            publisher.publish_root(**dates)
        digest = publisher.release(6, **(dates if what == "release" else {}))
        if what == "signoff":
            publisher.signoff(digest, **dates)
        publisher.want(digest, **(dates if what == "desired" else {}))
        refuses(device, "Expired")

    def test_a_store_that_shows_no_more_news(self, fleet: Fleet) -> None:
        _, device, digest = fleet
        device.clock.now = NOW + 29 * DAY
        assert device.refusal() is None
        device.clock.now = NOW + 30 * DAY
        refuses(device, "Expired")
        assert device.current == digest, "what runs goes on running"

    def test_expired_roots_may_lead_to_one_that_is_not(self, fleet: Fleet) -> None:
        publisher, device, _ = fleet
        publisher.publish_root(expires=time_text(NOW - DAY / 2))
        publisher.publish_root()
        assert device.refusal() is None

    def test_a_clock_that_begins_in_1970_does_not_freshen_what_is_old(self, fleet: Fleet) -> None:
        publisher, device, _ = fleet
        publisher.want(publisher.release(6), issued=time_text(NOW), expires=time_text(NOW + DAY))
        assert device.refusal() is None
        old = {"issued": time_text(NOW - 20 * DAY), "expires": time_text(NOW - 10 * DAY)}
        publisher.want(publisher.release(7), **old)
        device.clock.now = 0.0
        refuses(device, "Expired")

    def test_nor_on_a_device_that_has_its_root_and_nothing_else(self, tmp_path: Path) -> None:
        publisher = Publisher(tmp_path / "store")
        device = Device(tmp_path / "device", publisher)
        old = {"issued": time_text(NOW - 20 * DAY), "expires": time_text(NOW - 10 * DAY)}
        publisher.want(publisher.release(1), **old)
        device.clock.now = 0.0
        assert device.refusal() == "Expired"

    @pytest.mark.parametrize(
        "text", ["", "2027-13-01T00:00:00Z", "2027-01-01", "2027-01-01T00:00:00+01:00", 1]
    )
    def test_a_time_that_is_none(self, fleet: Fleet, text: object) -> None:
        publisher, device, digest = fleet
        publisher.want(digest, expires=text)
        refuses(device, "WrongSoftware", says="is not a time")
