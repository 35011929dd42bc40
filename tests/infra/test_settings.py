"""Where settings come from, which source wins, and what a wrong one says."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.settings import load_settings
from models.errors import ConfigError


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CRYFED_HOME", str(tmp_path))
    for name in ("CRYFED_WORK_DIR", "CRYFED_RUNS_DIR"):
        monkeypatch.delenv(name)
    return tmp_path


def test_defaults_are_below_home(at_home: Path) -> None:
    settings = load_settings()
    assert (settings.work_dir, settings.runs_dir) == (at_home / ".cryfed", at_home / "runs")
    assert settings.store.endpoint is None


def test_environment_beats_file(at_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (at_home / "cryfed.toml").write_text('[store]\nendpoint = "a:1"\nbucket = "ward"\n')
    monkeypatch.setenv("CRYFED_STORE__ENDPOINT", "b:2")
    store = load_settings().store
    assert (store.endpoint, store.bucket) == ("b:2", "ward")


def test_a_wrong_value_is_named(at_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYFED_STORE__EMBEDDED_PORT", "70000")
    with pytest.raises(ConfigError, match=r"store\.embedded_port"):
        load_settings()


def test_secrets_do_not_print(at_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYFED_STORE__SECRET_KEY", "canary-5f1d")
    settings = load_settings()
    assert "canary" not in repr(settings) + str(settings.model_dump())
    assert settings.store.secret_key is not None
    assert settings.store.secret_key.get_secret_value() == "canary-5f1d"
