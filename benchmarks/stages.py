"""Where a round's time goes: every exchange as the server sees it, and every answer as the site's process sees it.

The monotonic clock is one for all processes of a machine, so an exchange falls apart into what came before the first site began
(dispatch), the span in which sites worked, and what came after the last one had answered (collection).
"""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.timing import Spread
from infra.federation.job import load_job
from infra.federation.messages import CONFIRM, KEYS, SHARE, TRAIN, UNMASK, Envelope
from infra.federation.results import FederationResult
from infra.federation.transport import Outcome

EXCHANGES = "exchanges.jsonl"
STAGES = (KEYS, SHARE, TRAIN, CONFIRM, UNMASK)


@dataclass(frozen=True)
class Span:
    """What took place between two moments of the monotonic clock, in a round."""

    what: str
    round: int
    begin: float
    end: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end - self.begin


def simulate(path: Path, emit: Callable[[Any], None]) -> FederationResult:
    """`simulation.simulate` with exchanges and answers timed, into the job's folder."""
    from infra.federation import simulation
    from infra.federation.flower_transport import FlowerTransport

    log = path.parent / EXCHANGES
    send = FlowerTransport.exchange

    def exchange(self: Any, requests: Sequence[Envelope], **limits: Any) -> Mapping[str, Outcome]:
        begin = time.monotonic()
        found = send(self, requests, **limits)
        _note(log, requests[0], begin)
        return found

    def emit_round(event: Any) -> None:
        if event["event"] == "round":
            _write(log, Span("round", event["round"], 0.0, time.monotonic()))
        emit(event)
        if event["event"] in ("start", "round"):
            _write(log, Span("next", event.get("round", 0) + 1, time.monotonic(), 0.0))

    with patch.object(FlowerTransport, "exchange", exchange):
        return simulation.simulate(path, emit_round, client=timed_app(str(path.resolve())))


def timed_app(path: str) -> Any:
    """The sites' own app, each answer timed."""
    from infra.federation import client_app
    from infra.federation.local.routes import open_local_site

    class Timed:
        def __init__(self, number: int) -> None:
            self._begin = time.monotonic()
            self._site = open_local_site(path, number)
            self.max_payload = self._site.max_payload

        def handle(self, request: Envelope) -> Envelope:
            reply = self._site.handle(request)
            _note(Path(path).parent / f"answers-{os.getpid()}.jsonl", request, self._begin)
            return reply

    return client_app.build_app(lambda context: Timed(int(context.node_config["partition-id"])))  # type: ignore[arg-type, return-value]


def _note(log: Path, request: Envelope, begin: float) -> None:
    _write(log, Span(request.header.action, request.header.round, begin, time.monotonic()))


def _write(log: Path, span: Span) -> None:
    with log.open("a") as file:
        file.write(json.dumps(vars(span)) + "\n")


def read(folder: Path, pattern: str) -> list[Span]:
    """The spans of the logs of a folder."""
    lines = [line for path in sorted(folder.glob(pattern)) for line in path.read_text().splitlines()]
    return [Span(**json.loads(line)) for line in lines]


def breakdown(folder: Path, first: int = 2) -> dict[str, dict[str, Spread]]:
    """Milliseconds of a round by stage, rounds from `first` on, over rounds.

    `wall` of the exchange; `dispatch` until the first site begins; `busy` Σ of the sites' work; `idle` of the actors between the
    first beginning and the last end, Σ over actors; `collect` after the last one ended. `server`: the round without exchanges.
    """
    actors = len(list(folder.glob("answers-*.jsonl")))
    rounds = load_job(folder / "job.json").rounds
    exchanges, answers = read(folder, EXCHANGES), read(folder, "answers-*.jsonl")
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for number in range(first, rounds + 1):
        own = [s for s in exchanges if s.round == number]
        whole = _one(own, "round").end - _one(own, "next").begin
        walls = [_one(own, stage) for stage in STAGES]
        found["round"]["wall"].append(whole)
        found["server"]["wall"].append(whole - sum(s.seconds for s in walls))
        for wall in walls:
            work = [s for s in answers if s.round == number and s.what == wall.what]
            for name, value in apart(wall, work, actors).items():
                found[wall.what][name].append(value)
    return {
        stage: {name: Spread.of(1000.0 * v for v in values) for name, values in parts.items()}
        for stage, parts in found.items()
    }


def apart(wall: Span, work: Sequence[Span], actors: int) -> dict[str, float]:
    """An exchange in seconds: wall = dispatch + (busy + idle) / actors + collect."""
    begin, end = min(s.begin for s in work), max(s.end for s in work)
    busy = sum(s.seconds for s in work)
    return {
        "wall": wall.seconds,
        "dispatch": begin - wall.begin,
        "busy": busy,
        "idle": actors * (end - begin) - busy,
        "collect": wall.end - end,
    }


def _one(spans: Iterable[Span], what: str) -> Span:
    (span,) = [s for s in spans if s.what == what]
    return span
