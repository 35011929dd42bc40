"""Configuration and command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infra.edge.agent.__main__ import main, make_backend, make_store
from infra.edge.agent.build import Fallback, OnnxRuntime
from infra.edge.agent.config import read_config
from infra.edge.agent.engine import TensorRT
from infra.edge.agent.errors import ConfigError
from infra.edge.agent.s3 import S3Store
from infra.edge.agent.store import DirectoryStore
from tests.infra.edge.agent.world import Device, Publisher

GOOD: dict[str, Any] = {
    "fleet": "ward", "device": "cot-7", "hardware": "jetson-nano", "root": "root.json", "key": "device.key",
    "folder": "/var/lib/cryfed", "store": {"directory": "/mnt/stick"},
}  # fmt: skip


def _write(folder: Path, **changes: Any) -> Path:
    path = folder / "agent.json"
    path.write_text(json.dumps({k: v for k, v in {**GOOD, **changes}.items() if v is not ...}))
    return path


def test_the_least_there_has_to_be(tmp_path: Path) -> None:
    config = read_config(_write(tmp_path))
    assert config.root == tmp_path / "root.json"
    assert config.folder == Path("/var/lib/cryfed")
    assert (config.poll_s, config.lowest_rate, config.restart) == (60.0, 1024, ())
    assert isinstance(make_store(config), DirectoryStore)
    assert isinstance(make_backend(config), OnnxRuntime)


def test_what_else_there_may_be(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    secret.chmod(0o600)
    store = {"url": "https://h:9000/b", "access_key": "k", "secret_key_file": "secret", "region": "eu"}
    changes = {"store": store, "backend": {"trtexec": "/t", "workspace_mib": 256}, "poll_s": 5, "attempts": 2}
    config = read_config(_write(tmp_path, **changes))
    assert config.credentials is not None
    assert tuple(config.credentials) == ("k", "s3cret", "eu")
    assert (config.poll_s, config.attempts) == (5.0, 2)
    assert isinstance(make_store(config), S3Store)
    assert isinstance(make_backend(config), TensorRT)
    assert config.workspace_mib == 256
    both = read_config(_write(tmp_path, backend={"trtexec": "/t", "python": "/usr/bin/python3"}))
    assert isinstance(make_backend(both), Fallback)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"fleet": ...}, "fleet has to be a plain name"),
        ({"device": "../x"}, "device has to be a plain name"),
        ({"root": 1}, "root has to be a text"),
        ({"pol_s": 1}, "unknown key 'pol_s'"),
        ({"store": {}}, "url or directory"),
        ({"store": {"url": "x", "directory": "y"}}, "one of them"),
        ({"store": {"url": "https://h/b", "access_key": "k"}}, "secret_key_file"),
        ({"store": {"url": "https://h/b", "access_key": "k", "secret_key_file": "none"}}, "No such file"),
        ({"backend": {"trtexec": "/t", "flags": ["--fp16"]}}, "unknown key 'flags'"),
        ({"backend": {"trtexec": "/t", "workspace_mib": 0}}, "at least 1"),
        ({"restart": "systemctl restart x"}, "list of texts"),
        ({"poll_s": -1}, "at least 0"),
        ({"poll_s": "1"}, "has to be a number"),
        ({"poll_s": True}, "has to be a number"),
    ],
    ids=str,
)
def test_what_there_must_not_be(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    path = _write(tmp_path, **changes)
    with pytest.raises(ConfigError, match=r"agent\.json") as caught:
        read_config(path)
    assert says in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"fleet": NaN}', '{"fleet": "a", "fleet": "b"}'])
def test_a_file_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "agent.json").write_text(text)
    with pytest.raises(ConfigError, match=r"agent\.json"):
        read_config(tmp_path / "agent.json")


def test_a_secret_that_others_may_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    (tmp_path / "secret").chmod(0o644)
    store = {"url": "https://h/b", "access_key": "k", "secret_key_file": "secret"}
    with pytest.raises(ConfigError, match="chmod 600"):
        read_config(_write(tmp_path, store=store))


class TestCommandLine:
    @pytest.fixture
    def device(self, tmp_path: Path) -> Device:
        """A device with a configuration file; nothing has run yet."""
        publisher = Publisher(tmp_path / "store")
        publisher.want(publisher.release(1), expires="2099-01-01T00:00:00Z")
        return Device(tmp_path / "device", publisher)

    def test_once(self, device: Device, capsys: pytest.CaptureFixture[str]) -> None:
        argv = ["--config", str(device.write_config()), "--once"]
        assert main(argv) == 0
        assert json.loads(capsys.readouterr().out)["state"] == "running"
        device.publisher.put(device.publisher.key("desired"), b"garbage")
        assert main(argv) == 1
        seen = capsys.readouterr()
        assert json.loads(seen.out)["error"]["kind"] == "BadSignature"
        assert seen.err.startswith("refused: BadSignature: desired state:")

    @pytest.mark.parametrize(
        ("break_it", "says"),
        [
            (lambda d: (d.folder / "root.json").write_bytes(b"{}"), "provisioned root"),
            (lambda d: (d.folder / "root.json").unlink(), "root cannot be read"),
            (lambda d: d.key.write_text("no key"), "openssl cannot read it"),
            (lambda d: d.key.chmod(0o644), "chmod 600"),
            (lambda d: (d.config.folder / "state.json").write_text("{"), "damaged"),
            (lambda d: (d.config.folder / "state.json").write_text('{"x":1}'), "not this agent's state"),
            (lambda d: (d.folder / "agent.json").unlink(), "no such file"),
            (lambda d: d.write_config(fleet="other"), "other"),
            (lambda d: d.write_config(store={"url": "nonsense"}), "store.url"),
        ],
    )
    def test_a_device_that_is_set_up_wrongly(
        self, device: Device, break_it: Any, says: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = device.write_config()
        break_it(device)
        assert main(["--config", str(path), "--once"]) == 2
        assert says in capsys.readouterr().err
