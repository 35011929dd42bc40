"""What a round asks of a site: the part of a job that every site must agree to, and the order of one round.

The plan's digest is in every header, so a site that was given another one refuses. The order is public: nothing in it is a
secret, and nothing in it can name a file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from infra.digest import digest_json
from models.adapters import Trained
from models.errors import ConfigError, UpdateRejected
from models.gate_batches import AugmentConfig
from models.gate_step import GateConfig, memory_size
from models.local_step import LocalConfig, normaliser
from models.quantise import QuantiserConfig

_SEED_BYTES = 32


@dataclass(frozen=True)
class TrainingPlan:
    """How every site trains and sends.

    Attributes:
        local: the local step.
        codec: quantisation; None sends float32, which only an open (not a secure) aggregation can sum.
        control_variates: SCAFFOLD's correction, beside the proximal term of `local`.
        secure: updates and counts travel under masks.
        gate: the gate's own phase: tokenizer, backbone and heads learn by it instead of adapters and heads by `local`.
        augment: how the gate's batches are altered; there exactly where `gate` is.
    """

    local: LocalConfig = field(default_factory=LocalConfig)
    codec: QuantiserConfig | None = field(default_factory=QuantiserConfig)
    control_variates: bool = True
    secure: bool = False
    gate: GateConfig | None = None
    augment: AugmentConfig | None = None

    def __post_init__(self) -> None:
        if (self.gate is None) != (self.augment is None):
            raise ConfigError("a plan names `gate` and `augment` together, or neither")
        if self.gate is not None and self.control_variates:
            raise ConfigError("the gate's own phase takes no control variates: its few local steps need none")
        if self.secure and self.codec is None:
            raise ConfigError(
                "secure aggregation sums integers: give the job a codec, or set secure to false"
            )

    @property
    def trained(self) -> Trained:
        """What travels."""
        return "adapters" if self.gate is None else self.gate.trained

    def memory_size(self, parameters: int) -> int:
        """Length of what a site keeps from round to round: its control variate, or its moments in the gate's own phase."""
        return parameters if self.gate is None else memory_size(parameters)

    @property
    def reference(self) -> float:
        """A_ref, the normaliser of `local`: what turns a site's d̂ into the update that the server averages."""
        if self.gate is not None:
            return 1.0  # every site takes the same steps
        return normaliser(self.local.steps, self.local.lr, self.local.momentum)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    @property
    def digest(self) -> str:
        """SHA-256 of the plan."""
        return digest_json(self.to_dict())

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`.

        Raises:
            ConfigError: a value is wrong.
            TypeError: not such a document.
        """
        codec, gate, augment = raw["codec"], raw["gate"], raw["augment"]
        return cls(
            LocalConfig(**raw["local"]),
            None if codec is None else QuantiserConfig(**codec),
            bool(raw["control_variates"]),
            bool(raw["secure"]),
            None if gate is None else GateConfig(**gate),
            None if augment is None else AugmentConfig(**augment),
        )


@dataclass(frozen=True)
class RoundOrder:
    """What one site is asked to do in one round.

    Attributes:
        seed: of its local step.
        rotation: public seed of the round's rotation, 32 bytes.
        clip: C of this round.
        included: the last round of this epoch of control variates that the server counted this site in; 0 for none.
        tally: the round whose θ this is, if it is to be tallied, else 0.
        train: False in the closing exchange, which only tallies.
    """

    seed: int
    rotation: bytes
    clip: float
    included: int
    tally: int
    train: bool = True

    def to_body(self) -> dict[str, Any]:
        """JSON types, for a message."""
        return {**asdict(self), "rotation": self.rotation.hex()}

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Self:
        """Read an order out of a message.

        Raises:
            UpdateRejected: a field is missing or wrong.
        """
        seed, rotation, clip = body.get("seed"), body.get("rotation"), body.get("clip")
        included, tally, train = body.get("included"), body.get("tally"), body.get("train")
        numbers = all(type(n) is int and n >= 0 for n in (seed, included, tally))
        try:
            key = bytes.fromhex(rotation) if isinstance(rotation, str) else b""
        except ValueError:
            key = b""
        finite = type(clip) is float and math.isfinite(clip) and clip > 0
        if not numbers or len(key) != _SEED_BYTES or not finite or type(train) is not bool:
            raise UpdateRejected(
                "a training request must carry seed, rotation, clip, included, tally and train as this version has them"
            )
        assert isinstance(clip, float)
        return cls(int(seed or 0), key, clip, int(included or 0), int(tally or 0), train)


def read_plan(body: Mapping[str, Any], config: str) -> TrainingPlan:
    """The plan a request carries, once it is the one its header names.

    Raises:
        UpdateRejected: it is not, or is not a plan of this version.
    """
    raw = body.get("plan")
    if not isinstance(raw, dict) or digest_json(raw) != config:
        raise UpdateRejected("a training request must carry the configuration its header names")
    try:
        plan = TrainingPlan.from_dict(raw)
    except (TypeError, KeyError, ConfigError) as err:
        raise UpdateRejected(f"the training plan is not one of this version: {err}") from None
    if plan.to_dict() != raw:
        raise UpdateRejected("the training plan must name every value, so that all sites mean the same")
    return plan
