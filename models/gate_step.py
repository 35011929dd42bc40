"""The cry gate learns from recordings: what one place does, a site in a round or all recordings together.

The adapters of the federated job learn on frozen tokens; that is enough for what separates the reasons, and not for the gate on
real phones, whose sound the synthetic pretraining has never met. Here tokenizer, backbone and heads learn from augmented log-mel
(`models.gate_batches`), beginning from the pretrained network, by AdamW (arXiv 1711.05101). A site keeps its moments over the
rounds; its share of one is a pure function of θ, these, its frames and a seed, like `models.local_step`, and can be repeated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.adapters import (
    Trained,
    Vector,
    adapters_off,
    get_vector,
    set_vector,
    train_only,
    trained_parameters,
)
from models.denoiser import denoising_loss
from models.errors import ConfigError, UpdateRejected
from models.gate_batches import Batch, GateBatches
from models.local_step import LocalResult
from models.network import CryNet
from models.optimiser import adamw
from models.seeds import derive_seed


@dataclass(frozen=True)
class GateConfig:
    """How the gate is trained. Plain numbers only: it travels as JSON."""

    steps: int = 720  # central; a federation takes rounds × local_steps at every site
    batch_size: int = 20  # recordings, of `frames_per_clip` frames each
    rounds: int = 20
    local_steps: int = 12
    local_batch_size: int = 4
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.08  # share of the steps
    grad_clip: float = 1.0
    reason_weight: float = 0.1  # beside the gate's loss; the reasons of real cries may carry no signal at all
    energy_weight: float = 0.02
    energy_in: float = -5.0  # margins of the energy (arXiv 2010.03759, equation 8): cries below
    energy_out: float = -2.0  # non-cries above
    denoising_weight: float = 0.0  # of the denoiser's own loss, when it learns too; 0 leaves it as pretrained
    lambda_t: float = 0.5
    lambda_f: float = 0.5
    threads: int = 1  # sums over several depend on their number

    def __post_init__(self) -> None:
        """Refuse what cannot train.

        Raises:
            ConfigError: a setting is out of range.
        """
        if (
            min(self.steps, self.rounds, self.local_steps) < 1
            or min(self.batch_size, self.local_batch_size) < 4
        ):
            raise ConfigError(
                "gate training needs at least one step, round and local step, and batches of 4 or more"
            )
        if self.lr <= 0 or self.weight_decay < 0 or self.denoising_weight < 0:
            raise ConfigError("gate training needs lr > 0, and weights that are not negative")

    @property
    def trained(self) -> Trained:
        """What learns: the denoiser only where its loss has a weight."""
        return "gate and denoiser" if self.denoising_weight > 0 else "gate"

    def rate(self, done: float) -> float:
        """The learning rate when a share `done` of the training is over: linear warm-up, then a half cosine to zero."""
        if done < self.warmup:
            return self.lr * done / self.warmup
        return self.lr * 0.5 * (1.0 + math.cos(math.pi * (done - self.warmup) / (1.0 - self.warmup)))


Memory = npt.NDArray[np.float64]
"""A site's moments: (2P + 1,), first and second of each parameter, and the number of steps behind them. Zeros begin anew."""


def memory_size(parameters: int) -> int:
    """Length of the memory of P parameters."""
    return 2 * parameters + 1


def gate_step(
    net: CryNet,
    batches: GateBatches,
    theta: Vector,
    cfg: GateConfig,
    seed: int,
    number: int,
    memory: Memory,
) -> tuple[LocalResult, Memory]:
    """One site's share of round `number` (from 1): θ − y after `cfg.local_steps` steps, and the moments after them.

    Its scale needs no normaliser: every site takes the same steps.

    Args:
        net: the pretrained network; its trained parts are scratch space and hold θ again afterwards.
        batches: the site's own.
        theta: (P,) float32, laid out as `adapter_schema(net, cfg.trained)`.
        cfg: steps, rates, weights.
        seed: decides the batches; see `models.seeds.local_seed`.
        number: where on the schedule of the rate the round lies.
        memory: the site's moments.

    Raises:
        FederationError: `theta` does not fit the network.
        UpdateRejected: a loss or the result is not finite; the site sends nothing.
    """
    set_vector(net, theta, cfg.trained)
    losses: dict[str, float] = {}
    try:
        with gate_session(net, cfg, seed):
            learner = GateLearner(net, batches, cfg, seed, cfg.local_batch_size)
            learner.remember(memory)
            for k in range(1, cfg.local_steps + 1):
                done = ((number - 1) * cfg.local_steps + k) / (cfg.rounds * cfg.local_steps)
                for name, value in learner.step(cfg.rate(done)).items():
                    losses[name] = losses.get(name, 0.0) + value / cfg.local_steps
            delta = theta - get_vector(net, cfg.trained)
            after = learner.memory()
    finally:
        set_vector(net, theta, cfg.trained)
    if not np.isfinite(delta).all():
        raise UpdateRejected("the gate's update is not finite: lower lr; the site sends nothing")
    return LocalResult(delta, 1.0, losses, cfg.local_steps), after


