"""The cry gate learns centrally, or over sites: `models.gate_step` in a loop.

The loop over sites is what the federation computes, bit for bit. With as few local steps as here the sites hardly drift apart, so
there are no control variates; the server's Nesterov momentum makes up for what averaging takes from the length of the step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from models.adapters import adapter_schema, get_vector, set_vector
from models.gate_batches import GateBatches
from models.gate_step import GateConfig, GateLearner, gate_session, gate_step, memory_size
from models.network import CryNet
from models.plain_loop import next_state, sum_updates
from models.quantise import Quantiser, QuantiserConfig
from models.ring import packed_bytes, ring_bits
from models.rotation import padded_size
from models.seeds import derive_seed, local_seed, rotation_seed
from models.server_step import ServerConfig, ServerState
from models.site_update import encode_update

OnStep = Callable[[int, int, float], None]
"""Told the step (from 1), of how many, and the mean loss since the last call."""

GATE_SERVER: Final = ServerConfig("nesterov", lr=0.7, beta1=0.7)
GATE_CODEC: Final = QuantiserConfig(bits=8, clip=6.0, adaptive_quantile=0.8)


def train_gate(
    net: CryNet, batches: GateBatches, cfg: GateConfig, seed: int = 0, on_step: OnStep | None = None
) -> None:
    """Train in place on all frames in one place: the central twin.

    Raises:
        UpdateRejected: a loss is not finite.
    """
    learner = GateLearner(net, batches, cfg, derive_seed("gate", seed, "central"), cfg.batch_size)
    every = max(1, cfg.steps // 20)
    total = 0.0
    with gate_session(net, cfg, seed):
        for step in range(1, cfg.steps + 1):
            total += learner.step(cfg.rate(step / cfg.steps))["total"]
            if on_step is not None and (step % every == 0 or step == cfg.steps):
                on_step(step, cfg.steps, total / (step % every or every))
                total = 0.0


def train_gate_federated(
    net: CryNet,
    sites: Mapping[str, GateBatches],
    cfg: GateConfig,
    seed: int = 0,
    on_step: OnStep | None = None,
    *,
    server: ServerConfig = GATE_SERVER,
    codec: QuantiserConfig | None = GATE_CODEC,
) -> None:
    """Train in place over sites, each drawing from its own frames alone; the server sees the sum of their changes.

    Args:
        net: the pretrained network.
        sites: batches by site.
        cfg: how the sites step, and for how many rounds.
        seed: of the run.
        on_step: told about every round.
        server: the server's step.
        codec: of the changes; None sends float32.

    Raises:
        UpdateRejected: a loss is not finite.
    """
    names = sorted(sites)
    start = get_vector(net, cfg.trained)
    state = ServerState.initial(start, codec.clip if codec else 1.0)
    memories = {name: np.zeros(memory_size(start.size)) for name in names}
    for number in range(1, cfg.rounds + 1):
        quantiser = Quantiser(start.size, codec, rotation_seed(seed, number), state.clip) if codec else None
        updates, loss = [], 0.0
        for name in names:
            own = local_seed(seed, name, number)
            result, memories[name] = gate_step(
                net, sites[name], state.theta, cfg, own, number, memories[name]
            )
            updates.append(encode_update(result, result.normaliser, own, quantiser=quantiser))
            loss += result.losses["total"] / len(names)
        state = next_state(state, sum_updates(updates, quantiser), server, codec)
        if on_step is not None:
            on_step(number, cfg.rounds, loss)
    set_vector(net, state.theta, cfg.trained)


def upload_bytes(net: CryNet, cfg: GateConfig, sites: int, codec: QuantiserConfig | None = GATE_CODEC) -> int:
    """What one site uploads in a round: float32, or levels packed in the ring that the sum over `sites` needs."""
    size = adapter_schema(net, cfg.trained).size
    if codec is None:
        return 4 * size
    return packed_bytes(padded_size(size), ring_bits(2**codec.bits - 2, sites))
