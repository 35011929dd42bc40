"""One site's share of a round: a pure function from θ and the site's tokens to Δ = θ − y.

    y ← y − η · v,   v ← ρ v + g,   g = ∇L(y) + (c − c_i) + μ (y − θ)

L = gate cross-entropy + reason cross-entropy (cries) + energy margins (outlier exposure, arXiv 2010.03759, equation 8). The
proximal term is FedProx (arXiv 1812.06127); `control` = c − c_i is SCAFFOLD's correction (arXiv 1910.06378), zero when absent.
Plain SGD, because local Adam is biased under control variates (adaptivity belongs to the server). One thread and seeded draws:
equal inputs give equal bits in any process on the same kind of machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.adapters import (
    Vector,
    adapter_schema,
    get_vector,
    set_vector,
    train_only,
    trained_parameters,
)
from models.config import ModelConfig
from models.errors import ConfigError, DataError, UpdateRejected
from models.frames import TRAIN, SiteFrames
from models.network import CryNet, Outputs
from models.threads import one_thread


@dataclass(frozen=True)
class LocalConfig:
    """Plain numbers only: it travels as JSON and its digest is part of every message."""

    steps: int = 15
    batch_size: int = 48
    lr: float = 0.2
    momentum: float = 0.9
    prox_mu: float = 0.01
    grad_clip: float = 1.0  # norm of ∇L, before the control and proximal terms; 0 turns it off
    gate_weight: float = 1.0
    reason_weight: float = 1.0
    energy_weight: float = 0.02
    energy_in: float = -5.0  # cries should lie below, in the unit of the logits
    energy_out: float = -2.0  # non-cries above; five equal logits of zero give −1.6
    label_smoothing: float = 0.05

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 2:
            raise ConfigError(
                f"a local step needs steps ≥ 1 and batch_size ≥ 2, got {self.steps} and {self.batch_size}"
            )
        if self.lr <= 0 or not 0 <= self.momentum < 1 or self.prox_mu < 0:
            raise ConfigError(
                f"a local step needs lr > 0, 0 ≤ momentum < 1 and prox_mu ≥ 0, got {self.lr}, {self.momentum}, {self.prox_mu}"
            )


@dataclass(frozen=True)
class TokenSet:
    """What a site trains on: the frozen part of the network's output, once per frame.

    `tokens` float16 or float32 (N, L, D); `gate` int8 (N,) 1 cry, 0 not, −1 left out; `reason` int16 (N,), −1 none;
    `weight` float32 (N,) relative chance of being drawn within its class.
    """

    tokens: npt.NDArray[np.floating]
    gate: npt.NDArray[np.int8]
    reason: npt.NDArray[np.int16]
    weight: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.gate)

    def select(self, rows: npt.NDArray[np.intp]) -> TokenSet:
        """The rows of an index."""
        return TokenSet(self.tokens[rows], self.gate[rows], self.reason[rows], self.weight[rows])


@dataclass(frozen=True)
class LocalResult:
    """Δ = θ − y (P,) float32; A = Σ a_k of the steps taken (FedNova's normaliser); mean losses over the steps."""

    delta: Vector
    normaliser: float
    losses: dict[str, float]
    steps: int


def select_tokens(tokens: npt.NDArray[np.floating], frames: SiteFrames, part: int = TRAIN) -> TokenSet:
    """The frames of one part with a known gate label; every clip weighs the same however many frames and views it has.

    Args:
        tokens: (N, L, D), one row per row of `frames`.
        frames: the site's frames.
        part: TRAIN, VAL or TEST.

    Raises:
        DataError: tokens and frames have different lengths, or the part holds no labelled frame.
    """
    if len(tokens) != len(frames.clip):
        raise DataError(
            f"site {frames.site!r}: {len(tokens)} token rows for {len(frames.clip)} frames; cache is stale?"
        )
    clip = frames.clip
    rows = np.flatnonzero((frames.part[clip] == part) & (frames.gate[clip] >= 0))
    if len(rows) == 0:
        raise DataError(f"site {frames.site!r} has no labelled frame in part {part}: it cannot take part")
    chosen = clip[rows]
    count = np.bincount(chosen, minlength=len(frames.gate))
    return TokenSet(
        np.ascontiguousarray(tokens[rows]),
        frames.gate[chosen].astype(np.int8),
        frames.reason[chosen].astype(np.int16),
        (1.0 / count[chosen]).astype(np.float32),
    )


def pool_tokens(sets: Sequence[TokenSet]) -> TokenSet:
    """All sites' tokens in one set: for the centrally trained twin only."""
    return TokenSet(
        np.concatenate([s.tokens for s in sets]),
        np.concatenate([s.gate for s in sets]),
        np.concatenate([s.reason for s in sets]),
        np.concatenate([s.weight for s in sets]),
    )


def draw_chances(data: TokenSet) -> npt.NDArray[np.float64]:
    """Chance of each frame (N,), summing to 1: half cries, half not, and the cries' half shared equally by the reasons present.

    Balancing by drawing instead of weighting keeps every batch, and so every gradient, at the same scale.
    """
    kind = np.where(
        data.gate == 1, 1 + data.reason.astype(np.int64), -1
    )  # −1 not a cry, 0 cry without reason
    chances = data.weight.astype(np.float64) * (data.gate >= 0)
    present = [k for k in np.unique(kind) if chances[kind == k].sum() > 0]
    cries = [k for k in present if k >= 0]
    for k in present:
        share = 1.0 if k < 0 else 1.0 / len(cries)
        chances[kind == k] *= share / chances[kind == k].sum()
    return chances / chances.sum()


def losses(out: Outputs, gate_B: Tensor, reason_B: Tensor, cfg: LocalConfig) -> dict[str, Tensor]:
    """Unweighted loss terms of a batch; a term with nothing to see is zero.

    `gate` binary cross-entropy; `reason` cross-entropy over cries with a reason; `energy` squared hinge, cries below
    `energy_in`, non-cries above `energy_out`.
    """
    target = gate_B.to(out.gate_logit.dtype)
    gate = nn.functional.binary_cross_entropy_with_logits(out.gate_logit, target)
    known = reason_B >= 0
    zero = out.gate_logit.new_zeros(())
    reason = zero
    if bool(known.any()):
        reason = nn.functional.cross_entropy(
            out.reason_logits[known], reason_B[known], label_smoothing=cfg.label_smoothing
        )
    cry = gate_B == 1
    inside = torch.relu(out.energy[cry] - cfg.energy_in).square()
    outside = torch.relu(cfg.energy_out - out.energy[~cry]).square()
    energy = (inside.mean() if len(inside) else zero) + (outside.mean() if len(outside) else zero)
    return {"gate": gate, "reason": reason, "energy": energy}


def normaliser(steps: int, lr: float, momentum: float) -> float:
    """A = η Σ_k (1 − ρ^(K−k)) / (1 − ρ), k = 0 … K−1: what K steps along a constant gradient move (arXiv 2007.07481)."""
    return lr * sum((1.0 - momentum ** (steps - k)) / (1.0 - momentum) for k in range(steps))


def local_step(
    net: CryNet, data: TokenSet, theta: Vector, cfg: LocalConfig, seed: int, control: Vector | None = None
) -> LocalResult:
    """K steps of SGD from θ on one site's tokens.

    Args:
        net: the pretrained network; its adapters and heads are scratch space and hold θ again afterwards.
        data: the site's training tokens.
        theta: (P,) float32, the global adapters and heads.
        cfg: steps, rates, weights.
        seed: decides the batches; see `models.seeds.local_seed`.
        control: c − c_i (P,) float32, or None.

    Raises:
        FederationError: `theta` or `control` does not fit the network.
        DataError: the tokens do not fit the network.
        UpdateRejected: a loss or the result is not finite; the site sends nothing.
    """
    schema = adapter_schema(net)
    _check_tokens(data, net.cfg, len(net.reasons))
    if control is not None:
        schema.check(control, "control variate")
    set_vector(net, theta)
    train_only(net)
    net.train(net.cfg.dropout > 0)
    rng = np.random.Generator(np.random.PCG64(seed))
    batches = rng.choice(len(data), size=(cfg.steps, cfg.batch_size), p=draw_chances(data))
    try:
        with one_thread(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            totals = _descend(net, data, torch.from_numpy(theta.copy()), cfg, batches, control)
        y = get_vector(net)
    finally:
        set_vector(net, theta)
        net.eval()
    delta = theta - y
    if not np.isfinite(delta).all():
        raise UpdateRejected(
            "the local update is not finite: lower lr, or set grad_clip; the site sends nothing"
        )
    return LocalResult(delta, normaliser(cfg.steps, cfg.lr, cfg.momentum), totals, cfg.steps)


def _check_tokens(data: TokenSet, cfg: ModelConfig, n_reasons: int) -> None:
    shape = (len(data), cfg.n_tokens, cfg.d_model)
    if data.tokens.shape != shape:
        raise DataError(
            f"tokens are {data.tokens.shape}, the network takes {shape}: the cache is of another network"
        )
    if len(data) == 0 or int(data.reason.max()) >= n_reasons:
        raise DataError(f"training needs at least one frame, with reasons below {n_reasons}")


def _descend(
    net: CryNet,
    data: TokenSet,
    theta: Tensor,
    cfg: LocalConfig,
    batches: npt.NDArray[np.int64],
    control: Vector | None,
) -> dict[str, float]:
    parameters = [p for _, p in trained_parameters(net)]
    weights = {"gate": cfg.gate_weight, "reason": cfg.reason_weight, "energy": cfg.energy_weight}
    totals = dict.fromkeys(("total", *weights), 0.0)
    correction = None if control is None else torch.from_numpy(control.copy())
    y = theta.clone()
    velocity = torch.zeros_like(y)
    for rows in batches:
        tokens = torch.from_numpy(data.tokens[rows].astype(np.float32))
        terms = losses(
            net.classify(tokens),
            torch.from_numpy(data.gate[rows]),
            torch.from_numpy(data.reason[rows].astype(np.int64)),
            cfg,
        )
        total = sum((weights[name] * term for name, term in terms.items()), theta.new_zeros(()))
        if not bool(torch.isfinite(total)):
            raise UpdateRejected(
                "a local loss is not finite: lower lr, or set grad_clip; the site sends nothing"
            )
        gradients = torch.autograd.grad(total, parameters, allow_unused=True, materialize_grads=True)
        g = torch.cat([x.reshape(-1) for x in gradients])
        if cfg.grad_clip > 0:
            g *= torch.clamp(cfg.grad_clip / (torch.linalg.vector_norm(g) + 1e-12), max=1.0)
        if correction is not None:
            g += correction
        if cfg.prox_mu > 0:
            g += cfg.prox_mu * (y - theta)
        velocity.mul_(cfg.momentum).add_(g)
        y.sub_(velocity, alpha=cfg.lr)
        with torch.no_grad():
            offset = 0
            for p in parameters:
                p.copy_(y[offset : offset + p.numel()].view_as(p))
                offset += p.numel()
        for name, value in {"total": total, **terms}.items():
            totals[name] += value.item() / len(batches)
    return totals
