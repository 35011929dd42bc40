"""What a site must never forget of a run: the last attempt it took part in, and what it gave away in it.

    one record per run, kept with the site's state, written before the answer leaves

Two sums of one round over different sites reveal their difference. So rounds and attempts only go forward, one vector is masked
per round, one survivor set signed. These facts are public and outlive the round's secrets.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Final

from infra.digest import canonical_json
from infra.federation.secagg.context import Context
from models.errors import FederationError, RoundSkipped

_MAX_BYTES: Final = 1024
_HEX_DIGITS: Final = 64


@dataclass(frozen=True)
class Spent:
    """The last attempt, and what was done in it."""

    run: str
    round: int
    attempt: int
    masked: str = ""  # digest of the one masked vector, hex
    signed: str = ""  # digest of the one confirmed statement, hex

    @classmethod
    def begin(cls, context: Context, before: Spent | None) -> Spent:
        """Enter an attempt.

        Raises:
            FederationError: the record is of another run, of a later round or attempt, or of this one.
            RoundSkipped: a vector was masked in an earlier attempt of this round.
        """
        entered = cls(context.run, context.round, context.attempt)
        if before is None:
            return entered
        where = f"round {context.round}, attempt {context.attempt}"
        if before.run != context.run:
            raise FederationError(f"{where}: the record at hand is of another run; keep one for each run")
        if (before.round, before.attempt) >= (entered.round, entered.attempt):
            raise FederationError(
                f"{where}: this site is at round {before.round}, attempt {before.attempt} already; "
                "send it what belongs there, or go on to a later attempt or round"
            )
        if before.round == entered.round and before.masked:
            raise RoundSkipped(
                f"{where}: this site masked a vector in attempt {before.attempt} of this round, a second sum could reveal a "
                "difference; skip the round"
            )
        return entered

    def mask(self, context: Context, vector: bytes) -> Spent:
        """Mask this round's one vector; again only the same.

        Raises:
            FederationError: the site has moved on, or masked another.
        """
        self._still_at(context)
        if self.masked not in ("", vector.hex()):
            raise FederationError(
                f"round {context.round}: this site has masked another vector; one is all it masks"
            )
        return Spent(self.run, self.round, self.attempt, vector.hex(), self.signed)

    def sign(self, context: Context, statement: bytes) -> Spent:
        """Sign this round's one survivor set; again only the same.

        Raises:
            FederationError: the site has moved on, or signed another.
        """
        self._still_at(context)
        if self.signed not in ("", statement.hex()):
            raise FederationError(
                f"round {context.round}: this site has signed another survivor set; it signs one per round"
            )
        return Spent(self.run, self.round, self.attempt, self.masked, statement.hex())

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return canonical_json(asdict(self))

    @classmethod
    def from_bytes(cls, data: bytes) -> Spent:
        """Inverse of `to_bytes`.

        Raises:
            FederationError: damaged. The site must then sit out the run: it cannot know what it gave away.
        """
        try:
            spent = cls(**json.loads(data[: _MAX_BYTES + 1]))
            digests = (spent.masked, spent.signed)
            sound = type(spent.round) is type(spent.attempt) is int
            sound = sound and all(len(bytes.fromhex(d)) in (0, _HEX_DIGITS // 2) for d in digests)
            sound = sound and len(bytes.fromhex(spent.run)) == _HEX_DIGITS // 2 and spent.to_bytes() == data
        except (ValueError, TypeError, RecursionError):
            sound = False
        if not sound:
            raise FederationError(
                "the record of what this site gave away is damaged: restore it, or leave the site out of this run"
            )
        return spent

    def _still_at(self, context: Context) -> None:
        if (self.run, self.round, self.attempt) != (context.run, context.round, context.attempt):
            raise FederationError(
                f"round {context.round}, attempt {context.attempt}: this site is at round {self.round}, attempt {self.attempt} "
                f"of run {self.run[:12]}; the state at hand is out of date"
            )
