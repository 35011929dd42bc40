"""The server's step, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from models.control_variates import as_sent
from models.errors import ConfigError, FederationError
from models.server_step import RoundSum, ServerConfig, ServerState, server_step


def v(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def total(*updates: float, counted: int | None = None) -> RoundSum:
    return RoundSum(np.array([sum(updates)]), len(updates) if counted is None else counted)


def test_fedavg_is_the_mean_of_the_sites() -> None:
    """θ = 1, y = 0.5 and 0: û = 0.5 and 1, θ⁺ = 0.25 = mean of y."""
    state = server_step(ServerState.initial(v(1.0)), total(0.5, 1.0), ServerConfig())
    assert state.theta.dtype == np.float32
    assert state.theta[0] == 0.25
    assert state.rounds == 1
    assert state.control[0] == 0.0


def test_momentum_by_hand() -> None:
    """β = 0.5, ū = 1 twice: moves 1, then 1.5."""
    cfg = ServerConfig(optimiser="momentum", beta1=0.5)
    state = server_step(ServerState.initial(v(0.0)), total(1.0), cfg)
    assert state.theta[0] == -1.0
    assert server_step(state, total(1.0), cfg).theta[0] == -2.5


def test_adam_by_hand() -> None:
    """First step, bias corrected: m̂ = ū, v̂ = ū², so the move is η ū / (|ū| + τ) = 0.1 · 3 / (3 + 1)."""
    cfg = ServerConfig(optimiser="adam", lr=0.1, tau=1.0)
    state = server_step(ServerState.initial(v(0.0, 0.0)), RoundSum(np.array([3.0, 0.0]), 1), cfg)
    np.testing.assert_allclose(state.theta, [-0.075, 0.0], rtol=1e-6)


def test_control_variate_by_hand() -> None:
    """N = 4, |U| = 2, c = 1, A_ref = 2, Σ û = 6, so Σ d̂ = 3: c⁺ = 1 − 2/4 · 1 + 3/4 = 1.25. θ moves by ū = 3."""
    state = ServerState(v(0.0), np.zeros(1), np.zeros(1), np.ones(1))
    after = server_step(state, RoundSum(np.array([6.0]), 2), ServerConfig(), registered=4, reference=2.0)
    assert after.control[0] == 1.25
    assert after.theta[0] == -3.0
    assert after.without_control().control[0] == 0.0


def test_what_float32_takes_from_c_is_taken_at_both_ends() -> None:
    """All of N = 1 takes part: c⁺ = c − c̃ + d̂, the site's c_i⁺ = c_i − c̃ + d̂, so c = c_i stays c = c_i."""
    c = np.array([1.0 / 3.0])
    state = ServerState(v(0.0), np.zeros(1), np.zeros(1), c)
    after = server_step(state, RoundSum(np.array([0.7]), 1), ServerConfig(), registered=1, reference=1.0)
    assert after.control[0] == c[0] - float(as_sent(c)[0]) + 0.7


@pytest.mark.parametrize("optimiser", ["average", "momentum", "adam"])
def test_resumes_from_its_arrays_bit_for_bit(optimiser: str) -> None:
    rng = np.random.default_rng(0)
    cfg = ServerConfig(optimiser=optimiser, lr=0.3)  # type: ignore[arg-type]
    sums = [RoundSum(rng.standard_normal(5), 3, 2) for _ in range(4)]
    state = ServerState.initial(np.zeros(5, dtype=np.float32), clip=0.5)
    for one in sums:
        state = server_step(state, one, cfg, registered=3, reference=1.5)
    again = ServerState.initial(np.zeros(5, dtype=np.float32), clip=0.5)
    for one in sums:
        again = server_step(ServerState.from_arrays(again.to_arrays()), one, cfg, registered=3, reference=1.5)
    assert again.theta.tobytes() == state.theta.tobytes()
    assert again.control.tobytes() == state.control.tobytes()
    assert (again.rounds, again.clip) == (4, 0.5)


def test_refusals() -> None:
    state = ServerState.initial(v(0.0))
    with pytest.raises(FederationError, match="at least one update"):
        server_step(state, total(counted=0), ServerConfig())
    with pytest.raises(FederationError, match="updates have shape"):
        server_step(state, RoundSum(np.zeros(2), 1), ServerConfig())
    with pytest.raises(FederationError, match="not finite"):
        server_step(state, total(np.inf), ServerConfig())
    with pytest.raises(FederationError, match="holds"):
        ServerState.from_arrays({"theta": v(1.0)})
    with pytest.raises(FederationError, match="momentum is float32"):
        ServerState.from_arrays({**state.to_arrays(), "momentum": v(1.0)})
    with pytest.raises(ConfigError, match="unknown server optimiser 'sgd'"):
        ServerConfig(optimiser="sgd")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="lr > 0"):
        ServerConfig(lr=0)
