"""The command, quickly: what it leaves, and that a second run trains nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.soak]

COMMAND = """
import typer
from cryfed.cli.experiments import register
app = typer.Typer()
register(app)
app()
"""


def run(out: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "--quick", "--out", str(out)],
        check=False,
        capture_output=True,
        text=True,
        timeout=280,
        env={k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_command_leaves_numbers_a_page_and_a_summary_and_resumes(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert str(out / "experiments.html") in run(out)
    document = json.loads((out / "experiments.json").read_text())
    assert {arm["arm"] for arm in document["settings"][0]["arms"]} == {
        "average", "prox", "cv", "cv_prox", "cv_8bit", "cv_4bit", "cv_4bit_ffa", "cv_option_1",
    }  # fmt: skip
    assert document["plan"]["world"]["infants"]["test"] > 0
    assert (out / "summary.md").read_text().startswith("# Control variates")
    cells, page = (out / "cells.jsonl").read_bytes(), (out / "experiments.html").read_bytes()
    run(out)
    assert (out / "cells.jsonl").read_bytes() == cells
    assert (out / "experiments.html").read_bytes() == page
