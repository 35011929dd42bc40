"""One round's exchange with its sites, as sums: in the open here, under masks in `secure_collect`.

What a collector returns is all that the loop ever sees of a round: Σ of the updates, Σ of the tallies, and who was counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from infra.federation.exchange import Answers, Exchange
from infra.federation.messages import TRAIN, Envelope
from infra.federation.tally import BITS, Tally, Words, tally_size
from infra.federation.training import RoundOrder, TrainingPlan
from models.adapters import AdapterSchema
from models.codec import Float32Codec
from models.errors import UpdateRejected, VariatesOutOfStep
from models.quantise import Quantiser
from models.ring import pack, packed_bytes, unpack
from models.rotation import padded_size


@dataclass
class Wire:
    """Bytes on the wire, header, body and payload, by site and by stage of a round."""

    up: dict[str, int] = field(default_factory=dict)
    down: dict[str, int] = field(default_factory=dict)
    stages: dict[str, dict[str, int]] = field(default_factory=dict)  # stage → up, down, over all sites
    repeats: int = 0

    def add(self, stage: str, answers: Answers[Any]) -> None:
        """Count one exchange."""
        for total, found in ((self.up, answers.bytes_up), (self.down, answers.bytes_down)):
            for site, size in found.items():
                total[site] = total.get(site, 0) + size
        self.stages[stage] = {
            "up": sum(answers.bytes_up.values()),
            "down": sum(answers.bytes_down.values()),
        }
        self.repeats += answers.repeats

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Wire:
        """Inverse of `to_dict`."""
        return cls(dict(raw["up"]), dict(raw["down"]), dict(raw["stages"]), int(raw["repeats"]))


@dataclass(frozen=True)
class Request:
    """What the sites of one round are sent.

    Attributes:
        number: the round, from 1; the closing exchange, which only tallies, has the one after the last.
        attempt: of this round, from 0.
        epoch: of control variates.
        orders: by site, in aggregation order.
        theta: θ, and c behind it where there are control variates, encoded.
        quantiser: the round's codec; None without one, and in the closing exchange.
        train: False in the closing exchange.
    """

    number: int
    attempt: int
    epoch: int
    orders: Mapping[str, RoundOrder]
    theta: bytes
    quantiser: Quantiser | None
    train: bool = True


@dataclass(frozen=True)
class Collected:
    """Σ over the counted sites; `update` is Σ levels (padded,), Σ û float64 (P,) without a codec, or None in the closing."""

    counted: tuple[str, ...]
    update: npt.NDArray[Any] | None
    tally: Tally
    failures: Mapping[str, dict[str, str]]
    wire: Wire

    @classmethod
    def nothing(cls, n_reasons: int, why: str) -> Collected:
        """A round that brought nothing."""
        return cls((), None, Tally.empty(n_reasons), {"*": {"kind": "skipped", "reason": why}}, Wire())


class Collector(Protocol):
    """Brings a round's sums from the sites."""

    def collect(self, request: Request) -> Collected:
        """One round.

        Raises:
            FederationError: too few delivered, and nothing is spoilt: the round can be tried again.
            RoundSkipped: too few are left after something was revealed: only the next round can be used.
            VariatesOutOfStep: a site has lost its control variate.
        """
        ...


@dataclass(frozen=True)
class Layout:
    """How a contribution lies in a payload: the update, then the tally's words. Lengths are known before anything is read."""

    schema: AdapterSchema
    plan: TrainingPlan
    n_reasons: int

    def update_bytes(self, train: bool) -> int:
        """Length of the update."""
        if not train:
            return 0
        if self.plan.codec is None:
            return Float32Codec(self.schema).max_bytes
        return packed_bytes(padded_size(self.schema.size), self.plan.codec.bits)

    def payload_bytes(self, train: bool) -> int:
        """Length of the whole payload."""
        return self.update_bytes(train) + 4 * tally_size(self.n_reasons)

    def encode(self, update: npt.NDArray[Any], words: Words) -> bytes:
        """One site's contribution as bytes; an empty update in the closing exchange."""
        if not update.size:
            body = b""
        elif self.plan.codec is None:
            body = Float32Codec(self.schema).encode(update)
        else:
            body = pack(update, self.plan.codec.bits)
        return body + pack(words, BITS)

    def decode(self, data: bytes, train: bool) -> tuple[npt.NDArray[Any], Words]:
        """Inverse of `encode`.

        Raises:
            UpdateRejected: another length, or values that no site of this version sends.
        """
        if len(data) != self.payload_bytes(train):
            raise UpdateRejected(
                f"a contribution of {len(data)} bytes instead of {self.payload_bytes(train)}: another codec, preset or label set"
            )
        at = self.update_bytes(train)
        words = unpack(data[at:], tally_size(self.n_reasons), BITS).astype(np.uint32)
        if not train:
            return np.zeros(0), words
        if self.plan.codec is None:
            return Float32Codec(self.schema).decode(data[:at]), words
        levels = unpack(data[:at], padded_size(self.schema.size), self.plan.codec.bits)
        if int(levels.max()) > 2**self.plan.codec.bits - 2:
            raise UpdateRejected("a contribution holds a level that no quantiser gives")
        return levels, words


class OpenCollector:
    """Updates in the clear, summed by the server: for two sites, and for measuring what the masks cost."""

    def __init__(self, exchange: Exchange, layout: Layout) -> None:
        self._exchange, self._layout = exchange, layout

    def collect(self, request: Request) -> Collected:
        """See `Collector`."""
        layout, train = self._layout, request.train

        def read(_site: str, reply: Envelope) -> tuple[npt.NDArray[Any], Words]:
            update, words = layout.decode(reply.payload, train)
            Tally.from_words(words, layout.n_reasons)  # checked one by one, while they can be seen
            return update, words

        answers = self._exchange.ask(
            TRAIN,
            request.number,
            {site: train_body(layout.plan, order) for site, order in request.orders.items()},
            request.theta,
            read,
            attempt=request.attempt,
            epoch=request.epoch,
            max_payload=layout.payload_bytes(train),
        )
        refuse_out_of_step(answers)
        wire = Wire()
        wire.add(TRAIN, answers)
        update: npt.NDArray[Any] | None = None
        for levels, _ in answers.accepted.values() if train else ():
            if update is None:
                update = np.zeros(levels.shape, np.float64 if request.quantiser is None else np.uint32)
            update += levels
        words = np.zeros(tally_size(layout.n_reasons), np.uint64)
        for _, one in answers.accepted.values():
            words += one
        tally = Tally.from_words(words, layout.n_reasons, summands=len(answers.accepted))
        return Collected(tuple(answers.accepted), update, tally, answers.failures, wire)


def train_body(plan: TrainingPlan, order: RoundOrder) -> dict[str, Any]:
    """Body of a training request."""
    return {"plan": plan.to_dict(), **order.to_body()}


def refuse_out_of_step(answers: Answers[Any]) -> None:
    """Stop a round in which a site's control variate is not the one that was counted.

    Raises:
        VariatesOutOfStep: there is such a site; the message names it.
    """
    if answers.out_of_step:
        raise VariatesOutOfStep("; ".join(answers.failures[site]["reason"] for site in answers.out_of_step))
