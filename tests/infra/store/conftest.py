"""A real embedded server for the tests of the store: one per test session, started as a run starts it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.store import embedded
from infra.store.client import ObjectStore
from infra.store.content import S3Content
from infra.store.embedded import EmbeddedServer


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server that outlives single tests."""
    work_dir = tmp_path_factory.mktemp("served")
    yield embedded.ensure_running(work_dir)
    embedded.stop_running(work_dir)


@pytest.fixture
def store(server: EmbeddedServer) -> ObjectStore:
    """An empty bucket of its own for each test."""
    store = server.connect(bucket=f"test-{uuid.uuid4().hex[:12]}")
    store.ensure_bucket()
    return store


@pytest.fixture
def content(store: ObjectStore, tmp_path: Path) -> S3Content:
    """Content store over that bucket, with an empty cache."""
    return S3Content(store, tmp_path / "cache")
