"""What the operator's page and the unit say is what the agent takes."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from infra.edge.agent.config import _KNOWN, read_config
from infra.edge.agent.manifest import _KEYS
from infra.edge.release import BundleManifest

REPO = Path(__file__).resolve().parents[4]
UNIT = REPO / "infra/edge/agent/cryfed-agent.service"
PAGE = (REPO / "docs/device.md").read_text()


def test_the_pages_configuration_is_read(tmp_path: Path) -> None:
    (block,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "agent.json").write_text(block)
    (tmp_path / "store.secret").write_text("secret\n")
    (tmp_path / "store.secret").chmod(0o600)
    config = read_config(tmp_path / "agent.json")
    assert (config.device, config.trtexec) == ("cot-7", "/usr/src/tensorrt/bin/trtexec")
    assert config.credentials is not None
    assert config.credentials.secret_key == "secret"


def test_every_key_of_the_configuration_is_described() -> None:
    text = (REPO / "infra/edge/agent/config.py").read_text().split('"""')[1]
    assert [key for key in _KNOWN if f"`{key}`" not in text] == []


def test_the_unit_starts_what_the_page_copies() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNIT)
    service = unit["Service"]
    assert service["ExecStart"].endswith("-m edge.agent --config /etc/cryfed/agent.json")
    assert f"cp -r cryfed-agent/edge {service['WorkingDirectory']}/" in PAGE
    assert "cryfed fleet agent-bundle cryfed-agent" in PAGE
    assert service["CapabilityBoundingSet"] == ""
    assert (service["NoNewPrivileges"], service["ProtectSystem"]) == ("yes", "strict")
    folder = json.loads(re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)[0])["folder"]
    assert service["ReadWritePaths"] == folder


def test_systemd_takes_the_unit() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    done = subprocess.run(
        ["systemd-analyze", "verify", str(UNIT)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_agent_knows_every_key_of_a_manifest() -> None:
    """A key that the publisher adds and this agent does not know would be refused by every device."""
    assert set(BundleManifest.model_fields) == _KEYS
