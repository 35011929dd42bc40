"""The server's share of a round: from the sum of the sites' updates to the next θ and c.

    ū = (1/|U|) Σ_U û_i      θ⁺ = θ − η_g · step(ū)      û_i = A_ref d̂_i  (models.control_variates)

`step` is the identity (FedAvg), momentum (FedAvgM, arXiv 1909.06335), Nesterov's (as in DiLoCo, arXiv 2311.08105) or Adam
(FedAdam, arXiv 2003.00295, algorithm 2). Uniform over the counted sites, because sample weights would reveal counts and break
c = mean(c_i). Only the sum is needed, so it may come out of secure aggregation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from models.adapters import Vector
from models.control_variates import Variate, as_sent, next_server_variate
from models.errors import ConfigError, FederationError

Arrays = dict[str, npt.NDArray]


@dataclass(frozen=True)
class ServerConfig:
    """Plain numbers only: it travels as JSON."""

    optimiser: Literal["average", "momentum", "nesterov", "adam"] = "average"
    lr: float = 1.0
    beta1: float = 0.9  # momentum
    beta2: float = 0.99
    tau: float = 1e-3  # Adam's ε: the size of ū below which a coordinate counts as quiet

    def __post_init__(self) -> None:
        if self.optimiser not in ("average", "momentum", "nesterov", "adam"):
            raise ConfigError(
                f"unknown server optimiser {self.optimiser!r}: choose average, momentum, nesterov or adam"
            )
        if self.lr <= 0 or not 0 <= self.beta1 < 1 or not 0 <= self.beta2 < 1 or self.tau <= 0:
            raise ConfigError("the server step needs lr > 0, 0 ≤ beta1 < 1, 0 ≤ beta2 < 1 and tau > 0")


@dataclass(frozen=True)
class RoundSum:
    """All that a round tells the server of the updates: Σ_U û_i float64 (P,), |U|, and how many lay within the clipping norm."""

    update: npt.NDArray[np.float64]
    counted: int
    inside: int = 0

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """ū, float64 (P,)."""
        return self.update / self.counted


@dataclass(frozen=True)
class ServerState:
    """θ float32 (P,), the optimiser's moments and c float64 (P,), the clipping norm C, and the number of rounds taken."""

    theta: Vector
    momentum: npt.NDArray[np.float64]
    second: npt.NDArray[np.float64]
    control: Variate
    clip: float = 1.0
    rounds: int = 0

    @classmethod
    def initial(cls, theta: Vector, clip: float = 1.0) -> ServerState:
        """Before the first round."""
        zeros = np.zeros(theta.shape)
        return cls(theta.copy(), zeros, zeros.copy(), zeros.copy(), clip)

    def without_control(self) -> ServerState:
        """The same with c = 0: the beginning of a new epoch of control variates."""
        return replace(self, control=np.zeros(self.theta.shape))

    def to_arrays(self) -> Arrays:
        """For a checkpoint."""
        return {
            "theta": self.theta,
            "momentum": self.momentum,
            "second": self.second,
            "control": self.control,
            "clip": np.array([self.clip]),
            "rounds": np.array([self.rounds], dtype=np.int64),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> ServerState:
        """Inverse of `to_arrays`.

        Raises:
            FederationError: an array is missing or of another type or length.
        """
        vectors = {
            "theta": np.float32,
            "momentum": np.float64,
            "second": np.float64,
            "control": np.float64,
        }
        expected: dict[str, type] = {**vectors, "clip": np.float64, "rounds": np.int64}
        if set(arrays) != set(expected):
            raise FederationError(f"a server state holds {sorted(expected)}, this one {sorted(arrays)}")
        size = arrays["theta"].shape
        for name, dtype in expected.items():
            shape = size if name in vectors else (1,)
            if arrays[name].dtype != dtype or arrays[name].shape != shape:
                raise FederationError(
                    f"server state: {name} is {arrays[name].dtype} {arrays[name].shape}, needs {np.dtype(dtype)} {shape}"
                )
        return cls(
            arrays["theta"],
            arrays["momentum"],
            arrays["second"],
            arrays["control"],
            clip=float(arrays["clip"][0]),
            rounds=int(arrays["rounds"][0]),
        )


def server_step(
    state: ServerState,
    total: RoundSum,
    cfg: ServerConfig,
    *,
    registered: int = 0,
    reference: float = 0.0,
) -> ServerState:
    """One round: the sum of the counted sites' updates → the next state.

    Args:
        state: before the round.
        total: Σ_U û_i and |U|.
        cfg: the server's optimiser.
        registered: N, all sites of the federation; 0 where no control variates are used, and c stays as it is.
        reference: A_ref, the normaliser that turned d̂_i into û_i; needed with `registered`.

    Raises:
        FederationError: no update, a wrong length, or a result that is not finite.
    """
    if total.counted < 1:
        raise FederationError("a round needs at least one update")
    if total.update.shape != state.theta.shape:
        raise FederationError(f"the updates have shape {total.update.shape}, θ {state.theta.shape}")
    mean = total.mean
    rounds, momentum, second = state.rounds + 1, state.momentum, state.second
    step = mean
    if cfg.optimiser == "momentum":
        momentum = cfg.beta1 * momentum + mean
        step = momentum
    elif cfg.optimiser == "nesterov":
        momentum = cfg.beta1 * momentum + mean
        step = mean + cfg.beta1 * momentum
    elif cfg.optimiser == "adam":
        momentum = cfg.beta1 * momentum + (1.0 - cfg.beta1) * mean
        second = cfg.beta2 * second + (1.0 - cfg.beta2) * np.square(mean)
        unbiased = momentum / (1.0 - cfg.beta1**rounds)
        step = unbiased / (np.sqrt(second / (1.0 - cfg.beta2**rounds)) + cfg.tau)
    theta = (state.theta.astype(np.float64) - cfg.lr * step).astype(np.float32)
    if not np.isfinite(theta).all():
        raise FederationError("θ is not finite after this round: lower the server's lr or raise tau")
    control = state.control
    if registered:
        control = next_server_variate(
            control,
            as_sent(control),
            total.update / reference,
            counted=total.counted,
            registered=registered,
        )
    return replace(state, theta=theta, momentum=momentum, second=second, control=control, rounds=rounds)
