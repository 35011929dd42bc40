"""A round's sums under masks: five exchanges around the server's state machine (`secagg.server`), resumable after a kill.

    keys → share → (filed: `shared`) train → (filed: `survivors`) confirm → unmask → sums

Nobody has masked anything before `shared` is filed, so a run killed earlier begins a new attempt with fresh keys. Killed later it
goes on with the same keys, and with the same survivors once these are filed: a second sum of one round would reveal an update.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from infra.federation.collect import Collected, Layout, Request, Wire, refuse_out_of_step, train_body
from infra.federation.exchange import Answers, Exchange
from infra.federation.journal import Journal
from infra.federation.masked_layout import sections
from infra.federation.messages import CONFIRM, KEYS, SHARE, TRAIN, UNMASK, Envelope
from infra.federation.secagg.context import Context, Member, default_threshold
from infra.federation.secagg.messages import (
    Announcement,
    Confirmation,
    FromServer,
    FromSite,
    MaskedVector,
    Reveal,
    Shares,
)
from infra.federation.secagg.server import ServerRound, Stage
from infra.federation.tally import Tally
from models.errors import FederationError

_SHARED, _SURVIVORS = "shared", "survivors"

T = TypeVar("T")


class SecureCollector:
    """Sums of masked contributions; the server sees no site's own."""

    def __init__(
        self,
        exchange: Exchange,
        layout: Layout,
        identities: Mapping[str, bytes],
        threshold: int | None,
        journal: Journal,
    ) -> None:
        self._exchange, self._layout, self._journal = exchange, layout, journal
        self._identities, self._threshold = identities, threshold

    def collect(self, request: Request) -> Collected:
        """See `Collector`."""
        return _Attempt(self, request).run()

    def context(self, request: Request) -> Context:
        """What every message of the attempt is bound to."""
        header, plan = self._exchange.header, self._layout.plan
        names = list(request.orders)
        return Context(
            run=header.run,
            round=request.number,
            attempt=request.attempt,
            cv_epoch=request.epoch,
            schema=header.schema,
            base=header.base,
            config=header.config,
            clip=next(iter(request.orders.values())).clip,
            sections=sections(
                plan, self._layout.schema.size, self._layout.n_reasons, len(names), train=request.train
            ),
            cohort=tuple(Member(name, self._identities[name].hex()) for name in names),
            threshold=self._threshold or default_threshold(len(names)),
        )

    def ask(
        self,
        request: Request,
        action: str,
        payloads: Mapping[str, bytes],
        read: Callable[[str, Envelope], Any],
        size: int,
    ) -> Answers[Any]:
        """One exchange of an attempt."""
        plan = self._layout.plan
        trains = action in (KEYS, TRAIN)
        bodies: dict[str, dict[str, Any]] = {
            site: train_body(plan, request.orders[site]) if trains else {} for site in payloads
        }
        return self._exchange.ask(
            action, request.number, bodies, payloads, read,
            attempt=request.attempt, epoch=request.epoch, max_payload=size,
        )  # fmt: skip

    def file(
        self, request: Request, stage: str, state: ServerRound, wire: Wire, failures: Mapping[str, Any]
    ) -> None:
        """Put a stage on disk before its consequences leave."""
        told = {"wire": wire.to_dict(), "failures": dict(failures)}
        self._journal.file_stage(request.number, stage, state.to_bytes(), attempt=request.attempt, **told)

    def filed(self, request: Request) -> tuple[ServerRound, Wire, dict[str, Any]] | None:
        """What a killed run had filed of this attempt."""
        begun = self._journal.begun(request.number)
        if begun.stage is None or begun.stage["attempt"] != request.attempt:
            return None
        state = ServerRound.from_bytes(self._journal.stage_blob(request.number))
        return state, Wire.from_dict(begun.stage["wire"]), dict(begun.stage["failures"])

    def totals(self, state: ServerRound, wire: Wire, failures: Mapping[str, Any]) -> Collected:
        """The sums, unmasked."""
        total = state.total()
        *update, words = total.sums
        tally = Tally.from_words(words, self._layout.n_reasons, summands=len(total.survivors))
        levels = update[0].astype(np.uint32) if update else None
        return Collected(total.survivors, levels, tally, failures, wire)


class _Attempt:
    """One attempt at one round: the state as far as it got, what it cost, and whom it lost."""

    def __init__(self, collector: SecureCollector, request: Request) -> None:
        self._collector, self._request = collector, request
        self._wire = Wire()
        self._failures: dict[str, dict[str, str]] = {}
        self._state = ServerRound.open(collector.context(request))
        filed = collector.filed(request)
        if filed is not None:
            self._state, self._wire, self._failures = filed

    def run(self) -> Collected:
        """The stages that are left."""
        collector = self._collector
        if self._state.stage < Stage.VECTORS:
            self._keys()
            self._shares()
        if self._state.stage < Stage.CONFIRMATIONS:
            self._vectors()
        self._confirm()
        self._unmask()
        return collector.totals(self._state, self._wire, self._failures)

    def _keys(self) -> None:
        context = self._state.context.to_bytes()
        self._exchange(KEYS, dict.fromkeys(self._request.orders, context), Announcement)
        self._state, self._key_list = self._close(self._state.close_keys)

    def _shares(self) -> None:
        self._exchange(SHARE, self._to(self._key_list), Shares)
        self._state, self._deliveries = self._close(self._state.close_shares)
        self._collector.file(self._request, _SHARED, self._state, self._wire, self._failures)

    def _vectors(self) -> None:
        _, deliveries = self._state.close_shares()
        theta = self._request.theta
        payloads = {site: theta + delivery.to_bytes() for site, delivery in deliveries.items()}
        self._exchange(TRAIN, payloads, MaskedVector)
        self._state, _ = self._close(self._state.close_vectors)
        self._collector.file(self._request, _SURVIVORS, self._state, self._wire, self._failures)

    def _confirm(self) -> None:
        self._state, survivors = self._state.close_vectors()
        self._exchange(CONFIRM, self._to(survivors), Confirmation)
        self._state, self._confirmations = self._close(self._state.close_confirmations)

    def _unmask(self) -> None:
        self._exchange(UNMASK, self._to(self._confirmations), Reveal)

    def _to(self, message: FromServer) -> dict[str, bytes]:
        """The message for everybody it has an entry of, in aggregation order."""
        data = message.to_bytes()
        return {self._state.context.name(number): data for number in sorted(message.sites)}

    def _close(self, close: Callable[[], T]) -> T:
        """Close a stage; where too few are left, the error also says why each of the others is missing."""
        try:
            return close()
        except FederationError as err:
            why = [
                f"  {site}, {f['stage']}: {f['kind']}: {f['reason']}" for site, f in self._failures.items()
            ]
            raise type(err)("\n".join([str(err), *why])) from None

    def _exchange(self, action: str, payloads: Mapping[str, bytes], kind: type[FromSite]) -> None:
        """Ask, and let the state machine judge every answer by itself; one that it refuses is left out of the stage."""
        context = self._state.context

        def read(site: str, reply: Envelope) -> None:
            self._state = self._state.receive(site, kind.from_bytes(reply.payload, context))

        answers = self._collector.ask(self._request, action, payloads, read, kind.max_bytes(context))
        self._wire.add(action, answers)
        for site, why in answers.failures.items():
            self._failures[site] = {**why, "stage": action}
        refuse_out_of_step(answers)