class GateLearner:
    """One place that learns: its batches, and its optimiser with its moments."""

    def __init__(
        self, net: CryNet, batches: GateBatches, cfg: GateConfig, seed: int, batch_size: int
    ) -> None:
        self._net, self._batches, self._cfg, self._size = net, batches, cfg, batch_size
        self._rng = np.random.Generator(np.random.PCG64(seed))
        self._parameters = [p for _, p in trained_parameters(net, cfg.trained)]
        self._optimiser = adamw(self._parameters, cfg.lr, cfg.weight_decay)

    def remember(self, memory: Memory) -> None:
        """Go on from these moments."""
        size = sum(p.numel() for p in self._parameters)
        assert memory.shape == (memory_size(size),)
        if memory[-1] == 0:
            return
        at = 0
        for p in self._parameters:
            first, second = (
                torch.empty_like(p).copy_(
                    torch.from_numpy(memory[start : start + p.numel()].astype(np.float32)).view(p.shape)
                )
                for start in (at, size + at)
            )
            steps = torch.tensor(float(memory[-1]), dtype=torch.float32)
            self._optimiser.state[p] = {"step": steps, "exp_avg": first, "exp_avg_sq": second}
            at += p.numel()

    def memory(self) -> Memory:
        """The moments after the last step; float32 values, so nothing is lost."""
        states = [self._optimiser.state[p] for p in self._parameters]
        flat = [s[name].reshape(-1).numpy() for name in ("exp_avg", "exp_avg_sq") for s in states]
        return np.concatenate([*flat, [float(states[0]["step"])]]).astype(np.float64)

    def step(self, lr: float) -> dict[str, float]:
        """One step at a learning rate; its losses by name, `total` among them.

        Raises:
            UpdateRejected: the loss is not finite.
        """
        terms = self._losses(self._batches.draw(self._rng, self._size))
        loss = terms["total"]
        if not bool(torch.isfinite(loss)):
            raise UpdateRejected("gate training diverged: lower lr, or check the frames for NaN")
        self._optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self._parameters, self._cfg.grad_clip)
        for group in self._optimiser.param_groups:
            group["lr"] = lr
        self._optimiser.step()
        return {name: term.item() for name, term in terms.items()}

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        net, cfg = self._net, self._cfg
        denoised = net.denoiser(batch.x)
        out, clips = net.classify(net.tokenizer(denoised)), len(batch.cry)
        # a recording's scores from its frames', as `models.predict` pools them
        gate = _soft_maximum(out.gate_logit.reshape(clips, -1))
        energy = -_soft_maximum(-out.energy.reshape(clips, -1))
        reasons = out.reason_logits.reshape(clips, -1, len(net.reasons)).mean(dim=1)
        terms = {"gate": nn.functional.binary_cross_entropy_with_logits(gate, batch.cry)}
        known = batch.reason.sum().clamp_min(1.0)
        terms["reason"] = -(batch.reason * torch.log_softmax(reasons, dim=1)).sum() / known
        inside = batch.cry * torch.relu(energy - cfg.energy_in).square()
        outside = (1.0 - batch.cry) * torch.relu(cfg.energy_out - energy).square()
        terms["energy"] = 2.0 * (inside + outside).mean()
        total = terms["gate"] + cfg.reason_weight * terms["reason"] + cfg.energy_weight * terms["energy"]
        if cfg.denoising_weight > 0:
            terms["denoising"] = denoising_loss(denoised, batch.clean, cfg.lambda_t, cfg.lambda_f)
            total = total + cfg.denoising_weight * terms["denoising"]
        return {**terms, "total": total}


def _soft_maximum(x_BK: Tensor) -> Tensor:
    return torch.logsumexp(x_BK, dim=1) - math.log(x_BK.shape[1])


@contextmanager
def gate_session(net: CryNet, cfg: GateConfig, seed: int) -> Iterator[None]:
    """Gradients for the gate's parameters alone, adapters off, a fixed thread count and seed; all put back at the end."""
    before = torch.get_num_threads()
    torch.set_num_threads(cfg.threads)
    train_only(net, cfg.trained)
    net.train(net.cfg.dropout > 0)
    convolutions = (net.denoiser, net.tokenizer)
    for part in convolutions:
        _lay_out(part, torch.channels_last)  # a tenth faster per step on a CPU
    try:
        with adapters_off(net), torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed("gate masks", seed))
            yield
    finally:
        torch.set_num_threads(before)
        for part in convolutions:
            _lay_out(part, torch.contiguous_format)
        net.requires_grad_(False)
        net.eval()


def _lay_out(part: nn.Module, layout: torch.memory_format) -> None:
    """Lay the weights of convolutions out in memory; their values and shapes stay."""
    for p in part.parameters():
        if p.ndim == 4:
            p.data = p.data.contiguous(memory_format=layout)
