"""The server's step, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from models.errors import ConfigError, FederationError
from models.server_step import ServerConfig, ServerState, average, server_step


def v(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_average_is_uniform_and_float64() -> None:
    """1, 2^-30 and −1 in float32 would lose the small one."""
    mean = average([v(1.0), v(2.0**-30), v(-1.0)])
    assert mean.dtype == np.float64
    assert mean[0] == 2.0**-30 / 3


def test_fedavg_is_the_mean_of_the_sites() -> None:
    """θ = 1, y = 0.5 and 0: Δ = 0.5 and 1, θ⁺ = 0.25 = mean of y."""
    state = server_step(ServerState.initial(v(1.0)), [v(0.5), v(1.0)], ServerConfig())
    assert state.theta.dtype == np.float32
    assert state.theta[0] == 0.25
    assert state.rounds == 1


def test_momentum_by_hand() -> None:
    """β = 0.5, Δ̄ = 1 twice: moves 1, then 1.5."""
    cfg = ServerConfig(optimiser="momentum", beta1=0.5)
    state = server_step(ServerState.initial(v(0.0)), [v(1.0)], cfg)
    assert state.theta[0] == -1.0
    assert server_step(state, [v(1.0)], cfg).theta[0] == -2.5


def test_adam_by_hand() -> None:
    """First step, bias corrected: m̂ = Δ̄, v̂ = Δ̄², so the move is η Δ̄ / (|Δ̄| + τ) = 0.1 · 3 / (3 + 1)."""
    cfg = ServerConfig(optimiser="adam", lr=0.1, tau=1.0)
    state = server_step(ServerState.initial(v(0.0, 0.0)), [v(3.0, 0.0)], cfg)
    np.testing.assert_allclose(state.theta, [-0.075, 0.0], rtol=1e-6)


@pytest.mark.parametrize("optimiser", ["average", "momentum", "adam"])
def test_resumes_from_its_arrays_bit_for_bit(optimiser: str) -> None:
    rng = np.random.default_rng(0)
    cfg = ServerConfig(optimiser=optimiser, lr=0.3)  # type: ignore[arg-type]
    rounds = [[rng.standard_normal(5).astype(np.float32) for _ in range(3)] for _ in range(4)]
    state = ServerState.initial(np.zeros(5, dtype=np.float32))
    for deltas in rounds:
        state = server_step(state, deltas, cfg)
    again = ServerState.initial(np.zeros(5, dtype=np.float32))
    for deltas in rounds:
        again = server_step(ServerState.from_arrays(again.to_arrays()), deltas, cfg)
    assert again.theta.tobytes() == state.theta.tobytes()
    assert again.rounds == 4


def test_refusals() -> None:
    state = ServerState.initial(v(0.0))
    with pytest.raises(FederationError, match="at least one update"):
        server_step(state, [], ServerConfig())
    with pytest.raises(FederationError, match="update 1 has shape"):
        server_step(state, [v(1.0), v(1.0, 2.0)], ServerConfig())
    with pytest.raises(FederationError, match="not finite"):
        server_step(state, [v(np.inf)], ServerConfig())
    with pytest.raises(FederationError, match="holds"):
        ServerState.from_arrays({"theta": v(1.0)})
    with pytest.raises(FederationError, match="momentum is float32"):
        ServerState.from_arrays({**state.to_arrays(), "momentum": v(1.0)})
    with pytest.raises(ConfigError, match="unknown server optimiser 'sgd'"):
        ServerConfig(optimiser="sgd")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="lr > 0"):
        ServerConfig(lr=0)
