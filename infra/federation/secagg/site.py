"""A site's side of one attempt, as a state machine without I/O.

    begin → share → mask → confirm → unmask

Every step returns the next state and the answer. Write the state (`to_bytes`) and its `spent` record to disk before the answer
leaves: each message may then be handled by another process, and a repeated message gets the same answer. A refused step leaves
the state as it was.

Invariants:
- One attempt, one set of keys: `begin` refuses an attempt that was begun before, whatever became of its state.
- One vector per round, one survivor set per round (`Spent`, which outlives this state).
- Keys count only if their owner's pinned identity signed them for this very context, and if all of them are different.
- U contains the site itself with the vector it sent, lies within those who shared, and has at least t members.
- No share is given before t sites of U have signed the same U; then the self-mask's for members of U and the pair key's for the
  others, so never both for one site, since U never changes.
- After `unmask` keys and received shares are gone from the state. Where no unmask came, write the next attempt's state over it:
  until then at most n − t sites hold remains of a finished round, which even c colluders do not complete to t (2t > n + c).

Source: Bonawitz et al., CCS 2017 (arXiv 1611.04482), figure 4 with its consistency check. Beyond it, the self-mask's seed is
committed to, sealed shares are bound to the list of keys, and the signature covers keys, sharers and vectors besides U.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from infra.federation.secagg import statements
from infra.federation.secagg.blobs import damaged, read_blobs, write_blobs
from infra.federation.secagg.context import Context, Roster
from infra.federation.secagg.masking import add_mask, pack_words, to_words
from infra.federation.secagg.messages import (
    Announcement,
    Confirmation,
    Confirmations,
    Delivery,
    KeyList,
    MaskedVector,
    Message,
    Reveal,
    Shares,
    Survivors,
)
from infra.federation.secagg.primitives import SECRET_BYTES, new_secret, public_key, seal, unseal
from infra.federation.secagg.shamir import SHARE_BYTES, read_share, split
from infra.federation.secagg.spent import Spent
from models.errors import FederationError, UpdateRejected

_MARK: Final = b"CSS\x01"
_LATER: Final[dict[str, type[Message]]] = {
    "key_list": KeyList,
    "shares": Shares,
    "delivery": Delivery,
    "survivors": Survivors,
    "confirmation": Confirmation,
    "reveal": Reveal,
}
_FIRST_BLOBS: Final = 5
# of secrets, own shares and the messages above: begun, shared, masked, confirmed, unmasked
_PRESENT: Final = ("10000000", "11110000", "11111000", "11111110", "00000111")


@dataclass(frozen=True)
class Secrets:
    """What must not outlive the attempt; 32 bytes each, the own shares 66 or, before sharing, none."""

    cipher_key: bytes = field(repr=False)
    mask_key: bytes = field(repr=False)
    self_seed: bytes = field(repr=False)
    own_shares: bytes = field(repr=False, default=b"")


@dataclass(frozen=True)
class SiteRound:
    """State of one site in one attempt. What a stage has not reached, or was erased, is None."""

    context: Context
    spent: Spent  # the record as of this state
    announcement: Announcement
    secrets: Secrets | None = None
    key_list: KeyList | None = None
    shares: Shares | None = None  # as sent
    delivery: Delivery | None = None
    survivors: Survivors | None = None
    confirmation: Confirmation | None = None  # as sent
    reveal: Reveal | None = None  # as sent

    @property
    def site(self) -> int:
        """The site's number."""
        return self.announcement.site

    @classmethod
    def begin(
        cls, context: Context, name: str, identity: Ed25519PrivateKey, roster: Roster, before: Spent | None
    ) -> tuple[SiteRound, Announcement]:
        """Enter an attempt with fresh keys.

        Args:
            context: as the server proposes it; the caller compares clip, sections and digests with what it is willing to do.
            name: the site's own.
            identity: its long-term key; the state never holds it.
            roster: the sites it knows.
            before: its record of this run, None if it has none.

        Raises:
            FederationError: the cohort is not one this site takes part with, or see `Spent.begin`.
            UpdateRejected: the site is not in the cohort.
        """
        site = context.index(name)
        roster.check(context)
        if identity.public_key().public_bytes_raw() != context.identity(site):
            raise FederationError(f"site {name!r}: its identity key is not the one the cohort lists for it")
        spent = Spent.begin(context, before)
        secrets = Secrets(new_secret(), new_secret(), new_secret())
        keys = public_key(secrets.cipher_key), public_key(secrets.mask_key)
        commit = statements.commitment(context, site, secrets.self_seed)
        announcement = statements.announce(identity, context, site, *keys, commit)
        return cls(context, spent, announcement, secrets), announcement

    def share(self, key_list: KeyList) -> tuple[SiteRound, Shares]:
        """Seal shares of the self-mask's seed and of the pair key for every other site.

        Raises:
            UpdateRejected: the list has fewer than t sites, lacks or changes the site's own keys, repeats a key, or holds one
                that its owner's identity did not sign for this context.
            FederationError: another list was answered before.
        """
        self._bound(key_list)
        if self.shares is not None:
            if key_list != self.key_list:
                raise self._refusal("it has shared under another list of keys")
            return self, self.shares
        secrets = self._secrets()
        self._check_keys(key_list)
        t, holders = self.context.threshold, sorted(key_list.sites)
        pair, own = split(secrets.mask_key, t, holders), split(secrets.self_seed, t, holders)
        sealed = {}
        for other in sorted(key_list.sites - {self.site}):
            key = statements.share_key(
                self.context, secrets.cipher_key, key_list.announcement(other).cipher_key, self.site, other
            )
            label = statements.share_label(key_list, self.site, other)
            sealed[other] = seal(key, pair[other] + own[other], label)
        shares = Shares(self.context.digest, self.site, sealed)
        kept = replace(secrets, own_shares=pair[self.site] + own[self.site])
        return replace(self, secrets=kept, key_list=key_list, shares=shares), shares

    def mask(
        self,
        delivery: Delivery,
        values: Sequence[npt.NDArray[Any]],
        identity: Ed25519PrivateKey,
        spent: Spent,
    ) -> tuple[SiteRound, MaskedVector]:
        """Mask the site's vector.

        Args:
            delivery: the shares meant for this site.
            values: one integer array (length,) per section of the context, each value in 0..2^bits − 1; a repeated call must
                bring the same.
            spent: the record as it is on disk now.

        Raises:
            UpdateRejected: a share does not open, fewer than t sites shared, or the values do not fit the sections.
            FederationError: not at this stage, or another vector was masked.
        """
        self._bound(delivery)
        key_list, secrets = self._key_list(), self._secrets()
        if self.survivors is not None or (self.delivery is not None and delivery != self.delivery):
            raise self._refusal("it has masked its vector; it masks one")
        others = delivery.sites
        if not others <= key_list.sites - {self.site} or len(others) + 1 < self.context.threshold:
            raise UpdateRejected(
                f"{self._where()}: {len(others) + 1} sites shared, they must be among those of the list of keys and at least "
                f"{self.context.threshold}"
            )
        for sender in others:
            self._open(key_list, delivery, sender)
        words = to_words(self.context, values)
        add_mask(words, statements.self_mask_seed(self.context, self.site, secrets.self_seed))
        for other in others:
            key = key_list.announcement(other).mask_key
            seed = statements.pair_mask_seed(self.context, secrets.mask_key, key, self.site, other)
            add_mask(words, seed, subtract=self.site > other)
        payload = pack_words(self.context, words)
        after = spent.mask(self.context, statements.vector_digest(payload))
        vector = statements.masked_vector(identity, self.context, self.site, payload)
        return replace(self, spent=after, delivery=delivery), vector

    def confirm(
        self, survivors: Survivors, identity: Ed25519PrivateKey, spent: Spent
    ) -> tuple[SiteRound, Confirmation]:
        """Sign the survivor set U.

        Raises:
            UpdateRejected: U lacks this site or its vector, is not a subset of those who shared, or has fewer than t members.
            FederationError: not at this stage, or another U was signed in this round.
        """
        self._bound(survivors)
        if self.confirmation is not None and survivors == self.survivors:
            return self, self.confirmation
        if self.delivery is None or self.key_list is None:
            raise self._refusal("there is no masked vector of it that U could count")
        shared = self.delivery.sites | {self.site}
        if not survivors.sites <= shared or len(survivors.sites) < self.context.threshold:
            raise UpdateRejected(
                f"{self._where()}: a survivor set of {len(survivors.sites)} sites, it must lie within the {len(shared)} that "
                f"shared and have at least {self.context.threshold}"
            )
        if survivors.entries.get(self.site, b"").hex() != spent.masked:
            raise UpdateRejected(
                f"{self._where()}: the survivor set lacks this site, or counts another vector of it"
            )
        statement = statements.survivor_statement(self.key_list, shared, survivors)
        after = spent.sign(self.context, statement)
        confirmation = statements.confirm(identity, self.context, self.site, statement)
        return replace(self, spent=after, survivors=survivors, confirmation=confirmation), confirmation

    def unmask(self, confirmations: Confirmations) -> tuple[SiteRound, Reveal]:
        """Give one share of each other site's secret, and erase the attempt's secrets.

        Raises:
            UpdateRejected: fewer than t signatures, one that does not verify, or one by a site outside U.
            FederationError: this site has signed no U in this attempt.
        """
        self._bound(confirmations)
        if self.survivors is None:
            raise self._refusal("it has signed no survivor set")
        alive = self.survivors.sites
        if not confirmations.sites <= alive or len(confirmations.sites) < self.context.threshold:
            raise UpdateRejected(
                f"{self._where()}: {len(confirmations.sites)} confirmations, they must be by survivors and at least "
                f"{self.context.threshold}"
            )
        for signer, signature in confirmations.entries.items():
            statements.check_confirmation(self.context, signer, signature, bytes.fromhex(self.spent.signed))
        if self.reveal is not None:
            return self, self.reveal
        key_list, secrets, delivery = self._key_list(), self._secrets(), self._delivery()
        held = {sender: self._open(key_list, delivery, sender) for sender in delivery.sites}
        held[self.site] = _parts(secrets.own_shares)
        reveal = Reveal(
            self.context.digest,
            self.site,
            self_masks={owner: own for owner, (_, own) in held.items() if owner in alive},
            pair_keys={owner: pair for owner, (pair, _) in held.items() if owner not in alive},
        )
        return replace(self, secrets=None, key_list=None, shares=None, delivery=None, reveal=reveal), reveal

    def to_bytes(self) -> bytes:
        """The state for the disk; it holds the attempt's secrets until `unmask`."""
        keys, own = b"", b""
        if self.secrets is not None:
            keys = self.secrets.cipher_key + self.secrets.mask_key + self.secrets.self_seed
            own = self.secrets.own_shares
        later: list[Message | None] = [getattr(self, name) for name in _LATER]
        blobs = [
            self.context.to_bytes(),
            self.spent.to_bytes(),
            self.announcement.to_bytes(),
            keys,
            own,
            *(b"" if message is None else message.to_bytes() for message in later),
        ]
        return write_blobs(_MARK, blobs)

    @classmethod
    def from_bytes(cls, data: bytes) -> SiteRound:
        """Inverse of `to_bytes`.

        Raises:
            FederationError: damaged, or of another version.
        """
        blobs = read_blobs(_MARK, data)
        if len(blobs) != _FIRST_BLOBS + len(_LATER):
            raise damaged()
        keys, own = blobs[3:_FIRST_BLOBS]
        present = "".join("1" if blob else "0" for blob in blobs[3:])
        if present not in _PRESENT or len(keys) not in (0, 3 * SECRET_BYTES):
            raise damaged()
        if len(own) not in (0, 2 * SHARE_BYTES):
            raise damaged()
        context = Context.from_bytes(blobs[0])
        later: dict[str, Any] = {
            name: kind.from_bytes(blob, context)
            for (name, kind), blob in zip(_LATER.items(), blobs[_FIRST_BLOBS:], strict=True)
            if blob
        }
        a, b = SECRET_BYTES, 2 * SECRET_BYTES
        return cls(
            context,
            Spent.from_bytes(blobs[1]),
            Announcement.from_bytes(blobs[2], context),
            Secrets(keys[:a], keys[a:b], keys[b:], own) if keys else None,
            **later,
        )

    def _check_keys(self, key_list: KeyList) -> None:
        where, t = self._where(), self.context.threshold
        if len(key_list.sites) < t:
            raise UpdateRejected(
                f"{where}: a list of keys of {len(key_list.sites)} sites, at least {t} are needed"
            )
        if key_list.entries.get(self.site) != self.announcement.entry():
            raise UpdateRejected(f"{where}: the list of keys lacks or changes this site's own")
        announced = [key_list.announcement(other) for other in sorted(key_list.sites)]
        for announcement in announced:
            statements.check_announcement(self.context, announcement)
        keys = [key for a in announced for key in (a.cipher_key, a.mask_key)]
        if len(set(keys)) != len(keys) or len({a.commitment for a in announced}) != len(announced):
            raise UpdateRejected(f"{where}: a key occurs twice in the list of keys")

    def _open(self, key_list: KeyList, delivery: Delivery, sender: int) -> tuple[bytes, bytes]:
        """The shares of a sender's pair key and self-mask seed."""
        secrets, theirs = self._secrets(), key_list.announcement(sender).cipher_key
        key = statements.share_key(self.context, secrets.cipher_key, theirs, sender, self.site)
        try:
            label = statements.share_label(key_list, sender, self.site)
            pair, own = _parts(unseal(key, delivery.entries[sender], label))
            read_share(pair), read_share(own)
        except UpdateRejected as err:
            raise UpdateRejected(f"{self._where()}, shares of {self.context.name(sender)!r}: {err}") from None
        return pair, own

    def _bound(self, message: Message) -> None:
        if message.context != self.context.digest:
            raise UpdateRejected(
                f"{self._where()}: a message of another run, round, attempt, cohort or configuration"
            )

    def _secrets(self) -> Secrets:
        if self.secrets is None:
            raise self._refusal("its part is done and its keys are erased")
        return self.secrets

    def _key_list(self) -> KeyList:
        if self.key_list is None:
            raise self._refusal("it has not shared" if self.reveal is None else "its part is done")
        return self.key_list

    def _delivery(self) -> Delivery:
        if self.delivery is None:
            raise self._refusal("it has masked no vector")
        return self.delivery

    def _refusal(self, why: str) -> FederationError:
        return FederationError(f"{self._where()}: {why}")

    def _where(self) -> str:
        name = self.context.name(self.site)
        return f"round {self.context.round}, attempt {self.context.attempt}, site {name!r}"


def _parts(shares: bytes) -> tuple[bytes, bytes]:
    return shares[:SHARE_BYTES], shares[SHARE_BYTES:]
