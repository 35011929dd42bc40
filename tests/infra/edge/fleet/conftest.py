"""A real store for a fleet's tests, and a small fleet of real agents on it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.fleet_devices import Behave, World, obedient
from infra.store import embedded
from infra.store.embedded import EmbeddedServer


@pytest.fixture(scope="session")
def fleet_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server that outlives single tests."""
    work_dir = tmp_path_factory.mktemp("fleet-store")
    yield embedded.ensure_running(work_dir)
    embedded.stop_running(work_dir)


@pytest.fixture
def make_world(fleet_server: EmbeddedServer, tmp_path: Path) -> Callable[..., World]:
    """A fleet of so many devices in a bucket of its own."""

    def make(size: int, behave: Behave = obedient, **changes: int) -> World:
        store = fleet_server.connect(bucket=f"fleet-{uuid.uuid4().hex[:12]}")
        store.ensure_bucket()
        folder = tmp_path / "devices"
        folder.mkdir()
        return World(store, fleet_server, folder, "ward", size, behave, **changes)

    return make
