"""`kill -9` of the whole command at three stages, then the same command: it resumes, to the release of an undisturbed run."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.flows.world import Home, marked, reference

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def kill_at(home: Home, stage: str, ready: Callable[[], bool]) -> str:
    """Start the command, and kill its process alone, once it is at `stage` and `ready`; returns what its terminal showed."""
    with home.start(home.retrain) as process:
        assert process.stderr is not None
        seen = []
        for line in process.stderr:
            seen.append(line)
            if line.strip() == f"… {stage}":
                break
        else:
            pytest.fail(f"the run never reached {stage}:\n{''.join(seen)}")
        while not ready():
            assert process.poll() is None, f"the run ended while it was to be killed in {stage}"
            time.sleep(0.02)
        process.kill()
    assert home.runs == [], "a killed run leaves no run folder"
    return "".join(seen)


def rounds_closed(home: Home, stage: str = "federate") -> int:
    """Federated rounds of a stage that the killed run had finished."""
    journals = home.work.glob(f"scratch/{stage}-*/checkpoints/journal.jsonl")
    return sum(line.count('"closed"') for journal in journals for line in journal.read_text().splitlines())


def left_over(home: Home, seconds: float = 60.0) -> list[str]:
    """Command lines of processes that were started for this home and are still there after a while."""
    deadline = time.monotonic() + seconds
    while True:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                line = " ".join(process.cmdline())
                if str(home.folder) in line or process.environ().get("CRYFED_HOME") == str(home.folder):
                    found.append(f"{process.pid} {line[:200]}")
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.5)


def test_a_killed_run_resumes_to_the_same_release(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = Home.make(tmp_path)
    kill_at(home, "pretrain", lambda: True)
    assert left_over(home, 0) != [], "the check below would see processes"

    seen = kill_at(home, "cry-gate", lambda: rounds_closed(home, "cry-gate") >= 1)
    assert marked(seen, "=") >= {"corpus", "measure", "gate", "features", "pool"}
    assert marked(seen, "✓") == {"pretrain", "negatives"}, (
        "what was killed is computed again, and nothing before it"
    )

    seen = kill_at(home, "federate", lambda: rounds_closed(home) >= 1)
    assert marked(seen, "✓") == {"cry-gate"}
    assert 1 <= rounds_closed(home) < 3

    seen = kill_at(home, "evaluate", lambda: True)
    assert marked(seen, "✓") >= {"federate", "central", "baselines"}

    done = home.run(home.retrain)
    assert done.code == 0, done.err[-4000:]
    assert marked(done.err, "✓") == {"evaluate", "membership", "export"}
    # asked for at the end: another process may be making it meanwhile
    assert home.metrics()["run"]["release"]["digest"] == reference(tmp_path_factory).release
    assert len(home.runs) == 1
    assert [p for p in (home.work / "scratch").iterdir() if p.suffix != ".lock"] == []
    assert left_over(home) == []
