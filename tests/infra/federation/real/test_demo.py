"""The demonstration as the command runs it: gate to calibration under masks, one site killed, nothing left running."""

from __future__ import annotations

import psutil
import pytest
from typer.testing import CliRunner

from cryfed.cli.federation import app


@pytest.mark.soak  # two minutes
def test_the_demonstration_shows_what_it_says() -> None:
    before = {process.pid for process in psutil.process_iter()}
    done = CliRunner().invoke(app, ["demo"])
    assert done.exit_code == 0, done.output
    assert "gate       4 of 4 sites pass their own" in done.output
    assert "SIGKILL    site-3, while it trains in round 2" in done.output
    assert "round 2    3 updates, lost: site-3" in done.output
    assert "finished without site-3: 3 rounds, 3 sites calibrated" in done.output
    left = [p for p in psutil.process_iter(["cmdline"]) if p.pid not in before]
    assert not [p for p in left if "federation.real" in " ".join(p.info["cmdline"] or [])]
    assert not [p for p in left if "flower-super" in " ".join(p.info["cmdline"] or [])]
