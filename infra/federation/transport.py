"""How the round loop reaches sites: one small interface, an in-process form here, Flower's in `flower_transport`.

The loop never sees a node, a channel or an exception of the transport: every request ends as an envelope, as a rejection of
what came back, or as a loss that may be tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from infra.federation.messages import Envelope
from models.errors import UpdateRejected

Handler = Callable[[Envelope], Envelope]


@dataclass(frozen=True)
class Lost:
    """No usable answer: the site's process died, timed out or is out of reach. The exchange may be repeated."""

    reason: str


Outcome = Envelope | UpdateRejected | Lost


class Transport(Protocol):
    """Reaches every site of a job."""

    def connect(self, request: Envelope, sites: Sequence[str], *, timeout_s: float) -> Mapping[str, Outcome]:
        """Send `request` (its header names no site) to everyone; answers by the site they come from.

        `sites` are the names expected; one without an answer is `Lost`. Afterwards `exchange` can address them.
        """
        ...

    def exchange(
        self, requests: Sequence[Envelope], *, max_payload: int, timeout_s: float
    ) -> Mapping[str, Outcome]:
        """Send each request to the site its header names; one outcome per site."""
        ...


class LocalTransport:
    """All sites in this process, one after the other: the reference that every other transport must match bit for bit."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = dict(handlers)

    def connect(self, request: Envelope, sites: Sequence[str], *, timeout_s: float) -> Mapping[str, Outcome]:  # noqa: ARG002
        return {site: self._call(site, request) for site in sites}

    def exchange(
        self,
        requests: Sequence[Envelope],
        *,
        max_payload: int,
        timeout_s: float,  # noqa: ARG002
    ) -> Mapping[str, Outcome]:
        outcomes: dict[str, Outcome] = {}
        for request in requests:
            outcome = self._call(request.header.site, request)
            if isinstance(outcome, Envelope) and len(outcome.payload) > max_payload:
                outcome = UpdateRejected(
                    f"a payload of {len(outcome.payload)} bytes is more than {max_payload}"
                )
            outcomes[request.header.site] = outcome
        return outcomes

    def _call(self, site: str, request: Envelope) -> Outcome:
        handler = self._handlers.get(site)
        if handler is None:
            return Lost(f"no site {site!r} is connected")
        return handler(request)
