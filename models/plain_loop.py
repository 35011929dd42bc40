"""The federation without a network: the same site updates and server steps in a loop.

It is the reference that the federated run must equal bit for bit; it trains the central twin, and it runs the experiments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from models.adapters import Vector, get_vector, set_vector
from models.control_variates import Control, Variate, as_sent
from models.local_step import LocalConfig, TokenSet, normaliser, pool_tokens
from models.network import CryNet
from models.quantise import Quantiser, QuantiserConfig, next_clip
from models.seeds import local_seed, participants, rotation_seed
from models.server_step import RoundSum, ServerConfig, ServerState, server_step
from models.site_update import SiteUpdate, site_update


@dataclass(frozen=True)
class Algorithm:
    """How a federation learns, beside the two steps: control variates, codec (None: float32), share of sites asked a round.

    `steps` names sites that take another number of local steps than the rest.
    """

    control_variates: bool = False
    codec: QuantiserConfig | None = None
    participation: float = 1.0
    steps: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Round:
    """What a round did: its number from 1, θ after it, the sites' mean losses, and ū float64 (P,)."""

    number: int
    theta: Vector
    losses: dict[str, float]
    mean_update: Variate


def run_rounds(
    net: CryNet,
    sites: Mapping[str, TokenSet],
    *,
    rounds: int,
    local: LocalConfig,
    server: ServerConfig,
    algorithm: Algorithm | None = None,
    seed: int = 0,
    theta: Vector | None = None,
    on_round: Callable[[Round], None] | None = None,
) -> Vector:
    """Train adapters and heads over `sites`, in the order of their names.

    Args:
        net: the pretrained network.
        sites: training tokens by site.
        rounds: how many.
        local: the sites' step.
        server: the server's step.
        algorithm: control variates, codec and participation; FedAvg with the local step's proximal term by default.
        seed: of the run.
        theta: where to start, (P,) float32; the network's own adapters and heads by default.
        on_round: told about every round.

    Returns:
        θ after the last round, (P,) float32. The network holds the θ it started from.
    """
    how = algorithm or Algorithm()
    start = get_vector(net) if theta is None else theta
    names = sorted(sites)
    state = ServerState.initial(start, how.codec.clip if how.codec else 1.0)
    own: dict[str, Variate] = {name: np.zeros(start.shape) for name in names}
    count = max(1, round(how.participation * len(names)))
    for number in range(1, rounds + 1):
        codec = how.codec
        quantiser = Quantiser(start.size, codec, rotation_seed(seed, number), state.clip) if codec else None
        updates: dict[str, SiteUpdate] = {}
        for name in participants(names, count, seed, number):
            updates[name] = site_update(
                net, sites[name], state.theta, local, local_seed(seed, name, number),
                steps=how.steps.get(name, 0), quantiser=quantiser,
                control=Control(as_sent(state.control), own[name]) if how.control_variates else None,
            )  # fmt: skip
            variate = updates[name].variate
            if variate is not None:
                own[name] = variate
        done = list(updates.values())
        total = sum_updates(done, quantiser)
        state = next_state(
            state, total, server, codec,
            registered=len(names) if how.control_variates else 0,
            reference=normaliser(local.steps, local.lr, local.momentum),
        )  # fmt: skip
        if on_round is not None:
            mean = {k: sum(u.losses[k] for u in done) / len(done) for k in done[0].losses}
            on_round(Round(number, state.theta, mean, total.mean))
    set_vector(net, start)
    return state.theta


def next_state(
    state: ServerState,
    total: RoundSum,
    server: ServerConfig,
    codec: QuantiserConfig | None,
    *,
    registered: int = 0,
    reference: float = 0.0,
) -> ServerState:
    """The server's step and, where there is a codec, the next clipping norm; arguments as for `server_step`."""
    after = server_step(state, total, server, registered=registered, reference=reference)
    if codec is None:
        return after
    return replace(after, clip=next_clip(state.clip, total.inside, total.counted, codec))


def sum_updates(updates: Sequence[SiteUpdate], quantiser: Quantiser | None) -> RoundSum:
    """The sum that a server would see: of integers where there is a codec, else of float32 in float64, in the order given."""
    inside = sum(u.inside for u in updates)
    if quantiser is None:
        total = np.zeros(updates[0].update.shape)
        for update in updates:
            total += update.update
        return RoundSum(total, len(updates), inside)
    levels = np.zeros(quantiser.padded, np.uint32)
    for update in updates:
        assert update.levels is not None
        levels += update.levels
    return RoundSum(quantiser.decode_sum(levels, len(updates)), len(updates), inside)


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
