"""The ServerApp of a real federation: `infra.federation.server_app`, told what is going on, and not made to wait.

Flower's grid looks for answers every 3 s; this one looks five times a second. Every event of the job goes to stdout as one
marked line, which the SuperLink keeps and `run.follow` reads.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from infra import quiet

quiet.apply()

from flwr.app import Context, Message  # noqa: E402  (telemetry is off before Flower is imported)
from flwr.serverapp import Grid, ServerApp  # noqa: E402

from infra.federation.job import FederationJob, load_job  # noqa: E402
from infra.federation.server_app import build_app  # noqa: E402
from models.errors import CryfedError  # noqa: E402

MARK: Final = "cryfed-event "
_POLL_S: Final = 0.2


class PromptGrid:
    """What `FlowerTransport` needs of a Grid, with a short poll."""

    def __init__(self, grid: Any) -> None:
        self._grid = grid

    def get_node_ids(self) -> Iterable[int]:
        """Sites that are connected now."""
        return self._grid.get_node_ids()

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Answers to `messages`, as many as come within `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        waiting = {message_id for message_id in self._grid.push_messages(messages) if message_id}
        answers: list[Message] = []
        while waiting and (deadline is None or time.monotonic() < deadline):
            time.sleep(_POLL_S)
            for answer in self._grid.pull_messages(waiting):
                answers.append(answer)
                waiting.discard(answer.metadata.reply_to_message_id)
        return answers


def emit(event: Mapping[str, Any]) -> None:
    """One marked line; a single write, so that no other line comes between."""
    sys.stdout.write(MARK + json.dumps(event, sort_keys=True) + "\n")
    sys.stdout.flush()


def _find_job(context: Context) -> FederationJob:
    return load_job(Path(str(context.run_config["job"])))


_job_app = build_app(_find_job, emit)
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the job that the run's configuration names; an error of ours is an event too, so that its class survives."""
    try:
        _job_app(PromptGrid(grid), context)
    except CryfedError as err:
        emit({"event": "error", "type": type(err).__name__, "message": str(err)})
        raise
