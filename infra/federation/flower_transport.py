"""The round loop's transport over Flower's `Grid`: the same code in simulation and over SuperNodes."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from flwr.app import Message

from infra.federation.messages import (
    CALIBRATE,
    CONFIRM,
    FEATURES,
    GATE,
    HELLO,
    KEYS,
    SHARE,
    TRAIN,
    UNMASK,
    Envelope,
)
from infra.federation.transport import Lost, Outcome
from infra.federation.wire import from_records, to_records
from models.errors import FederationError, UpdateRejected

ROUTES = {
    HELLO: "query.hello",
    KEYS: "query.keys",
    SHARE: "query.share",
    TRAIN: "train.step",
    CONFIRM: "query.confirm",
    UNMASK: "query.unmask",
    GATE: "query.gate",
    FEATURES: "query.features",
    CALIBRATE: "query.calibrate",
}

_HELLO_BYTES = 1024
_HELLO_TRIES = 3  # a process that dies while it introduces itself is asked again
_POLL_S = 0.2
_PULL_S = 0.01
_REASON_CHARACTERS = 300
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class FlowerTransport:
    """Knows which node speaks for which site; a node that answers for another site is rejected."""

    def __init__(self, grid: Any) -> None:
        if hasattr(
            grid, "pull_interval"
        ):  # of the simulation's grid: a look costs a lock, and a round looks five times
            grid.pull_interval = _PULL_S
        self._grid = grid
        self._nodes: dict[str, int] = {}

    def connect(self, request: Envelope, sites: Sequence[str], *, timeout_s: float) -> Mapping[str, Outcome]:
        """Ask every node who it is, until all expected sites have answered or the time is over."""
        deadline = time.monotonic() + timeout_s
        asked: Counter[int] = Counter()
        answered: set[int] = set()
        outcomes: dict[str, Outcome] = {}
        reasons: set[str] = set()
        while set(outcomes) != set(sites) and time.monotonic() < deadline:
            nodes = sorted(self._grid.get_node_ids())
            if len(asked) >= len(sites) and all(n in answered or asked[n] >= _HELLO_TRIES for n in nodes):
                break
            fresh = [node for node in nodes if node not in answered and asked[node] < _HELLO_TRIES]
            if not fresh:
                time.sleep(_POLL_S)
                continue
            asked.update(fresh)
            for node, outcome in self._send(
                [(node, request) for node in fresh], _HELLO_BYTES, deadline
            ).items():
                if isinstance(outcome, Envelope):
                    answered.add(node)
                    self._introduce(node, outcome, sites, outcomes)
                else:
                    reasons.add(outcome.reason if isinstance(outcome, Lost) else str(outcome))
        silent = Lost("did not introduce itself" + (f" ({'; '.join(sorted(reasons))})" if reasons else ""))
        return {site: outcomes.get(site, silent) for site in sites}

    def exchange(
        self, requests: Sequence[Envelope], *, max_payload: int, timeout_s: float
    ) -> Mapping[str, Outcome]:
        """Send to the nodes that introduced themselves as the requests' sites."""
        by_node = [(self._nodes[r.header.site], r) for r in requests if r.header.site in self._nodes]
        answers = self._send(by_node, max_payload, time.monotonic() + timeout_s)
        outcomes: dict[str, Outcome] = {r.header.site: Lost("not connected") for r in requests}
        outcomes.update({r.header.site: answers[node] for node, r in by_node})
        return outcomes

    def _introduce(
        self, node: int, outcome: Envelope, sites: Sequence[str], outcomes: dict[str, Outcome]
    ) -> None:
        name = outcome.body.get("site")
        if name not in sites:
            raise FederationError(
                f"a node introduces itself as site {name!r}, which is not in the job: give every site the name the job uses"
            )
        if self._nodes.setdefault(str(name), node) != node:
            raise FederationError(
                f"two nodes introduce themselves as site {name!r}: every site runs one node"
            )
        outcomes[str(name)] = outcome

    def _send(
        self, addressed: Sequence[tuple[int, Envelope]], max_payload: int, deadline: float
    ) -> dict[int, Outcome]:
        messages = [
            Message(
                to_records(envelope),
                dst_node_id=node,
                message_type=ROUTES[envelope.header.action],
                group_id=str(envelope.header.round),
            )
            for node, envelope in addressed
        ]
        outcomes: dict[int, Outcome] = {node: Lost("did not answer in time") for node, _ in addressed}
        timeout = max(deadline - time.monotonic(), _POLL_S)
        for reply in self._grid.send_and_receive(messages, timeout=timeout):
            node = reply.metadata.src_node_id
            if node in outcomes:
                outcomes[node] = _read(reply, max_payload)
        return outcomes


def _read(reply: Message, max_payload: int) -> Outcome:
    if reply.has_error():
        return Lost(f"Flower error {reply.error.code}: {_last_words(reply.error.reason or '')}")
    try:
        return from_records(reply.content, max_payload=max_payload)
    except UpdateRejected as err:
        return err


def _last_words(reason: str) -> str:
    """The end of a traceback, where the error is, without terminal colours."""
    lines = [line.strip() for line in _ANSI.sub("", reason).splitlines() if line.strip()]
    return " | ".join(lines[-2:])[-_REASON_CHARACTERS:]
