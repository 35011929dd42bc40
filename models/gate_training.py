"""The cry gate learns from recordings: the whole network but its front end and adapters, centrally or over sites.

The adapters of the federated job learn on frozen tokens; that is enough for what separates the reasons, and not for the gate on
real phones, whose sound the synthetic pretraining has never met. Here tokenizer, backbone and gate head learn from augmented
log-mel (`models.gate_batches`), beginning from the pretrained network. What a site returns is the change of these parameters.

Locally AdamW (arXiv 1711.05101), its moments kept at the site from round to round; the server moves by Nesterov's momentum of the
mean change (arXiv 2311.08105), which makes up for what averaging takes from the length of the step. With as few local steps as
here the sites hardly drift apart. Changes are sent in eight bits (`models.quantise`), and only their sum is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.adapters import Vector, adapters_off
from models.denoiser import denoising_loss
from models.errors import ConfigError, DataError
from models.gate_batches import Batch, GateBatches
from models.network import CryNet
from models.quantise import Quantiser, QuantiserConfig, next_clip
from models.ring import packed_bytes, ring_bits
from models.rotation import padded_size
from models.seeds import derive_seed, rotation_seed

OnStep = Callable[[int, int, float], None]
"""Told the step (from 1), of how many, and the mean loss since the last call."""


@dataclass(frozen=True)
class GateConfig:
    """How the gate is trained. Plain numbers only: it travels as JSON."""

    steps: int = 360  # central; a federation takes rounds × local_steps at every site
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
    server_lr: float = 0.7
    server_momentum: float = 0.7
    codec: QuantiserConfig | None = field(  # None sends float32
        default_factory=lambda: QuantiserConfig(bits=8, clip=6.0, adaptive_quantile=0.8)
    )
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
        if self.server_lr <= 0 or not 0 <= self.server_momentum < 1:
            raise ConfigError("gate training needs server_lr > 0 and 0 ≤ server_momentum < 1")
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
    velocity = np.zeros(theta.shape, np.float64)
    clip = cfg.codec.clip if cfg.codec else 0.0
    with _session(net, cfg, seed):
        for number in range(1, cfg.rounds + 1):
            codec = _Sum(theta.size, len(names), cfg.codec, clip, seed, number)
            loss = 0.0
            for name in names:
                set_gate_vector(net, cfg, theta)
                for k in range(1, cfg.local_steps + 1):
                    done = ((number - 1) * cfg.local_steps + k) / (cfg.rounds * cfg.local_steps)
                    loss += learners[name].step(cfg.rate(done))
                codec.add(name, gate_vector(net, cfg).astype(np.float64) - theta)
            mean, clip = codec.mean(), codec.next_clip()
            theta, velocity = nesterov(theta, velocity, mean, cfg)
            if on_step is not None:
                on_step(number, cfg.rounds, loss / (len(names) * cfg.local_steps))
    set_gate_vector(net, cfg, theta)


def nesterov(
    theta: Vector, velocity: npt.NDArray[np.float64], mean: npt.NDArray[np.float64], cfg: GateConfig
) -> tuple[Vector, npt.NDArray[np.float64]]:
    """The server's step: v⁺ = ρ v + m and θ⁺ = θ + η (m + ρ v⁺), for the sites' mean change m (P,)."""
    velocity = cfg.server_momentum * velocity + mean
    theta = (theta + cfg.server_lr * (mean + cfg.server_momentum * velocity)).astype(np.float32)
    return theta, velocity


def upload_bytes(net: CryNet, cfg: GateConfig, sites: int) -> int:
    """What one site uploads in a round: float32, or levels packed in the ring that the sum over `sites` needs."""
    size = gate_vector(net, cfg).size
    if cfg.codec is None:
        return 4 * size
    return packed_bytes(padded_size(size), ring_bits(2**cfg.codec.bits - 2, sites))


class _Sum:
    """The sum of a round's changes as it travels: of levels in the ring where there is a codec, else of float32."""

    def __init__(
        self, size: int, sites: int, codec: QuantiserConfig | None, clip: float, seed: int, number: int
    ) -> None:
        self._codec, self._clip, self._sites, self._inside = codec, clip, sites, 0
        self._where = (seed, number)
        self._quantiser = Quantiser(size, codec, rotation_seed(seed, number), clip) if codec else None
        padded = self._quantiser.padded if self._quantiser else size
        self._levels, self._total = np.zeros(padded, np.uint32), np.zeros(size, np.float64)

    def add(self, name: str, change: npt.NDArray[np.float64]) -> None:
        if self._quantiser is None:
            self._total += change.astype(np.float32)
            return
        clipped, inside = self._quantiser.clip_norm(change)
        rng = np.random.Generator(np.random.PCG64(derive_seed("gate rounding", *self._where, name)))
        self._levels += self._quantiser.encode(clipped, rng).levels
        self._inside += inside

    def mean(self) -> npt.NDArray[np.float64]:
        if self._quantiser is None:
            return self._total / self._sites
        return self._quantiser.decode_sum(self._levels, self._sites) / self._sites

    def next_clip(self) -> float:
        return (
            self._clip
            if self._codec is None
            else next_clip(self._clip, self._inside, self._sites, self._codec)
        )


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
    convolutions = (net.denoiser, net.tokenizer)
    for part in convolutions:  # a tenth faster per step on a CPU
        part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        with adapters_off(net), torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed("gate masks", seed))
            yield
    finally:
        torch.set_num_threads(before)
        for part in convolutions:
            part.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        net.requires_grad_(False)
        net.eval()
