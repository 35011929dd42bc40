"""The cry gate learns from recordings: the whole network but its front end and adapters, centrally or over sites.

The adapters of the federated job learn on frozen tokens; that is enough for what separates the reasons, and not for the gate on
real phones, whose sound the synthetic pretraining has never met. Here tokenizer, backbone and gate head learn from augmented
log-mel (`models.gate_batches`), beginning from the pretrained network. What a site returns is the change of these parameters.

Locally AdamW (arXiv 1711.05101), its moments kept at the site from round to round, and the server averages: with as few local
steps as here the sites hardly drift apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from models.adapters import Vector, adapters_off
from models.denoiser import denoising_loss
from models.errors import ConfigError, DataError
from models.gate_batches import Batch, GateBatches
from models.network import CryNet
from models.seeds import derive_seed

OnStep = Callable[[int, int, float], None]
"""Told the step (from 1), of how many, and the mean loss since the last call."""


@dataclass(frozen=True)
class GateConfig:
    """How the gate is trained. Plain numbers only: it travels as JSON."""

    steps: int = 450  # central; a federation takes rounds × local_steps at every site
    batch_size: int = 20  # recordings, of `frames_per_clip` frames each
    rounds: int = 25
    local_steps: int = 8
    local_batch_size: int = 6
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

    def rate(self, done: float) -> float:
        """The learning rate when a share `done` of the training is over: linear warm-up, then a half cosine to zero."""
        if done < self.warmup:
            return self.lr * done / self.warmup
        return self.lr * 0.5 * (1.0 + math.cos(math.pi * (done - self.warmup) / (1.0 - self.warmup)))


def gate_parameters(net: CryNet, cfg: GateConfig) -> list[nn.Parameter]:
    """What learns, in module order: tokenizer, backbone, heads, and the denoiser where its loss has a weight."""
    parts: list[nn.Module] = [net.tokenizer, net.transformer, net.gate_head, net.reason_head]
    if cfg.denoising_weight > 0:
        parts = [net.denoiser, *parts]
    return [p for part in parts for name, p in part.named_parameters() if "lora_" not in name]


def gate_vector(net: CryNet, cfg: GateConfig) -> Vector:
    """These parameters as one float32 vector (P,): what travels."""
    return torch.cat([p.detach().reshape(-1) for p in gate_parameters(net, cfg)]).numpy()


def set_gate_vector(net: CryNet, cfg: GateConfig, vector: Vector) -> None:
    """Inverse of `gate_vector`.

    Raises:
        DataError: another length, or a value that is not finite.
    """
    parameters = gate_parameters(net, cfg)
    size = sum(p.numel() for p in parameters)
    if vector.shape != (size,) or not np.isfinite(vector).all():
        raise DataError(
            f"the gate's vector has {vector.size} values, {size} finite ones are needed: is it of another preset?"
        )
    at = 0
    with torch.no_grad():
        for p in parameters:
            p.copy_(torch.from_numpy(vector[at : at + p.numel()]).view_as(p))
            at += p.numel()


def train_gate(
    net: CryNet, batches: GateBatches, cfg: GateConfig, seed: int = 0, on_step: OnStep | None = None
) -> None:
    """Train in place on all frames in one place: the central twin.

    Raises:
        DataError: a loss is not finite.
    """
    learner = _Learner(net, batches, cfg, derive_seed("gate", seed, "central"), cfg.batch_size)
    every = max(1, cfg.steps // 20)
    total = 0.0
    with _session(net, cfg, seed):
        for step in range(1, cfg.steps + 1):
            total += learner.step(cfg.rate(step / cfg.steps))
            if on_step is not None and (step % every == 0 or step == cfg.steps):
                on_step(step, cfg.steps, total / (step % every or every))
                total = 0.0


def train_gate_federated(
    net: CryNet,
    sites: Mapping[str, GateBatches],
    cfg: GateConfig,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> None:
    """Train in place over sites, each drawing from its own frames alone; the server sees the mean of their changes.

    The mean is uniform, as in the federated job: weights would tell how many recordings a site has, and a masked sum is all that
    a secure aggregation gives.

    Raises:
        DataError: a loss is not finite.
    """
    names = sorted(sites)
    learners = {
        name: _Learner(net, sites[name], cfg, derive_seed("gate", seed, name), cfg.local_batch_size)
        for name in names
    }
    theta = gate_vector(net, cfg)
    with _session(net, cfg, seed):
        for number in range(1, cfg.rounds + 1):
            change = np.zeros(theta.shape, np.float64)
            loss = 0.0
            for name in names:
                set_gate_vector(net, cfg, theta)
                for k in range(1, cfg.local_steps + 1):
                    done = ((number - 1) * cfg.local_steps + k) / (cfg.rounds * cfg.local_steps)
                    loss += learners[name].step(cfg.rate(done))
                change += gate_vector(net, cfg).astype(np.float64) - theta
            theta = (theta + change / len(names)).astype(np.float32)
            if on_step is not None:
                on_step(number, cfg.rounds, loss / (len(names) * cfg.local_steps))
    set_gate_vector(net, cfg, theta)


class _Learner:
    """One place that learns: its batches, and its optimiser with its moments."""

    def __init__(
        self, net: CryNet, batches: GateBatches, cfg: GateConfig, seed: int, batch_size: int
    ) -> None:
        self._net, self._batches, self._cfg, self._size = net, batches, cfg, batch_size
        self._rng = np.random.Generator(np.random.PCG64(seed))
        self._parameters = gate_parameters(net, cfg)
        decayed = [p for p in self._parameters if p.ndim >= 2]
        rest = [p for p in self._parameters if p.ndim < 2]
        self._optimiser = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": cfg.weight_decay}, {"params": rest, "weight_decay": 0.0}],
            lr=cfg.lr, betas=(0.9, 0.98), fused=True,
        )  # fmt: skip

    def step(self, lr: float) -> float:
        """One step at a learning rate; its loss."""
        loss = self._loss(self._batches.draw(self._rng, self._size))
        if not bool(torch.isfinite(loss)):
            raise DataError("gate training diverged: lower lr, or check the frames for NaN")
        self._optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self._parameters, self._cfg.grad_clip)
        for group in self._optimiser.param_groups:
            group["lr"] = lr
        self._optimiser.step()
        return loss.item()

    def _loss(self, batch: Batch) -> Tensor:
        net, cfg = self._net, self._cfg
        denoised = net.denoiser(batch.x)
        out, clips = net.classify(net.tokenizer(denoised)), len(batch.cry)
        # a recording's scores from its frames', as `models.predict` pools them
        gate = _soft_maximum(out.gate_logit.reshape(clips, -1))
        energy = -_soft_maximum(-out.energy.reshape(clips, -1))
        reasons = out.reason_logits.reshape(clips, -1, len(net.reasons)).mean(dim=1)
        loss = nn.functional.binary_cross_entropy_with_logits(gate, batch.cry)
        known = batch.reason.sum().clamp_min(1.0)
        loss = loss - cfg.reason_weight * (batch.reason * torch.log_softmax(reasons, dim=1)).sum() / known
        # a mixture of a cry and another sound is asked to lie on both sides in its shares
        inside = batch.cry * torch.relu(energy - cfg.energy_in).square()
        outside = (1.0 - batch.cry) * torch.relu(cfg.energy_out - energy).square()
        loss = loss + cfg.energy_weight * 2.0 * (inside + outside).mean()
        if cfg.denoising_weight > 0:
            loss = loss + cfg.denoising_weight * denoising_loss(
                denoised, batch.clean, cfg.lambda_t, cfg.lambda_f
            )
        return loss


def _soft_maximum(x_BK: Tensor) -> Tensor:
    return torch.logsumexp(x_BK, dim=1) - math.log(x_BK.shape[1])


@contextmanager
def _session(net: CryNet, cfg: GateConfig, seed: int) -> Iterator[None]:
    """Gradients for the gate's parameters alone, adapters off, a fixed thread count and seed; all put back at the end."""
    before = torch.get_num_threads()
    torch.set_num_threads(cfg.threads)
    net.requires_grad_(False)
    for p in gate_parameters(net, cfg):
        p.requires_grad_(True)
    net.train(net.cfg.dropout > 0)
    try:
        with adapters_off(net), torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed("gate masks", seed))
            yield
    finally:
        torch.set_num_threads(before)
        net.requires_grad_(False)
        net.eval()
