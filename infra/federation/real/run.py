"""One job on a running SuperLink, from submission to result. `flwr run` ends with 0 whatever comes of a run; this does not."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from infra.federation.job import load_job
from infra.federation.real.control import Control
from infra.federation.real.server_app import MARK
from infra.federation.real.superlink import SuperLink
from infra.federation.results import FederationResult
from models import errors
from models.errors import FederationError, ServerError

_TAIL_LINES: Final = 15
_SETTLE_S: Final = 30.0  # between the last line of a run and its end


def run_job(
    link: SuperLink, job: Path, on_event: Callable[[Mapping[str, Any]], None] = lambda _event: None
) -> FederationResult:
    """Run (or resume) the job file on this SuperLink; the sites have to be registered, not necessarily connected yet.

    Interrupted, it ends the run at the SuperLink; the journal makes that safe.

    Raises:
        CryfedError: the error that the job ended with, as its own class.
        FederationError: the run ended without saying why.
        ServerError: the SuperLink cannot be reached, or starts no run.
    """
    load_job(job)
    with link.connect() as control:
        run_id = control.start(job.resolve())
        try:
            last: Mapping[str, Any] = {}
            for event in _events(control, run_id):
                last = event
                if event["event"] != "error":
                    on_event(event)
            details = _wait_finished(control, run_id)
        except BaseException:
            with contextlib.suppress(ServerError):
                control.stop(run_id)
            raise
    if last.get("event") == "error":
        kind = getattr(errors, str(last["type"]), FederationError)
        raise kind(last["message"])
    if details is not None or last.get("event") != "done":
        raise FederationError(
            f"the run ended before the federation did ({details or 'no reason given'}); the end of {link.log}:\n"
            + _tail(Path(link.log))
        )
    return FederationResult.from_dict(dict(last))


def _events(control: Control, run_id: int) -> Iterator[Mapping[str, Any]]:
    for line in control.lines(run_id):
        if line.startswith(MARK):
            yield json.loads(line.removeprefix(MARK))


def _wait_finished(control: Control, run_id: int) -> str | None:
    """None for a run that completed, else why it did not."""
    deadline = time.monotonic() + _SETTLE_S
    while True:
        outcome = control.outcome(run_id)
        if outcome.finished:
            return None if outcome.completed else outcome.details
        if time.monotonic() > deadline:
            raise ServerError(
                "the SuperLink keeps a run that has said its last line: stop and start it again"
            )
        time.sleep(0.2)


def _tail(path: Path) -> str:
    lines = path.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
    return "\n".join(f"  {line}" for line in lines)
