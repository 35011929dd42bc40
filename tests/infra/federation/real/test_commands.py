"""`cryfed federation` without a server: what is made, said and refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cryfed.cli.federation import app
from models.errors import ConfigError, ServerError
from tests.infra.federation.world import make_job


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_keys_are_made_and_not_shown(tmp_path: Path) -> None:
    made = call("keys", "server", tmp_path / "server", "--host", "federation.example.org")
    assert (made.exit_code, made.output) == (0, f"for every site: {tmp_path / 'server/ca.pem'}\n")
    made = call("keys", "site", "ward", "--folder", tmp_path)
    assert made.exit_code == 0
    assert "PRIVATE" not in made.output
    assert "ward.pub" in made.output
    assert isinstance(call("keys", "site", "ward", "--folder", tmp_path).exception, ConfigError)


def test_sites_are_registered_while_the_server_is_down(tmp_path: Path) -> None:
    call("keys", "site", "ward", "--folder", tmp_path)
    assert (
        call("server", "register", tmp_path / "server", tmp_path / "ward.pub").output == "registered ward\n"
    )
    assert call("server", "status", tmp_path / "server").output.split() == [
        *("superlink", "down"),
        *("ward", "registered"),
    ]
    assert call("server", "unregister", tmp_path / "server", "ward").exit_code == 0
    assert "ward" not in call("server", "status", tmp_path / "server").output
    assert "was not running" in call("server", "stop", tmp_path / "server").output
    refused = call("run", tmp_path / "server", tmp_path / "job.json").exception
    assert isinstance(refused, ServerError)
    assert "cryfed federation server start" in str(refused)


@pytest.mark.parametrize("broken", [False, True])
def test_check_says_what_is_wrong_and_exits_so(tmp_path: Path, broken: bool) -> None:
    call("keys", "server", tmp_path)
    call("keys", "site", "site1", "--folder", tmp_path)
    make_job(tmp_path / "world", sites=2).save(tmp_path / "federation.json")
    lines = {
        "site": "site1",
        "superlink": "127.0.0.1:9",
        "ca": "ca.pem",
        "key": "none.key" if broken else "site1.key",
        "job": "federation.json",
        "folder": "own",
        "features": "world/site1/features.safetensors",
    }
    (tmp_path / "site.toml").write_text("".join(f"{k} = {json.dumps(v)}\n" for k, v in lines.items()))
    found = call("site", "check", "--config", tmp_path / "site.toml")
    assert found.exit_code == 1  # the server is down
    assert "127.0.0.1:9 does not answer" in found.output
    assert ("cannot read the private key" in found.output) == broken
