"""SCAFFOLD's option I for comparison: a site's variate is its gradient at θ, not the mean of the gradients along its way.

    c_i⁺ = g_i(θ)      c⁺ = c + (1/N) Σ_U (c_i⁺ − c_i)      (arXiv 1910.06378, algorithm 1, line 12)

It costs a second pass over as many samples as the local step sees, and a second vector to upload: the server cannot tell c_i⁺
from the update. Float32, no codec.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from models.adapters import Vector
from models.control_variates import Control, Variate, as_sent
from models.local_step import LocalConfig, TokenSet, local_step
from models.network import CryNet
from models.plain_loop import Round
from models.seeds import derive_seed, local_seed, participants
from models.server_step import RoundSum, ServerConfig, ServerState, server_step
from models.site_update import SiteUpdate, site_update


def gradient_at(net: CryNet, data: TokenSet, theta: Vector, local: LocalConfig, seed: int) -> Variate:
    """The gradient of the site's loss at θ over steps·batch_size draws, float64 (P,); its norm is clipped as in a step."""
    one = replace(
        local, steps=1, batch_size=local.steps * local.batch_size, lr=1.0, momentum=0.0, prox_mu=0.0
    )
    return local_step(net, data, theta, one, derive_seed(seed, "gradient")).delta.astype(np.float64)


def run_option_one(
    net: CryNet,
    sites: Mapping[str, TokenSet],
    *,
    rounds: int,
    local: LocalConfig,
    server: ServerConfig,
    participation: float,
    seed: int,
    theta: Vector,
    on_round: Callable[[Round], None],
) -> Vector:
    """As `models.plain_loop.run_rounds`, with option I; same seeds, so the same sites, batches and start."""
    names = sorted(sites)
    state = ServerState.initial(theta)
    own: dict[str, Variate] = {name: np.zeros(theta.shape) for name in names}
    for number in range(1, rounds + 1):
        done: list[SiteUpdate] = []
        change = np.zeros(theta.shape)
        for name in participants(names, max(1, round(participation * len(names))), seed, number):
            step_seed = local_seed(seed, name, number)
            control = Control(as_sent(state.control), own[name])
            done.append(site_update(net, sites[name], state.theta, local, step_seed, control=control))
            renewed = gradient_at(net, sites[name], state.theta, local, step_seed)
            change += renewed - own[name]
            own[name] = renewed
        total = RoundSum(np.sum([update.update for update in done], axis=0), len(done))
        state = replace(server_step(state, total, server), control=state.control + change / len(names))
        losses = {k: sum(u.losses[k] for u in done) / len(done) for k in done[0].losses}
        on_round(Round(number, state.theta, losses, total.mean))
    return state.theta
