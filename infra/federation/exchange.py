"""One exchange with several sites: send, check every answer on its own, repeat for those whose process died."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from infra.federation.messages import Envelope, Header, check_reply
from infra.federation.transport import Lost, Transport
from models.errors import FederationError, UpdateRejected, VariatesOutOfStep

T = TypeVar("T")


@dataclass
class Answers(Generic[T]):
    """What was accepted, what was not and why, and what it cost."""

    accepted: dict[str, T] = field(default_factory=dict)  # in the order the sites were asked
    failures: dict[str, dict[str, str]] = field(default_factory=dict)  # site → kind, reason
    bytes_down: dict[str, int] = field(default_factory=dict)  # of the exchange that counted, per site
    bytes_up: dict[str, int] = field(default_factory=dict)
    repeats: int = 0
    out_of_step: list[str] = field(
        default_factory=list
    )  # sites that say that their control variate is not ours


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
        payload: bytes | Mapping[str, bytes],
        read: Callable[[str, Envelope], T],
        *,
        attempt: int = 0,
        epoch: int = 0,
        max_payload: int | None = None,
    ) -> Answers[T]:
        """Send `payload` (or each site its own) with each site's body to the sites of `bodies`; `read` checks and decodes one
        answer.

        A refusal or a malformed answer is final for this exchange: asking again would give the same. A lost answer is asked
        for again, since a site's work depends on nothing but the request.
        """
        answers: Answers[T] = Answers()
        found: dict[str, T] = {}
        pending: Sequence[str] = list(bodies)
        header = replace(self.header, action=action, round=round_number, attempt=attempt, cv_epoch=epoch)
        bound = self.max_payload if max_payload is None else max_payload
        for tried in range(self.retries + 1):
            requests = [
                Envelope(
                    replace(header, site=site),
                    bodies[site],
                    payload if isinstance(payload, bytes) else payload[site],
                )
                for site in pending
            ]
            outcomes = self.transport.exchange(requests, max_payload=bound, timeout_s=self.timeout_s)
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
                    if isinstance(err, SiteRefused) and err.type == VariatesOutOfStep.__name__:
                        answers.out_of_step.append(site)
            if not lost or tried == self.retries:
                break
            pending = lost
            answers.repeats += len(lost)
        answers.accepted = {site: found[site] for site in bodies if site in found}
        return answers


class SiteRefused(FederationError):
    """The site itself declined, with a typed error of its own."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.type = kind


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
            str(reply.body.get("type", "error")), str(reply.body.get("message", "no reason given"))
        )
    return reply
