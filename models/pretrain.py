"""Pretraining on public and synthetic audio: first the denoiser, then tokenizer and backbone. Both are frozen afterwards.

The backbone learns what any listener of cries needs and no label of a site: whether a frame is a cry, and the *attributes* of its
melody (pitch slope, tremor, onset …), which the synthesiser knows. The reason of a cry is left to the federation.
Noise is mixed in anew at every step (`models.augment.mix_log_mel`). The thread count is part of the configuration, because
floating-point sums depend on it: equal inputs give equal bits on the same kind of machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.adapters import LoraLinear, adapters_off
from models.augment import mask_bands, mix_log_mel
from models.denoiser import denoising_loss
from models.errors import ConfigError, DataError
from models.network import CryNet
from models.optimiser import adamw


@dataclass(frozen=True)
class PretrainSet:
    """Frames of the public pool, and noise to mix in.

    `log_mel` float16 (N, M, F); `gate` int8 (N,) 1 cry, 0 not; `attributes` float32 (N, K), NaN where unknown (all non-cries);
    `noise` float16 (n, M, F), log-mel of noise-only frames.
    """

    log_mel: npt.NDArray[np.float16]
    gate: npt.NDArray[np.int8]
    attributes: npt.NDArray[np.float32]
    noise: npt.NDArray[np.float16]


@dataclass(frozen=True)
class Progress:
    """Where a training loop stands, with mean losses since the last report."""

    stage: str
    step: int
    steps: int
    losses: dict[str, float]


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class DenoiserConfig:
    """How the denoiser is trained."""

    steps: int = 300
    batch_size: int = 48
    lr: float = 3e-3
    lambda_t: float = 0.5
    lambda_f: float = 0.5
    snr_low: float = -5.0
    snr_high: float = 20.0
    clean_share: float = 0.2  # frames without noise: the denoiser must leave those alone
    mask_rows: int = 8
    mask_steps: int = 8
    seed: int = 0
    threads: int = 1  # a second one gains a fifth on an idle machine, and costs a factor on a busy one


@dataclass(frozen=True)
class BackboneConfig:
    """How tokenizer, backbone and gate head are trained."""

    steps: int = 1300
    batch_size: int = 32
    lr: float = 2e-3
    weight_decay: float = 0.05
    warmup: float = 0.08  # share of the steps
    attribute_weight: float = 1.0
    snr_low: float = -5.0
    snr_high: float = 20.0
    clean_share: float = 0.3
    noise_ramp: float = 0.4  # share of the steps over which the lowest SNR sinks from `snr_high` to `snr_low`
    noise_share: float = 0.1  # frames replaced by noise alone, as further non-cries
    cry_share: float = 0.7  # attributes are learned from cries only
    mask_rows: int = 6
    mask_steps: int = 0  # a masked stretch would hide what the attributes describe
    grad_clip: float = 1.0
    seed: int = 0
    threads: int = 1  # a second one gains a fifth on an idle machine, and costs a factor on a busy one


def pretrain_denoiser(
    net: CryNet, data: PretrainSet, cfg: DenoiserConfig | None = None, on_progress: OnProgress | None = None
) -> dict[str, float]:
    """Train `net.denoiser` in place to return the signal from noise and masked bands.

    Returns:
        The losses of the last tenth of the steps.

    Raises:
        ConfigError: a setting is out of range.
        DataError: the data does not fit the network, or training diverged.
    """
    cfg = cfg or DenoiserConfig()
    _check(net, data, cfg.steps, cfg.batch_size)
    mel = net.cfg.log_mel
    parameters = list(net.denoiser.parameters())
    rng = np.random.Generator(np.random.PCG64(cfg.seed))

    def loss(_step: int) -> dict[str, Tensor]:
        clean = _rows(data.log_mel, rng.integers(0, len(data.log_mel), cfg.batch_size))
        noise = _rows(data.noise, rng.integers(0, len(data.noise), cfg.batch_size))
        mixed, target = mix_log_mel(
            clean, noise, _snr(rng, cfg.batch_size, cfg.snr_low, cfg.snr_high, cfg.clean_share), mel
        )
        x = mask_bands(
            net.standardise(mixed), max_rows=cfg.mask_rows, max_steps=cfg.mask_steps, value=_floor(net)
        )
        return {"total": denoising_loss(net.denoiser(x), net.standardise(target), cfg.lambda_t, cfg.lambda_f)}

    with _session(net, parameters, cfg.seed, cfg.threads):
        return _train("denoiser", parameters, loss, cfg.steps, cfg.lr, 0.0, 0.05, 1.0, on_progress)


def pretrain_backbone(
    net: CryNet, data: PretrainSet, cfg: BackboneConfig | None = None, on_progress: OnProgress | None = None
) -> dict[str, float]:
    """Train `net.tokenizer`, the backbone and the gate head in place, on gate and attributes; the denoiser stays as it is.

    Adapters and reason head are not touched, and the head that predicts the attributes is thrown away.

    Returns:
        The losses of the last tenth of the steps: `gate`, and `attributes` as mean squared error in standard deviations.

    Raises:
        ConfigError: a setting is out of range.
        DataError: the data does not fit the network, no cry has attributes, or training diverged.
    """
    cfg = cfg or BackboneConfig()
    _check(net, data, cfg.steps, cfg.batch_size)
    mel = net.cfg.log_mel
    cries = np.flatnonzero((data.gate == 1) & np.isfinite(data.attributes).all(axis=1))
    others = np.flatnonzero(data.gate == 0)
    if len(cries) == 0 or len(others) == 0:
        raise DataError(
            "backbone pretraining needs cries with attributes and non-cries: is this the public pool?"
        )
    known = data.attributes[cries].astype(np.float64)
    mean, std = known.mean(axis=0), np.maximum(known.std(axis=0), 1e-6)
    targets = np.zeros(data.attributes.shape, dtype=np.float32)
    targets[cries] = ((known - mean) / std).astype(np.float32)
    rng = np.random.Generator(np.random.PCG64(cfg.seed))
    n_cry = max(1, round(cfg.cry_share * cfg.batch_size))
    n_noise = round(cfg.noise_share * cfg.batch_size)
    n_other = max(1, cfg.batch_size - n_cry - n_noise)

    def loss(step: int) -> dict[str, Tensor]:
        rows = np.concatenate(
            [cries[rng.integers(0, len(cries), n_cry)], others[rng.integers(0, len(others), n_other)]]
        )
        noise = _rows(data.noise, rng.integers(0, len(data.noise), len(rows)))
        snr = _snr(rng, len(rows), lowest_snr(step, cfg), cfg.snr_high, cfg.clean_share)
        mixed, _ = mix_log_mel(_rows(data.log_mel, rows), noise, snr, mel)
        alone = _rows(data.noise, rng.integers(0, len(data.noise), n_noise))
        x = net.standardise(torch.cat([mixed, alone]))
        x = mask_bands(x, max_rows=cfg.mask_rows, max_steps=cfg.mask_steps, value=_floor(net))
        with torch.no_grad():
            x = net.denoiser(x)
        pooled = net.features(net.tokenizer(x))
        is_cry = torch.zeros(len(pooled))
        is_cry[:n_cry] = 1.0
        gate = nn.functional.binary_cross_entropy_with_logits(net.gate_head(pooled).squeeze(1), is_cry)
        wanted = torch.from_numpy(targets[rows[:n_cry]])
        attributes = nn.functional.mse_loss(attribute_head(pooled[:n_cry]), wanted)
        return {"total": gate + cfg.attribute_weight * attributes, "gate": gate, "attributes": attributes}

    backbone = [*net.tokenizer.parameters(), *_without_adapters(net.transformer), *net.gate_head.parameters()]
    with adapters_off(net), _session(net, backbone, cfg.seed, cfg.threads):
        attribute_head = nn.Linear(net.cfg.d_model, int(data.attributes.shape[1]))
        return _train(
            "backbone",
            [*backbone, *attribute_head.parameters()],
            loss,
            cfg.steps,
            cfg.lr,
            cfg.weight_decay,
            cfg.warmup,
            cfg.grad_clip,
            on_progress,
        )


def lowest_snr(step: int, cfg: BackboneConfig) -> float:
    """The lowest SNR in dB drawn at a step (from 1): noise that grows lets the melody be found before it is drowned."""
    depth = min(1.0, step / max(1.0, cfg.noise_ramp * cfg.steps))
    return cfg.snr_high + depth * (cfg.snr_low - cfg.snr_high)


def _check(net: CryNet, data: PretrainSet, steps: int, batch_size: int) -> None:
    if steps < 1 or batch_size < 4:
        raise ConfigError(f"pretraining needs steps ≥ 1 and batch_size ≥ 4, got {steps} and {batch_size}")
    shape = (net.cfg.log_mel.n_mels, net.cfg.log_mel.n_frames)
    for name, frames in (("log_mel", data.log_mel), ("noise", data.noise)):
        if frames.ndim != 3 or frames.shape[1:] != shape or len(frames) == 0:
            raise DataError(
                f"pretraining: {name} is {frames.shape}, the network takes (N ≥ 1, {shape[0]}, {shape[1]})"
            )
    if not len(data.log_mel) == len(data.gate) == len(data.attributes):
        raise DataError("pretraining: log_mel, gate and attributes have different lengths")


def _rows(frames: npt.NDArray[np.float16], rows: npt.NDArray[np.int64]) -> Tensor:
    return torch.from_numpy(frames[rows].astype(np.float32))


def _snr(rng: np.random.Generator, n: int, low: float, high: float, clean_share: float) -> Tensor:
    snr = rng.uniform(low, high, n)
    snr[rng.random(n) < clean_share] = np.inf
    return torch.from_numpy(snr.astype(np.float32))


def _floor(net: CryNet) -> float:
    mel = net.cfg.log_mel
    return (math.log(mel.floor) - mel.mean) / mel.std


def _without_adapters(module: nn.Module) -> list[nn.Parameter]:
    adapters = {id(p) for m in module.modules() if isinstance(m, LoraLinear) for p in (m.lora_a, m.lora_b)}
    return [p for p in module.parameters() if id(p) not in adapters]


@contextmanager
def _session(net: CryNet, parameters: list[nn.Parameter], seed: int, threads: int) -> Iterator[None]:
    """Gradients for `parameters` alone, a fixed thread count and a seed of its own; all put back at the end."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    net.requires_grad_(False)
    for p in parameters:
        p.requires_grad_(True)
    net.train(net.cfg.dropout > 0)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)
        net.requires_grad_(False)
        net.eval()


