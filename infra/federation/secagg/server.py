"""The server's side of one attempt, as a state machine without I/O.

    open → Announcement… → close_keys → Shares… → close_shares → MaskedVector… → close_vectors
         → Confirmation… → close_confirmations → Reveal… → total

`receive` takes one site's message and returns the next state. Sent again within its stage, a message changes nothing; one that
differs, or fits no longer, is refused. Closing a stage fixes who is in it and returns what to send; closed again, after a crash
too, it returns the same. Write the state (`to_bytes`) to disk before that is sent.

Invariants:
- U1 ⊇ U2 ⊇ U ⊇ those who confirm ⊇ those who reveal, each of at least t sites, each fixed when its stage is closed.
- U is the set of vectors in the sum and never changes: one attempt, one sum.
- No vector is kept: it is in the sum, or it was refused.
- A recovered secret counts only if it is the one its owner announced.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from itertools import pairwise
from typing import Final, TypeVar

from infra.federation.secagg import statements
from infra.federation.secagg.blobs import damaged, read_blobs, write_blobs
from infra.federation.secagg.context import Context
from infra.federation.secagg.masking import (
    Words,
    add_words,
    from_buffer,
    to_buffer,
    unpack_words,
    zeros,
)
from infra.federation.secagg.messages import (
    Announcement,
    Confirmation,
    Confirmations,
    Delivery,
    FromSite,
    KeyList,
    MaskedVector,
    Reveal,
    Shares,
    Survivors,
    Table,
)
from infra.federation.secagg.recovery import Total, unmask
from infra.federation.secagg.shamir import read_share
from models.errors import FederationError, RoundSkipped, UpdateRejected

_MARK: Final = b"CSV\x01"
_FIXED_BLOBS: Final = 6

T = TypeVar("T")


class Stage(IntEnum):
    """What the server collects."""

    KEYS = 0
    SHARES = 1
    VECTORS = 2
    CONFIRMATIONS = 3
    REVEALS = 4


@dataclass(frozen=True, eq=False)
class ServerRound:
    """State of the server in one attempt: what it accepted, by site number."""

    context: Context
    stage: Stage
    masked_sum: tuple[Words, ...] = field(repr=False)
    keys: Mapping[int, Announcement] = field(default_factory=dict, repr=False)
    shares: Mapping[int, Shares] = field(default_factory=dict, repr=False)
    vectors: Table = field(default_factory=dict, repr=False)  # their digests
    confirmations: Table = field(default_factory=dict, repr=False)  # signatures
    reveals: Mapping[int, Reveal] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, context: Context) -> ServerRound:
        """Begin an attempt."""
        return cls(context, Stage.KEYS, zeros(context))

    def receive(self, sender: str, message: FromSite) -> ServerRound:
        """Take one site's message.

        Args:
            sender: the site whose connection brought it.

        Raises:
            UpdateRejected: it is not that site's, or of another context or stage; the site missed an earlier stage; it
                contradicts an earlier message of the site; its content is not acceptable.
        """
        site, where = self.context.index(sender), f"round {self.context.round}, site {sender!r}"
        if message.site != site or message.context != self.context.digest:
            raise UpdateRejected(f"{where}: a message of another site, run, round, attempt or configuration")
        if site not in self._members():
            raise UpdateRejected(f"{where}: it missed an earlier stage, this one goes on without it")
        match self.stage, message:
            case Stage.KEYS, Announcement():
                statements.check_announcement(self.context, message)
                return replace(self, keys=_once(self.keys, site, message, where))
            case Stage.SHARES, Shares():
                if message.sealed.keys() != self.keys.keys() - {site}:
                    raise UpdateRejected(f"{where}: its shares must be for all others of the list of keys")
                return replace(self, shares=_once(self.shares, site, message, where))
            case Stage.VECTORS, MaskedVector():
                digest = statements.check_vector(self.context, message)
                if (vectors := _once(self.vectors, site, digest, where)) is self.vectors:
                    return self
                words = unpack_words(self.context, message.payload)
                return replace(self, vectors=vectors, masked_sum=add_words(self.masked_sum, words))
            case Stage.CONFIRMATIONS, Confirmation():
                shown = statements.survivor_statement(self._key_list(), self.shares, self._survivors())
                statements.check_confirmation(self.context, site, message.signature, shown)
                return replace(self, confirmations=_once(self.confirmations, site, message.signature, where))
            case Stage.REVEALS, Reveal():
                dropped = self.shares.keys() - self.vectors.keys()
                if message.self_masks.keys() != self.vectors.keys() or message.pair_keys.keys() != dropped:
                    raise UpdateRejected(
                        f"{where}: it must reveal a self-mask of each survivor and a pair key of each other"
                    )
                for share in (*message.self_masks.values(), *message.pair_keys.values()):
                    read_share(share)
                return replace(self, reveals=_once(self.reveals, site, message, where))
        raise UpdateRejected(
            f"{where}: a {type(message).__name__} while the server collects {self.stage.name.lower()}"
        )

    def close_keys(self) -> tuple[ServerRound, KeyList]:
        """Fix U1; the list of keys for each of its members.

        Raises:
            FederationError: fewer than t sites announced keys.
        """
        after = self._close(Stage.KEYS, self.keys)
        return after, after._key_list()

    def close_shares(self) -> tuple[ServerRound, dict[str, Delivery]]:
        """Fix U2; for each of its members, the shares meant for it.

        Raises:
            FederationError: fewer than t sites shared.
        """
        after, digest = self._close(Stage.SHARES, self.shares), self.context.digest
        return after, {
            self.context.name(to): Delivery(
                digest, {by: sent.sealed[to] for by, sent in self.shares.items() if by != to}
            )
            for to in sorted(self.shares)
        }

    def close_vectors(self) -> tuple[ServerRound, Survivors]:
        """Fix U; the survivor set for each of its members.

        Raises:
            RoundSkipped: fewer than t vectors arrived, but some did: the sites will not mask another in this round.
            FederationError: none arrived.
        """
        after = self._close(Stage.VECTORS, self.vectors)
        return after, after._survivors()

    def close_confirmations(self) -> tuple[ServerRound, Confirmations]:
        """Fix who unmasks; the signatures for each of them.

        Raises:
            RoundSkipped: fewer than t sites confirmed.
        """
        after = self._close(Stage.CONFIRMATIONS, self.confirmations)
        return after, Confirmations(self.context.digest, self.confirmations)

    def total(self) -> Total:
        """The sum over U. Nothing changes by it: it may be asked for again, and for as long as replies come in.

        Raises:
            RoundSkipped: fewer than t sites revealed their shares, or a secret cannot be recovered from them.
            FederationError: not at this stage.
        """
        self._reached(Stage.REVEALS)
        self._enough(self.reveals)
        return unmask(
            self.context,
            self.masked_sum,
            self.keys,
            sorted(self.shares),
            sorted(self.vectors),
            self.reveals,
        )

    def to_bytes(self) -> bytes:
        """The state for the disk. It holds no site's vector, and no secret before `REVEALS`."""
        d = self.context.digest
        blobs = [
            self.context.to_bytes(),
            bytes([self.stage]),
            to_buffer(self.masked_sum),
            self._key_list().to_bytes(),
            self._survivors().to_bytes(),
            Confirmations(d, self.confirmations).to_bytes(),
        ]
        sent = [m.to_bytes() for m in (*self.shares.values(), *self.reveals.values())]
        return write_blobs(_MARK, blobs + sent)

    @classmethod
    def from_bytes(cls, data: bytes) -> ServerRound:
        """Inverse of `to_bytes`.

        Raises:
            FederationError: damaged, or of another version.
        """
        blobs = read_blobs(_MARK, data)
        if len(blobs) < _FIXED_BLOBS or len(blobs[1]) != 1 or blobs[1][0] not in list(Stage):
            raise damaged()
        context, stage = Context.from_bytes(blobs[0]), Stage(blobs[1][0])
        key_list = KeyList.from_bytes(blobs[3], context)
        vectors = Survivors.from_bytes(blobs[4], context).entries
        confirmations = Confirmations.from_bytes(blobs[5], context).entries
        shares: dict[int, Shares] = {}
        reveals: dict[int, Reveal] = {}
        for blob in blobs[_FIXED_BLOBS:]:
            if blob[4:5] == bytes([Shares.KIND]):
                sent = Shares.from_bytes(blob, context)
                shares[sent.site] = sent
            else:
                revealed = Reveal.from_bytes(blob, context)
                reveals[revealed.site] = revealed
        state = cls(
            context,
            stage,
            from_buffer(context, blobs[2]),
            {site: key_list.announcement(site) for site in sorted(key_list.sites)},
            shares,
            vectors,
            confirmations,
            reveals,
        )
        chain = [key_list.sites, shares.keys(), vectors.keys(), confirmations.keys(), reveals.keys()]
        if any(not later <= earlier for earlier, later in pairwise(chain)):
            raise damaged()
        return state

    def _members(self) -> Collection[int]:
        """Who takes part in the current stage."""
        everyone = range(self.context.n)
        return (everyone, self.keys, self.shares, self.vectors, self.confirmations)[self.stage]

    def _key_list(self) -> KeyList:
        return KeyList(self.context.digest, {site: a.entry() for site, a in self.keys.items()})

    def _survivors(self) -> Survivors:
        return Survivors(self.context.digest, self.vectors)

    def _close(self, stage: Stage, members: Collection[int]) -> ServerRound:
        if self.stage > stage:
            return self
        self._reached(stage)
        self._enough(members)
        return replace(self, stage=Stage(stage + 1))

    def _reached(self, stage: Stage) -> None:
        if self.stage < stage:
            raise FederationError(
                f"round {self.context.round}: the server still collects {self.stage.name.lower()}, close that stage first"
            )

    def _enough(self, members: Collection[int]) -> None:
        if len(members) >= self.context.threshold:
            return
        missing = ", ".join(repr(self.context.name(i)) for i in self._members() if i not in members)
        skipped = bool(self.vectors)
        what = "skip the round" if skipped else "try again with fresh keys"
        message = (
            f"round {self.context.round}, attempt {self.context.attempt}: {len(members)} sites sent {self.stage.name.lower()}, "
            f"{self.context.threshold} are needed; missing: {missing}; {what}"
        )
        raise RoundSkipped(message) if skipped else FederationError(message)


def _once(table: Mapping[int, T], site: int, entry: T, where: str) -> Mapping[int, T]:
    """The table with the entry; the table itself if it is in it."""
    if site in table:
        if table[site] != entry:
            raise UpdateRejected(f"{where}: a second message that contradicts its first")
        return table
    return {**table, site: entry}
