"""The server's share of a round: uniform average of the sites' Δ, then a server optimiser.

    Δ̄ = (1/|U|) Σ_U Δ_i      θ⁺ = θ − η_g · step(Δ̄)

`step` is the identity (FedAvg), momentum (FedAvgM, arXiv 1909.06335) or Adam (FedAdam, arXiv 2003.00295, algorithm 2). Uniform,
because sample weights would reveal counts. Sums run in site order in float64: equal inputs give equal bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from models.adapters import Vector
from models.errors import ConfigError, FederationError

Arrays = dict[str, npt.NDArray]


@dataclass(frozen=True)
class ServerConfig:
    """Plain numbers only: it travels as JSON."""

    optimiser: Literal["average", "momentum", "adam"] = "average"
    lr: float = 1.0
    beta1: float = 0.9  # momentum
    beta2: float = 0.99
    tau: float = 1e-3  # Adam's ε: the size of Δ̄ below which a coordinate counts as quiet

    def __post_init__(self) -> None:
        if self.optimiser not in ("average", "momentum", "adam"):
            raise ConfigError(
                f"unknown server optimiser {self.optimiser!r}: choose average, momentum or adam"
            )
        if self.lr <= 0 or not 0 <= self.beta1 < 1 or not 0 <= self.beta2 < 1 or self.tau <= 0:
            raise ConfigError("the server step needs lr > 0, 0 ≤ beta1 < 1, 0 ≤ beta2 < 1 and tau > 0")


@dataclass(frozen=True)
class ServerState:
    """θ float32 (P,), the optimiser's moments float64 (P,), and the number of rounds taken."""

    theta: Vector
    momentum: npt.NDArray[np.float64]
    second: npt.NDArray[np.float64]
    rounds: int = 0

    @classmethod
    def initial(cls, theta: Vector) -> ServerState:
        """Before the first round."""
        return cls(theta.copy(), np.zeros(theta.shape), np.zeros(theta.shape))

    def to_arrays(self) -> Arrays:
        """For a checkpoint."""
        return {
            "theta": self.theta,
            "momentum": self.momentum,
            "second": self.second,
            "rounds": np.array([self.rounds], dtype=np.int64),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> ServerState:
        """Inverse of `to_arrays`.

        Raises:
            FederationError: an array is missing or of another type or length.
        """
        expected = {"theta": np.float32, "momentum": np.float64, "second": np.float64, "rounds": np.int64}
        if set(arrays) != set(expected):
            raise FederationError(f"a server state holds {sorted(expected)}, this one {sorted(arrays)}")
        size = arrays["theta"].shape
        for name, dtype in expected.items():
            shape = (1,) if name == "rounds" else size
            if arrays[name].dtype != dtype or arrays[name].shape != shape:
                raise FederationError(
                    f"server state: {name} is {arrays[name].dtype} {arrays[name].shape}, needs {np.dtype(dtype)} {shape}"
                )
        return cls(arrays["theta"], arrays["momentum"], arrays["second"], int(arrays["rounds"][0]))


def average(deltas: Sequence[Vector]) -> npt.NDArray[np.float64]:
    """Uniform mean in the order given, float64 (P,).

    Raises:
        FederationError: none given, or lengths differ.
    """
    if not deltas:
        raise FederationError("a round needs at least one update")
    total = np.zeros(deltas[0].shape)
    for i, delta in enumerate(deltas):
        if delta.shape != total.shape:
            raise FederationError(f"update {i} has shape {delta.shape}, the first {total.shape}")
        total += delta
    return total / len(deltas)


def server_step(state: ServerState, deltas: Sequence[Vector], cfg: ServerConfig) -> ServerState:
    """One round: the sites' Δ_i = θ − y_i, in site order, → the next state.

    Raises:
        FederationError: no update, a wrong length, or a result that is not finite.
    """
    mean = average(deltas)
    if mean.shape != state.theta.shape:
        raise FederationError(f"updates have shape {mean.shape}, θ {state.theta.shape}")
    rounds, momentum, second = state.rounds + 1, state.momentum, state.second
    step = mean
    if cfg.optimiser == "momentum":
        momentum = cfg.beta1 * momentum + mean
        step = momentum
    elif cfg.optimiser == "adam":
        momentum = cfg.beta1 * momentum + (1.0 - cfg.beta1) * mean
        second = cfg.beta2 * second + (1.0 - cfg.beta2) * np.square(mean)
        unbiased = momentum / (1.0 - cfg.beta1**rounds)
        step = unbiased / (np.sqrt(second / (1.0 - cfg.beta2**rounds)) + cfg.tau)
    theta = (state.theta.astype(np.float64) - cfg.lr * step).astype(np.float32)
    if not np.isfinite(theta).all():
        raise FederationError("θ is not finite after this round: lower the server's lr or raise tau")
    return ServerState(theta, momentum, second, rounds)