def _train(
    stage: str,
    parameters: list[nn.Parameter],
    loss: Callable[[int], dict[str, Tensor]],
    steps: int,
    lr: float,
    weight_decay: float,
    warmup: float,
    grad_clip: float,
    on_progress: OnProgress | None,
) -> dict[str, float]:
    """AdamW with linear warm-up and cosine decay to zero."""
    optimiser = adamw(parameters, lr, weight_decay)
    ramp = max(1, round(warmup * steps))
    every = max(1, steps // 10)
    sums: dict[str, float] = {}
    last: dict[str, float] = {}
    for step in range(1, steps + 1):
        rate = min(step / ramp, 0.5 * (1.0 + math.cos(math.pi * max(0, step - ramp) / max(1, steps - ramp))))
        for group in optimiser.param_groups:
            group["lr"] = lr * rate
        terms = loss(step)
        if not bool(torch.isfinite(terms["total"])):
            raise DataError(
                f"{stage} pretraining diverged at step {step} of {steps}: lower lr, or check the frames for NaN"
            )
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(terms["total"])
        nn.utils.clip_grad_norm_(parameters, grad_clip)
        optimiser.step()
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + value.item()
        if step % every == 0 or step == steps:
            count = every if step % every == 0 else steps % every
            last = {name: value / count for name, value in sums.items()}
            sums = {}
            if on_progress is not None:
                on_progress(Progress(stage, step, steps, last))
    return last
