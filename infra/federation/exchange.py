"""One exchange with several sites: send, check every answer on its own, repeat for those whose process died."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from infra.federation.messages import Envelope, Header, check_reply
from infra.federation.transport import Lost, Transport
from models.errors import FederationError, UpdateRejected

T = TypeVar("T")


@dataclass
class Answers(Generic[T]):
    """What was accepted, what was not and why, and what it cost."""

    accepted: dict[str, T] = field(default_factory=dict)  # in the order the sites were asked
    failures: dict[str, dict[str, str]] = field(default_factory=dict)  # site → kind, reason
    bytes_down: dict[str, int] = field(default_factory=dict)  # of the exchange that counted, per site
    bytes_up: dict[str, int] = field(default_factory=dict)
    repeats: int = 0


@dataclass(frozen=True)
class Exchange:
    """How this job talks to its sites; `header` is the template of every message."""

    transport: Transport
    header: Header
    retries: int
    timeout_s: float
    max_payload: int

    def ask(
        self,
        action: str,
        round_number: int,
        bodies: Mapping[str, Mapping[str, Any]],
        payload: bytes,
        read: Callable[[str, Envelope], T],
    ) -> Answers[T]:
        """Send `payload` with each site's body to the sites of `bodies`; `read` checks and decodes one answer.

        A refusal or a malformed answer is final for this exchange: asking again would give the same. A lost answer is asked
        for again, since a site's work depends on nothing but the request.
        """
        answers: Answers[T] = Answers()
        found: dict[str, T] = {}
        pending: Sequence[str] = list(bodies)
        for attempt in range(self.retries + 1):
            requests = [
                Envelope(
                    replace(self.header, action=action, round=round_number, attempt=attempt, site=site),
                    bodies[site],
                    payload,
                )
                for site in pending
            ]
            outcomes = self.transport.exchange(
                requests, max_payload=self.max_payload, timeout_s=self.timeout_s
            )
            lost = []
            for request in requests:
                site = request.header.site
                outcome = outcomes.get(site, Lost("the transport gave no outcome"))
                answers.bytes_down[site] = request.size
                answers.failures.pop(site, None)
                if isinstance(outcome, Lost):
                    lost.append(site)
                    answers.failures[site] = {"kind": "lost", "reason": outcome.reason}
                    continue
                try:
                    found[site] = read(site, _checked(request, outcome, answers))
                except FederationError as err:
                    kind = "refused" if isinstance(err, SiteRefused) else "rejected"
                    answers.failures[site] = {"kind": kind, "reason": str(err)}
            if not lost or attempt == self.retries:
                break
            pending = lost
            answers.repeats += len(lost)
        answers.accepted = {site: found[site] for site in bodies if site in found}
        return answers


class SiteRefused(FederationError):
    """The site itself declined, with a typed error of its own."""


def _checked(request: Envelope, outcome: Envelope | UpdateRejected, answers: Answers[Any]) -> Envelope:
    if isinstance(outcome, UpdateRejected):
        raise outcome
    answers.bytes_up[request.header.site] = outcome.size
    check_reply(request.header, outcome)
    return accepted(outcome)


def accepted(reply: Envelope) -> Envelope:
    """The reply, unless it is a refusal.

    Raises:
        SiteRefused: it is one; the message is the site's own.
    """
    if reply.refused:
        raise SiteRefused(
            f"{reply.body.get('type', 'error')}: {reply.body.get('message', 'no reason given')}"
        )
    return reply
