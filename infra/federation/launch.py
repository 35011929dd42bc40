"""Start the simulation as a process of its own and follow it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from infra.federation.job import FederationJob
from infra.federation.results import FederationResult
from models import errors
from models.errors import FederationError, OutputError

_TAIL_LINES = 15
_LEAVE_S = 60.0  # for Ray to shut down after the last event


def run_federation(
    job: FederationJob,
    *,
    ray_address: str | None = None,
    on_event: Callable[[Mapping[str, Any]], None] = lambda _event: None,
) -> FederationResult:
    """Run `job` to its end in a process of its own; a job that was interrupted goes on where it stopped.

    Args:
        job: the job; its document and the libraries' log (`simulation.log`) go into its checkpoint folder.
        ray_address: a Ray cluster to use instead of RAY_ADDRESS or a local one.
        on_event: called with every progress event (`start`, `round`, `done`) of the simulation.

    Raises:
        CryfedError: the error that the simulation ended with, as its own class.
        FederationError: the process died without saying why; the message holds the end of its log.
    """
    folder = job.checkpoint_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        log = (folder / "simulation.log").open("ab")
    except OSError as err:
        raise OutputError(
            f"cannot write the checkpoint folder {folder}: {err.strerror}; choose another"
        ) from None
    document = folder / "job.json"
    job.save(document)
    environment = dict(os.environ)
    environment.setdefault("FLWR_HOME", str(folder / "flower"))
    if ray_address is not None:
        environment["RAY_ADDRESS"] = ray_address
    last: Mapping[str, Any] = {}
    with (
        log,
        subprocess.Popen(
            [sys.executable, "-m", "infra.federation.simulation", str(document), "--with-parent"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            for line in process.stdout:
                last = json.loads(line)
                if last["event"] != "error":
                    on_event(last)
            code = process.wait(timeout=_LEAVE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            code = 0 if last.get("event") == "done" else process.wait()
        except BaseException:
            process.kill()
            raise
    if code == 0 and last.get("event") == "done":
        return FederationResult.from_dict(dict(last))
    if last.get("event") == "error":
        kind = getattr(errors, str(last["type"]), FederationError)
        raise kind(last["message"])
    raise FederationError(
        f"the simulation process ended with code {code} and said nothing; the end of {folder / 'simulation.log'}:\n"
        + _tail(folder / "simulation.log")
    )


def _tail(path: Path) -> str:
    lines = path.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
    return "\n".join(f"  {line}" for line in lines)
