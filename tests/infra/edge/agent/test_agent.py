"""The whole of a poll, from a folder of documents to a current slot, with the real code and the real `openssl`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.infra.edge.agent.world import Device, Publisher


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    """A fleet with its first root."""
    return Publisher(tmp_path / "store")


@pytest.fixture
def device(tmp_path: Path, publisher: Publisher) -> Device:
    """A fresh device of it."""
    return Device(tmp_path / "device", publisher)


def test_a_release_becomes_current_and_is_reported(publisher: Publisher, device: Device) -> None:
    digest = publisher.release(1)
    publisher.want(digest)
    status = device.poll()
    assert (status.state, status.error, status.release, status.slot) == ("running", None, digest, "a")
    assert device.current == digest
    report = device.report()
    assert report["type"] == "report"
    assert (report["device"], report["desired"], report["release"]) == ("cot-7", 1, digest)
    assert report["health"]["max_difference"] == 0.0
    assert report["health"]["argmax_agreement"] == 1.0
    assert (report["health"]["p50_ms"], report["health"]["p95_ms"]) == (9.0, 10.0)


def test_the_next_release_goes_into_the_other_slot(publisher: Publisher, device: Device) -> None:
    publisher.want(publisher.release(1))
    device.poll()
    second = publisher.release(2)
    publisher.want(second)
    assert device.poll().slot == "b"
    assert device.current == second
    third = publisher.release(3)
    publisher.want(third)
    assert device.poll().slot == "a"
    assert device.current == third
