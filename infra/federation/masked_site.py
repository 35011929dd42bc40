"""A site's side of secure aggregation: the protocol's state machine (`secagg.site`) behind the federation's messages, on disk.

    keys      context            → own keys, signed
    share     everybody's keys   → sealed shares
    train     θ, c, shares       → the masked contribution
    confirm   survivor set       → signature
    unmask    signatures         → shares

    site folder/runs/<run>/round.bin     the attempt's state: keys and shares until the unmasking, then without them
    site folder/runs/<run>/spent.json    what was given away, for ever

Each answer leaves only after the state that it stands for is on disk; a message that comes again gets the same answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from infra.federation.files import write_atomic
from infra.federation.masked_layout import sections
from infra.federation.messages import CONFIRM, KEYS, SHARE, UNMASK, Envelope
from infra.federation.secagg.context import MIN_SITES, Context, Roster
from infra.federation.secagg.messages import Confirmations, Delivery, KeyList, Survivors
from infra.federation.secagg.site import SiteRound
from infra.federation.secagg.spent import Spent
from infra.federation.site_round import Contribution
from infra.federation.training import RoundOrder, TrainingPlan, read_plan
from models.errors import FederationError, OutputError, UpdateRejected

_STATE: Final = "round.bin"
_SPENT: Final = "spent.json"


@dataclass(frozen=True)
class MaskedRounds:
    """One site's part in the masked rounds of a run.

    Attributes:
        site: its name.
        folder: the run's folder at the site.
        identity: its long-term key.
        pinned: the job's sites, each with the identity key it pins, or None where it pins none.
        size: P.
        n_reasons: C.
        smallest_cohort: fewer sites than this get no vector of it.
    """

    site: str
    folder: Path
    identity: Ed25519PrivateKey
    pinned: Mapping[str, str | None]
    size: int
    n_reasons: int
    smallest_cohort: int = MIN_SITES

    def keys(self, request: Envelope, settle: Callable[[RoundOrder, int], None]) -> bytes:
        """Enter an attempt.

        Args:
            request: its payload is the context.
            settle: checks that the site's variate is in step with the order, for an epoch.

        Raises:
            UpdateRejected: the context is not the request's, or asks for other sums than the plan's.
            FederationError: the cohort is not acceptable, or the site has been further than this.
        """
        plan = read_plan(request.body, request.header.config)
        order = RoundOrder.from_body(request.body)
        context = Context.from_bytes(request.payload)
        self._check(context, request, plan, order)
        settle(order, request.header.cv_epoch)
        state = self._load()
        if state is not None and state.context == context:
            return state.announcement.to_bytes()
        before = self._spent() or (None if state is None else state.spent)
        state, announcement = SiteRound.begin(
            context, self.site, self.identity, self._roster(context), before
        )
        self._save(state)
        return announcement.to_bytes()

    def share(self, request: Envelope) -> bytes:
        """Seal shares for the others."""
        state = self._at(request)
        state, shares = state.share(KeyList.from_bytes(request.payload, state.context))
        self._save(state)
        return shares.to_bytes()

    def train(self, request: Envelope, at: int, contribute: Callable[[bytes], Contribution]) -> bytes:
        """Mask the contribution; `at` is where the sealed shares begin in the payload, behind what `contribute` takes."""
        state = self._at(request)
        delivery = Delivery.from_bytes(request.payload[at:], state.context)
        found = contribute(request.payload[:at])
        values = [found.update, found.tally] if found.update.size else [found.tally]
        state, vector = state.mask(delivery, values, self.identity, self._spent() or state.spent)
        self._save(state)
        return vector.to_bytes()

    def confirm(self, request: Envelope) -> bytes:
        """Sign the survivor set."""
        state = self._at(request)
        survivors = Survivors.from_bytes(request.payload, state.context)
        state, confirmation = state.confirm(survivors, self.identity, self._spent() or state.spent)
        self._save(state)
        return confirmation.to_bytes()

    def unmask(self, request: Envelope) -> bytes:
        """Give shares, and forget the attempt's secrets."""
        state = self._at(request)
        state, reveal = state.unmask(Confirmations.from_bytes(request.payload, state.context))
        self._save(state)
        return reveal.to_bytes()

    def answers(self) -> dict[str, Callable[[Envelope], bytes]]:
        """The stages that need nothing but the protocol's state."""
        return {SHARE: self.share, CONFIRM: self.confirm, UNMASK: self.unmask}

    def _check(self, context: Context, request: Envelope, plan: TrainingPlan, order: RoundOrder) -> None:
        header = request.header
        said = (
            header.run,
            header.round,
            header.attempt,
            header.cv_epoch,
            header.schema,
            header.base,
            header.config,
        )
        bound = (
            context.run,
            context.round,
            context.attempt,
            context.cv_epoch,
            context.schema,
            context.base,
            context.config,
        )
        if bound != said:
            raise UpdateRejected(
                f"round {header.round}: the context of its sum belongs to another round or configuration"
            )
        wanted = sections(plan, self.size, self.n_reasons, context.n, train=order.train)
        if not plan.secure or context.clip != order.clip or context.sections != wanted:
            raise UpdateRejected(f"round {header.round}: the context asks for other sums than the plan")
        strangers = sorted({m.name for m in context.cohort} - set(self.pinned))
        if strangers:
            raise FederationError(f"round {header.round}: sites {strangers} of the cohort are not in the job")

    def _roster(self, context: Context) -> Roster:
        """Whom the site takes part with: the keys that the job pins; where it pins none, the server's word is taken."""
        keys = {}
        for number, member in enumerate(context.cohort):
            pinned = self.pinned[member.name]
            keys[member.name] = context.identity(number) if pinned is None else bytes.fromhex(pinned)
        return Roster(keys, self.smallest_cohort)

    def _at(self, request: Envelope) -> SiteRound:
        """The state of the attempt that the request belongs to."""
        state, header = self._load(), request.header
        if state is None or (state.context.round, state.context.attempt) != (header.round, header.attempt):
            raise FederationError(
                f"site {self.site!r} has not entered round {header.round}, attempt {header.attempt}: {KEYS} comes first"
            )
        return state

    def _load(self) -> SiteRound | None:
        path = self.folder / _STATE
        return SiteRound.from_bytes(path.read_bytes()) if path.is_file() else None

    def _spent(self) -> Spent | None:
        path = self.folder / _SPENT
        return Spent.from_bytes(path.read_bytes()) if path.is_file() else None

    def _save(self, state: SiteRound) -> None:
        """The record first: lost after it, the state costs a round; lost before it, the record could cost the secret."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as err:
            raise OutputError(f"cannot write the site's folder {self.folder}: {err.strerror}") from None
        write_atomic(self.folder / _SPENT, state.spent.to_bytes(), private=True)
        write_atomic(self.folder / _STATE, state.to_bytes(), private=True)
