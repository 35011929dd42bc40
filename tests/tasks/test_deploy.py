"""A release is judged by what the store hands out, whatever this machine remembers of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.settings import load_settings
from infra.store import embedded
from infra.store.content import blob_key
from models.errors import BundleError, IntegrityError
from tasks.deploy import find_release, verify_release
from tasks.runtime import Runtime, open_runtime
from tests.releases import export_tiny, make_bundle, publish


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_tiny(tmp_path_factory.mktemp("graph") / "model.onnx")


@pytest.fixture
def opened() -> Iterator[Runtime]:
    with open_runtime() as rt:
        yield rt
    embedded.stop_running(load_settings().work_dir)


@pytest.mark.slow
def test_a_release_is_pulled_from_the_store_and_held_to_its_evidence(
    opened: Runtime, graph: Path, tmp_path: Path
) -> None:
    release = publish(opened.content, make_bundle(tmp_path / "good", graph))
    silent = publish(opened.content, make_bundle(tmp_path / "silent", graph, evidence={}))
    found = find_release.fn("infant-cry", "1", "staging")
    assert found == {"name": "infant-cry", "version": 1, "digest": release.manifest_digest}
    assert verify_release.fn(found)["heads"] == ["gate", "reason"]
    with pytest.raises(BundleError, match="carries no evaluation"):
        verify_release.fn({"name": "infant-cry", "version": 2, "digest": silent.manifest_digest})

    digest = opened.content.put_file(graph)
    opened.store.put(
        blob_key(digest), graph.read_bytes()[:-1] + b"?"
    )  # this machine's cache still has the true one
    with pytest.raises(IntegrityError, match="does not hold the bytes of its name"):
        verify_release.fn(found)
    assert not list(opened.scratch.glob("deploy-*"))
