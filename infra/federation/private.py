"""A site's own privacy: infant-level DP-SGD in place of the local step, paid for in the site's ledger before it is taken.

The site decides, not the server: it is part of its own description, and nothing in a message can change it. Noise is inside
what is sent, so control variates, codec and masks see noised values alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy.typing as npt

from infra.digest import digest_bytes
from infra.federation.privacy.accountant import Spend
from infra.federation.privacy.ledger import Budget, PrivacyLedger
from models.adapters import Vector
from models.dp_step import InfantTokens, PrivacyConfig, dp_local_step
from models.errors import ConfigError
from models.local_step import LocalConfig, LocalResult
from models.network import CryNet

LEDGER: Final = "privacy.jsonl"


@dataclass(frozen=True)
class Privacy:
    """Noise and clipping of a site's steps, and the ε that all of them together may cost an infant."""

    config: PrivacyConfig
    epsilon: float

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Privacy:
        """Fields of `PrivacyConfig`, and `epsilon`.

        Raises:
            ConfigError: a field is unknown, missing or out of range.
        """
        fields = dict(raw)
        try:
            epsilon = float(fields.pop("epsilon"))
            privacy = cls(PrivacyConfig(**fields), epsilon)
        except KeyError:
            raise ConfigError("privacy needs `epsilon`, the budget of each infant over all runs") from None
        except (TypeError, ValueError) as err:
            raise ConfigError(f"privacy: {err}") from None
        Budget(epsilon, privacy.config.delta)
        return privacy

    def ledger(self, folder: Path) -> PrivacyLedger:
        """The ledger in a site's folder."""
        return PrivacyLedger(folder / LEDGER, Budget(self.epsilon, self.config.delta))


@dataclass(frozen=True)
class PaidStep:
    """A private local step that was paid for: its result, and what the ledger calls it."""

    result: LocalResult
    attempt: int


@dataclass(frozen=True)
class PrivateSteps:
    """The private steps of one site in one run."""

    privacy: Privacy
    ledger: PrivacyLedger
    run: str

    def step(
        self,
        net: CryNet,
        data: InfantTokens,
        theta: Vector,
        cfg: LocalConfig,
        round_number: int,
        control: Vector | None,
    ) -> PaidStep:
        """Pay, then train.

        Raises:
            FederationError: the budget does not allow it; nothing was trained.
            UpdateRejected, DataError: as `dp_local_step`.
        """
        config = self.privacy.config
        spend = Spend(cfg.steps, config.sampling_rate(len(data.rows)), config.noise_multiplier)
        attempt = self.ledger.charge(self.run, round_number, spend)
        return PaidStep(dp_local_step(net, data, theta, cfg, config, control), attempt)

    def record(self, round_number: int, attempt: int, sent: npt.NDArray[Any]) -> None:
        """Name the update that was paid for, before it leaves."""
        self.ledger.record_update(self.run, round_number, attempt, digest_bytes(sent.tobytes()))
