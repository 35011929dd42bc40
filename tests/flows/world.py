"""A whole run of the pipeline, as small as it can be, in a home of its own and from a copy of our packages.

The copy is what lets a test edit the code, and what keeps an edit of the checkout meanwhile out of the run. One reference run
serves every test file of a session.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

REPO = Path(__file__).resolve().parents[2]
PACKAGES = ("cryfed", "flows", "tasks", "models", "infra", "validation")
LOOPBACK = Path(__file__).with_name("loopback.py")
PARAMETERS = {
    "preset": "tiny",
    "rounds": 3,
    "synth": {
        "sites": 3,
        "infants_per_site": 5,
        "cries_per_infant": 2,
        "noncries_per_site": 8,
        "public_noise": 30,
        "clip_seconds": 1.5,
    },
}
"""Every stage has something to do; no score means anything."""


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    code: int
    out: str
    err: str
    seconds: float


@dataclass(frozen=True)
class Home:
    """A home folder, a copy of our packages, and the commands that a person types there."""

    folder: Path
    checkout: Path

    @classmethod
    def make(cls, folder: Path) -> Home:
        """An empty home and a fresh copy below `folder`."""
        home = cls(folder / "home", folder / "checkout")
        home.folder.mkdir(parents=True)
        for package in PACKAGES:
            shutil.copytree(
                REPO / package, home.checkout / package, ignore=shutil.ignore_patterns("__pycache__")
            )
        for file in ("README.md", "requirements.lock", "pyproject.toml"):
            shutil.copy(REPO / file, home.checkout / file)
        (home.folder / "params.json").write_text(json.dumps(PARAMETERS))
        return home

    @property
    def work(self) -> Path:
        """The work folder."""
        return self.folder / ".cryfed"

    @property
    def runs(self) -> list[Path]:
        """Run folders, the oldest first; whatever else lies beside them counts too."""
        return sorted(p for p in (self.folder / "runs").glob("*") if not p.is_symlink())

    @property
    def environment(self) -> dict[str, str]:
        """What a shell in that home has set."""
        outside = {k: v for k, v in os.environ.items() if not k.startswith(("CRYFED_", "PREFECT_", "RAY_"))}
        return {
            **outside,
            "CRYFED_HOME": str(self.folder),
            "PYTHONPATH": str(self.checkout),
            "COLUMNS": "200",
        }

    @property
    def retrain(self) -> list[str]:
        """The command of the reference run."""
        return [sys.executable, "-m", "cryfed", "retrain", "--params", "params.json"]

    def start(self, command: list[str]) -> subprocess.Popen[str]:
        """Start a command in the home."""
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, command: list[str]) -> Done:
        """Run a command in the home to its end."""
        started = time.monotonic()
        with self.start(command) as process:
            out, err = process.communicate()
        return Done(process.returncode, out, err, time.monotonic() - started)

    def metrics(self) -> dict[str, Any]:
        """`metrics.json` of the latest run."""
        document: dict[str, Any] = json.loads((self.folder / "runs" / "latest" / "metrics.json").read_text())
        return document


@dataclass(frozen=True)
class Reference:
    """The session's undisturbed run."""

    home: Home
    done: Done
    network: dict[str, Any] | None  # loopback.py's report; None where the machine allows no namespace
    release: str  # digest


@cache
def closed_off() -> tuple[list[str], str]:
    """How to start `loopback.py` in a namespace of its own, and why it cannot be where it cannot."""
    why = "unshare or ip is not installed"
    for options in (["--map-root-user", "--net", "--mount"], ["--net", "--mount"]):
        command = ["unshare", *options, sys.executable, str(LOOPBACK)]
        try:
            tried = subprocess.run(
                [*command, os.devnull, "true"], capture_output=True, text=True, check=False
            )
        except FileNotFoundError:
            break
        if tried.returncode == 0:
            return command, ""
        why = f"this machine allows no network namespace: {tried.stderr.strip()[-200:]}"
    return [], why


def marked(output: str, mark: str) -> set[str]:
    """Stages whose line on the terminal has this mark: `✓` computed, `=` taken from the store, `✗` failed."""
    return {m.strip() for m in re.findall(rf"^  {mark} (.{{12,}}?)\s+(?:[\d.]+ s|unchanged)", output, re.M)}


def reference(factory: pytest.TempPathFactory) -> Reference:
    """The reference run, made by the first test that asks, in whatever process of the session; others wait for it."""
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    made = shared / "reference.json"
    with FileLock(shared / "reference.lock"):
        if not made.is_file():
            made.write_text(json.dumps(_make_reference(shared / "reference")))
    told = json.loads(made.read_text())
    home = Home(Path(told["home"]), Path(told["checkout"]))
    return Reference(home, Done(**told["done"]), told["network"], told["release"])


def _make_reference(folder: Path) -> dict[str, Any]:
    home = Home.make(folder)
    wrapper, _ = closed_off()
    report = folder / "network.json"
    done = home.run([*wrapper, str(report), *home.retrain] if wrapper else home.retrain)
    assert done.code == 0, done.err[-4000:]
    return {
        "home": str(home.folder),
        "checkout": str(home.checkout),
        "done": asdict(done),
        "network": json.loads(report.read_text()) if wrapper else None,
        "release": home.metrics()["run"]["release"]["digest"],
    }
