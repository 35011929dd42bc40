"""The federation without a network: the same local and server steps in a loop.

It is the reference that the federated run must equal bit for bit, and it trains the central twin.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from models.adapters import Vector, get_vector
from models.local_step import LocalConfig, TokenSet, local_seed, local_step, pool_tokens
from models.network import CryNet
from models.server_step import ServerConfig, ServerState, server_step


@dataclass(frozen=True)
class Round:
    """What a round did: its number from 1, θ after it, and the sites' mean losses."""

    number: int
    theta: Vector
    losses: dict[str, float]


def run_rounds(
    net: CryNet,
    sites: Mapping[str, TokenSet],
    *,
    rounds: int,
    local: LocalConfig,
    server: ServerConfig,
    seed: int = 0,
    theta: Vector | None = None,
    on_round: Callable[[Round], None] | None = None,
) -> Vector:
    """Train adapters and heads over `sites`, all of them in every round, in the order of their names.

    Args:
        net: the pretrained network.
        sites: training tokens by site.
        rounds: how many.
        local: the sites' step.
        server: the server's step.
        seed: of the run.
        theta: where to start, (P,) float32; the network's own adapters and heads by default.
        on_round: told about every round.

    Returns:
        θ after the last round, (P,) float32. The network holds the θ it started from.
    """
    start = get_vector(net) if theta is None else theta
    state = ServerState.initial(start)
    names = sorted(sites)
    for number in range(1, rounds + 1):
        results = [
            local_step(net, sites[name], state.theta, local, local_seed(seed, name, number)) for name in names
        ]
        state = server_step(state, [r.delta for r in results], server)
        if on_round is not None:
            mean = {k: sum(r.losses[k] for r in results) / len(results) for k in results[0].losses}
            on_round(Round(number, state.theta, mean))
    return state.theta


def train_central(
    net: CryNet,
    sites: Mapping[str, TokenSet],
    *,
    rounds: int,
    local: LocalConfig,
    server: ServerConfig,
    seed: int = 0,
    on_round: Callable[[Round], None] | None = None,
) -> Vector:
    """The twin that breaks the promise: all sites' tokens in one place, as many steps as one site took in the federation."""
    pooled = pool_tokens([sites[name] for name in sorted(sites)])
    return run_rounds(
        net, {"central": pooled}, rounds=rounds, local=local, server=server, seed=seed, on_round=on_round
    )
