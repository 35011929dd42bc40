"""A cohort whose messages and states go through bytes at every step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import dataclass, field
from functools import cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from infra.federation.secagg.context import Context, Member, Roster, Section, default_threshold
from infra.federation.secagg.messages import (
    Confirmations,
    Delivery,
    FromSite,
    KeyList,
    MaskedVector,
    Message,
    Survivors,
)
from infra.federation.secagg.recovery import Total
from infra.federation.secagg.server import ServerRound
from infra.federation.secagg.site import SiteRound
from infra.federation.secagg.spent import Spent

M = TypeVar("M", bound=Message)

SECTIONS = (Section(6, 11), Section(2, 32))


def site_name(number: int) -> str:
    return f"ward{number}"


@cache
def identity(number: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"site %d" % number).digest())


def public(number: int) -> bytes:
    return identity(number).public_key().public_bytes_raw()


def make_context(n: int = 5, **change: object) -> Context:
    fields: dict[str, object] = {
        "run": "a" * 64,
        "round": 3,
        "attempt": 0,
        "cv_epoch": 1,
        "schema": "b" * 64,
        "base": "c" * 64,
        "config": "d" * 64,
        "clip": 1.0,
        "sections": SECTIONS,
        "cohort": tuple(Member(site_name(i), public(i).hex()) for i in range(n)),
        "threshold": default_threshold(n),
    }
    return Context(**{**fields, **change})  # type: ignore[arg-type]


def make_roster(n: int = 16) -> Roster:
    return Roster({site_name(i): public(i) for i in range(n)})


def values_of(context: Context, site: int) -> tuple[npt.NDArray[np.uint32], ...]:
    """Any values whose sum over the cohort stays in the ring."""
    rng = np.random.default_rng(site)
    return tuple(
        rng.integers(0, 2**s.bits // context.n, s.length).astype(np.uint32) for s in context.sections
    )


def plain_sum(context: Context, sites: Iterable[int]) -> list[list[int]]:
    chosen = [values_of(context, i) for i in sites]
    return [sum(v[k].astype(object) for v in chosen).tolist() for k in range(len(context.sections))]


def wired(message: M, context: Context) -> M:
    """The message as the other end reads it."""
    return type(message).from_bytes(message.to_bytes(), context)


@dataclass
class World:
    """One attempt, stage by stage; each stage is done by the sites named, then closed."""

    context: Context
    server: ServerRound = field(init=False)
    sites: dict[int, SiteRound] = field(default_factory=dict)
    key_list: KeyList = field(init=False)
    deliveries: dict[str, Delivery] = field(init=False)
    survivors: Survivors = field(init=False)
    confirmations: Confirmations = field(init=False)
    _answers: dict[int, tuple[SiteRound, FromSite]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.server = ServerRound.open(self.context)

    @property
    def everyone(self) -> range:
        return range(self.context.n)

    def announce(self, who: Iterable[int] | None = None, before: Spent | None = None) -> World:
        roster = make_roster()
        self._each(
            self.everyone if who is None else who,
            lambda i: SiteRound.begin(self.context, site_name(i), identity(i), roster, before),
        )
        state, key_list = self.server.close_keys()
        self.server, self.key_list = self._reopened(state), wired(key_list, self.context)
        return self

    def share(self, who: Iterable[int] | None = None) -> World:
        chosen = self.key_list.sites if who is None else who
        self._each(chosen, lambda i: self.sites[i].share(self.key_list))
        state, deliveries = self.server.close_shares()
        self.server = self._reopened(state)
        self.deliveries = {name: wired(d, self.context) for name, d in deliveries.items()}
        return self

    def mask(self, who: Iterable[int] | None = None) -> World:
        shared = [i for i in self.everyone if site_name(i) in self.deliveries]
        self._each(shared if who is None else who, self.masked)
        state, survivors = self.server.close_vectors()
        self.server, self.survivors = self._reopened(state), wired(survivors, self.context)
        return self

    def masked(self, i: int) -> tuple[SiteRound, MaskedVector]:
        site, values = self.sites[i], values_of(self.context, i)
        return site.mask(self.deliveries[site_name(i)], values, identity(i), site.spent)

    def confirm(self, who: Iterable[int] | None = None) -> World:
        self._each(
            self.survivors.sites if who is None else who,
            lambda i: self.sites[i].confirm(self.survivors, identity(i), self.sites[i].spent),
        )
        state, confirmations = self.server.close_confirmations()
        self.server, self.confirmations = self._reopened(state), wired(confirmations, self.context)
        return self

    def unmask(self, who: Iterable[int] | None = None) -> World:
        chosen = self.confirmations.sites if who is None else who
        self._each(chosen, lambda i: self.sites[i].unmask(self.confirmations))
        return self

    def total(self) -> Total:
        return self.server.total()

    def fork(self) -> World:
        """The same point in time once more; what sites answer from here on is computed once for all forks."""
        other = copy(self)
        other.sites = dict(self.sites)
        return other

    def _each(self, who: Iterable[int], step: Callable[[int], tuple[SiteRound, FromSite]]) -> None:
        for i in who:
            if i not in self._answers:
                state, message = step(i)
                again = SiteRound.from_bytes(state.to_bytes())
                assert again == state
                self._answers[i] = again, wired(message, self.context)
            self.sites[i], message = self._answers[i]
            self.server = self.server.receive(site_name(i), message)
        self._answers = {}

    def _reopened(self, state: ServerRound) -> ServerRound:
        again = ServerRound.from_bytes(state.to_bytes())
        assert again.to_bytes() == state.to_bytes()
        return again
