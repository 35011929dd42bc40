"""`cryfed reproduce --quick`, as a person types it: the table, and that a second run trains nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.flows.world import Home

pytestmark = [pytest.mark.slow, pytest.mark.soak, pytest.mark.timeout(1200)]


def test_the_table_is_made_and_a_second_run_trains_nothing(tmp_path: Path) -> None:
    home = Home.make(tmp_path)
    command = [sys.executable, "-m", "cryfed", "reproduce", "--quick"]
    done = home.run(command)
    assert done.code == 0, done.err[-4000:]
    out = home.folder / "runs" / "reproduce-quick"
    assert f"page: {out / 'paper.html'}" in done.out
    document = json.loads((out / "paper.json").read_text())
    assert document["quick"]
    assert "absent" in document["columns"]["real"]
    found = {row["claim"]: row["synthetic"] for row in document["rows"]}
    measured = {claim for claim, cell in found.items() if "absent" not in cell}
    assert measured >= {
        "Denoiser at 0 dB", "Rounds saved by control variates", "Upload a site and round", "Latency of a one-second frame",
    }  # fmt: skip
    run = home.folder / "runs" / document["columns"]["synthetic"]["run"]
    assert json.loads((run / "paper.json").read_text()) == document
    assert found["Latency of a one-second frame"]["text"] in (run / "report.html").read_text()
    trained = {p: p.read_bytes() for p in out.rglob("*.jsonl")}
    assert len(trained) == 2
    again = home.run(command)
    assert again.code == 0, again.err[-4000:]
    assert {p: p.read_bytes() for p in out.rglob("*.jsonl")} == trained
    assert len([p for p in home.runs if (p / "metrics.json").is_file()]) == 1
    assert "read: a run with the same parameters" in (out / "paper.json").read_text()
