"""Shared fixtures. Telemetry is off before anything is imported; every test has a work folder of its own."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from infra import quiet
from infra.settings import Settings

quiet.apply()
# what a shell starts in the background ignores Ctrl-C, and so would every process that a test starts
signal.signal(signal.SIGINT, signal.default_int_handler)
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

REPO = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long files begin first, so that no process is left with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _own_work_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the checkout's `.cryfed` or `runs`, nor settings from the outside."""
    for name in [n for n in os.environ if n.startswith("CRYFED_") and n != "CRYFED_DATA"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CRYFED_WORK_DIR", str(tmp_path / "work"))
    monkeypatch.setenv("CRYFED_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.setenv("CRYFED_KEYS_DIR", str(tmp_path / "keys"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real clips; skips, with the reason, where they are absent."""
    folder = Path(os.environ.get("CRYFED_DATA", REPO / Settings.model_fields["data"].default)).resolve()
    if not (folder / "manifest.csv").is_file():
        pytest.skip(f"no real clips at {folder}: set CRYFED_DATA to the folder that holds manifest.csv")
    return folder
