"""`cryfed store` and `cryfed server`, as a person types them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cryfed.cli import server as server_cli
from cryfed.cli import store as store_cli
from infra.settings import load_settings
from infra.store import embedded, registry
from infra.store.content import S3Content
from models.errors import StoreError

RUNNER = CliRunner()


@pytest.fixture(autouse=True)
def _nothing_left_running() -> Iterator[None]:
    """Whatever a test does or fails to do, its servers end with it."""
    yield
    embedded.stop_running(load_settings().work_dir)


@pytest.fixture
def released(tmp_path: Path) -> registry.Release:
    """A release in the store of the work folder that settings name; its server is kept up between commands."""
    work_dir = load_settings().work_dir
    store = embedded.ensure_running(work_dir, keep=True).connect()
    (tmp_path / "model.onnx").write_text("weights")
    content = S3Content(store, work_dir / "cache")
    digest = content.put_file(tmp_path / "model.onnx")
    manifest = {"files": {"model.onnx": {"sha256": digest, "size": 7}}, "info": {"run": "run-7"}}
    release = registry.publish(content, manifest, "cryfed")
    registry.move_channel(store, "prod", release.manifest_digest, expect=None)
    return release


def test_list_show_pull(released: registry.Release, tmp_path: Path) -> None:
    listed = RUNNER.invoke(store_cli.app, ["list"])
    assert listed.exit_code == 0, listed.output
    for text in ("cryfed@1", released.manifest_digest[:16], "prod", "run-7"):
        assert text in listed.output
    rows = json.loads(RUNNER.invoke(store_cli.app, ["list", "cryfed", "--json"]).output)
    assert [(r["name"], r["version"], r["channels"]) for r in rows] == [("cryfed", 1, ["prod"])]
    assert "no releases of other yet" in RUNNER.invoke(store_cli.app, ["list", "other"]).output

    shown = json.loads(RUNNER.invoke(store_cli.app, ["show", "channel:prod"]).output)
    assert shown["digest"] == released.manifest_digest
    assert list(shown["manifest"]["files"]) == ["model.onnx"]

    out = tmp_path / "pulled"
    pulled = RUNNER.invoke(store_cli.app, ["pull", "cryfed@1", "--out", str(out)])
    assert pulled.exit_code == 0, pulled.output
    assert (out / "model.onnx").read_text() == "weights"

    missing = RUNNER.invoke(store_cli.app, ["pull", "cryfed@2"])
    assert isinstance(missing.exception, StoreError)
    assert "no release cryfed@2" in str(missing.exception)


def test_server_up_status_down() -> None:
    down = RUNNER.invoke(server_cli.app, ["status"])
    assert "store    down" in down.output
    up = RUNNER.invoke(server_cli.app, ["up", "--no-prefect"])
    assert up.exit_code == 0, up.output
    running = embedded.find_running(load_settings().work_dir)
    assert running is not None
    assert running.endpoint in up.output
    assert running.secret_key not in up.output
    status = RUNNER.invoke(server_cli.app, ["status"])
    assert running.endpoint in status.output
    assert "prefect  down" in status.output
    stopped = RUNNER.invoke(server_cli.app, ["down"])
    assert "store    stopped" in stopped.output
    assert "store    was not running" in RUNNER.invoke(server_cli.app, ["down"]).output
