"""`kill -9` of the whole command at three stages, then the same command: it resumes, to the release of an undisturbed run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PARAMS = {
    "synth": {"sites": 2, "infants_per_site": 6, "cries_per_infant": 2, "noncries_per_site": 10},
    "split": {"folds": 3},
}


def command(home: Path) -> tuple[list[str], dict[str, str]]:
    params = home / "params.json"
    params.write_text(json.dumps(PARAMS))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("CRYFED_", "PREFECT_"))}
    environment |= {"CRYFED_HOME": str(home)}
    arguments = ["retrain", "--preset", "tiny", "--rounds", "3", "--params", str(params)]
    return [sys.executable, "-m", "cryfed", *arguments], environment


def release(home: Path) -> str:
    """Run the command to its end and return the digest of its release."""
    argv, environment = command(home)
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, cwd=home)
    assert done.returncode == 0, done.stderr
    return str(
        json.loads((home / "runs" / "latest" / "metrics.json").read_text())["run"]["release"]["digest"]
    )


def kill_at(home: Path, stage: str) -> None:
    """Start the command and kill it, as an operator would, as soon as it says that it is at `stage`."""
    argv, environment = command(home)
    with subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, text=True, cwd=home) as process:
        assert process.stderr is not None
        seen = []
        for line in process.stderr:
            seen.append(line)
            if line.strip().startswith(f"… {stage}"):
                break
        else:
            pytest.fail(f"the run never reached {stage}:\n{''.join(seen)}")
        process.kill()
    assert not list((home / "runs").glob("2*")), "a killed run leaves no run folder"


def left_over(home: Path) -> list[str]:
    """Processes that still work below a home. Ray's own agents notice the loss of their driver within a minute."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(home) in line and "ray" not in line:
            found.append(line)
    return found


def test_a_killed_run_resumes_to_the_same_release(tmp_path: Path) -> None:
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    calm.mkdir()
    rough.mkdir()
    expected = release(calm)
    shutil.copytree(calm / ".cryfed" / "corpora", rough / ".cryfed" / "corpora")  # the same audio, made once
    for stage in ("pretrain", "federate", "export"):
        kill_at(rough, stage)
    assert release(rough) == expected
    assert left_over(rough) == []
    metrics = json.loads((rough / "runs" / "latest" / "metrics.json").read_text())
    assert metrics["timings"]["pretrain"] == 0.0, (
        "what was complete before the last kill is not computed again"
    )
