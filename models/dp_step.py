"""A site's share of a round with differential privacy for its infants: DP-SGD (arXiv 1607.00133) in place of `local_step`.

    G = Σ_{j ∈ batch} clip_S(∇L_j(y)) + N(0, σ²S² I)      g = G / E|batch| + (c − c_i) + μ (y − θ)
    v ← ρ v + g,   y ← y − η v

The unit is the *infant*, with everything recorded of it (a group of the manifest, whether it holds cries or not). L_j is the loss
of infant j alone, over at most m of its frames, so one infant more or less moves the un-noised sum by at most S in Euclidean norm,
however many frames it has. Each step takes every infant by itself with chance q = batch / infants (Poisson sampling); divided is
by the *expected* number, for the number drawn is private. All K steps of a round are released together, and cost
`infra.federation.privacy.accountant.epsilon(K, q, σ, δ)`.

Post-processing, at no cost: momentum, the proximal term, and the control c − c_i, because c and c_i are made of transmitted d̂ only.
Not covered: n, the number of infants, counts as known; so does everything else that a site reports (its gate's verdict, validation
tallies, calibration). `LocalResult.losses` is empty, because a loss would be one more release of the same infants.

Draws and noise come from the operating system's CSPRNG and never from the run's seed: the server knows that one, could subtract
the noise, and amplification by sampling holds only while the sample is secret. A step cannot be repeated; a site that is asked
again sends the same stored update. Normals are Box–Muller in float64 from 52 random bits: the theorem is about real numbers, and
the low bits of floating-point noise can betray the value below (Mironov 2012; arXiv 2112.05307 for the Gaussian). Rounding to
float32 after K summed steps and to few bits by the codec hides most of that; it is no proof. Tails end at 8.5 standard deviations.

What it costs: drawing infants at random leaves no way to balance a batch by class, as `local_step` does. Within an infant both
sides of the gate weigh half each; across infants nothing is balanced, so frequent reasons weigh more than rare ones.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from models.adapters import AdapterSchema, Vector, adapter_schema, set_vector
from models.errors import ConfigError, DataError, UpdateRejected
from models.local_step import LocalConfig, LocalResult, TokenSet, normaliser, one_thread
from models.network import CryNet, Outputs

Entropy = Callable[[int], bytes]
Rows = npt.NDArray[np.int64]

_CHUNK = 8  # infants whose gradients are held at once


@dataclass(frozen=True)
class PrivacyConfig:
    """Plain numbers only: it travels as JSON."""

    noise_multiplier: (
        float  # σ: standard deviation of the noise in units of `clip`; 0 is no privacy, for experiments
    )
    clip: float = 1.0  # S: largest norm of one infant's gradient
    infants_per_step: int = 16  # expected
    frames_per_infant: int = 16  # m
    delta: float = 1e-4  # has to lie below 1 / infants

    def __post_init__(self) -> None:
        if self.infants_per_step < 1 or self.frames_per_infant < 1:
            raise ConfigError(
                "privacy: infants_per_step and frames_per_infant must be at least 1, "
                f"got {self.infants_per_step} and {self.frames_per_infant}"
            )
        if not 0 < self.delta < 1 or not 0 <= self.noise_multiplier < math.inf or not self.clip > 0:
            raise ConfigError(
                "privacy: 0 < delta < 1, 0 ≤ noise_multiplier and clip > 0 are needed, "
                f"got {self.delta}, {self.noise_multiplier} and {self.clip}"
            )
        if math.isinf(self.clip) and self.noise_multiplier > 0:
            raise ConfigError("privacy: noise is a multiple of clip, so clip must be finite")

    def sampling_rate(self, n_infants: int) -> float:
        """q: the chance of an infant to be in a step.

        Raises:
            ConfigError: δ is no protection among so many infants (δ ≥ 1/n lets one of them be published outright).
        """
        if self.delta * n_infants >= 1:
            raise ConfigError(
                f"privacy: δ={self.delta} promises nothing to {n_infants} infants: choose it below {1 / n_infants:.1e}"
            )
        return min(1.0, self.infants_per_step / n_infants)


@dataclass(frozen=True)
class InfantTokens:
    """Training tokens with the infant of each frame, `infant` integer (N,); `tokens.weight` is not used.

    Raises:
        DataError: different lengths, or no labelled frame.
    """

    tokens: TokenSet
    infant: npt.NDArray[np.integer]

    def __post_init__(self) -> None:
        if self.infant.shape != (len(self.tokens),):
            raise DataError(f"{len(self.tokens)} frames with infants of shape {self.infant.shape}")
        if not self.rows:
            raise DataError("private training needs at least one infant with a labelled frame")

    @cached_property
    def rows(self) -> tuple[Rows, ...]:
        """Rows of the labelled frames of each infant, infants in ascending order; those without any are left out."""
        labelled = np.flatnonzero(self.tokens.gate >= 0)
        order = labelled[np.argsort(self.infant[labelled], kind="stable")]
        starts = np.flatnonzero(np.diff(self.infant[order])) + 1
        return tuple(part for part in np.split(order, starts) if len(part))

    @property
    def names(self) -> npt.NDArray[np.integer]:
        """The infants of `rows`."""
        return np.array([self.infant[part[0]] for part in self.rows])

    def select(self, infants: npt.ArrayLike) -> InfantTokens:
        """The frames of some infants."""
        keep = np.isin(self.infant, infants)
        t = self.tokens
        return InfantTokens(
            TokenSet(t.tokens[keep], t.gate[keep], t.reason[keep], t.weight[keep]), self.infant[keep]
        )


class Noise:
    """Uniforms and normals from a source of random bytes, the operating system's by default."""

    def __init__(self, source: Entropy = os.urandom) -> None:
        self._source = source

    def uniform(self, n: int) -> npt.NDArray[np.float64]:
        """(n,) in the open interval (0, 1), 52 bits each."""
        bits = np.frombuffer(self._source(8 * n), np.uint64) >> np.uint64(12)
        return (bits.astype(np.float64) + 0.5) * 2.0**-52

    def normal(self, n: int) -> npt.NDArray[np.float64]:
        """(n,) standard normals (Box–Muller)."""
        half = (n + 1) // 2
        radius, angle = np.sqrt(-2.0 * np.log(self.uniform(half))), 2.0 * np.pi * self.uniform(half)
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:n]


@dataclass(frozen=True)
class InfantBatch:
    """B infants, padded to m frames: `tokens` float32 (B, m, L, D), `gate` float32 (B, m), `reason` int64 (B, m).

    `share` float32 (B, 3, m): each frame's share among its infant's cries, non-cries, and cries with a reason; every row sums
    to 1, or is 0 where the infant has none. Padding has none.
    """

    tokens: Tensor
    gate: Tensor
    reason: Tensor
    share: Tensor


def gather(data: TokenSet, rows: Sequence[Rows]) -> InfantBatch:
    """The frames of some infants."""
    most = max(len(part) for part in rows)
    tokens = np.zeros((len(rows), most, *data.tokens.shape[1:]), np.float32)
    gate, reason = np.zeros((len(rows), most), np.float32), np.zeros((len(rows), most), np.int64)
    share = np.zeros((len(rows), 3, most), np.float32)
    for i, part in enumerate(rows):
        n, cry = len(part), data.gate[part] == 1
        kinds = np.stack([cry, ~cry, cry & (data.reason[part] >= 0)])
        tokens[i, :n], gate[i, :n] = data.tokens[part], cry
        reason[i, :n] = np.maximum(data.reason[part], 0)
        share[i, :, :n] = kinds / np.maximum(kinds.sum(1, keepdims=True), 1)
    return InfantBatch(*(torch.from_numpy(x) for x in (tokens, gate, reason, share)))


def infant_loss(out: Outputs, gate_m: Tensor, reason_m: Tensor, share_3m: Tensor, cfg: LocalConfig) -> Tensor:
    """L_j: the terms of `local_step.losses` over one infant's frames, each side of the gate at half weight."""
    cry, other, known = share_3m.unbind()
    gate = nn.functional.binary_cross_entropy_with_logits(out.gate_logit, gate_m, reduction="none")
    reason = nn.functional.cross_entropy(
        out.reason_logits, reason_m, reduction="none", label_smoothing=cfg.label_smoothing
    )
    inside = torch.relu(out.energy - cfg.energy_in).square()
    outside = torch.relu(cfg.energy_out - out.energy).square()
    return (
        cfg.gate_weight * 0.5 * ((cry + other) * gate).sum()
        + cfg.reason_weight * (known * reason).sum()
        + cfg.energy_weight * (cry * inside + other * outside).sum()
    )


class PerInfant:
    """Losses and gradients of single infants, the network's adapters and heads taken from a vector (P,)."""

    def __init__(self, net: CryNet, data: TokenSet, cfg: LocalConfig) -> None:
        self._data, self._cfg = data, cfg
        self._schema: AdapterSchema = adapter_schema(net)
        self._module = _Classifier(net)
        self._loss = vmap(self._one, in_dims=(None, 0, 0, 0, 0))
        self._grad = vmap(grad(self._one), in_dims=(None, 0, 0, 0, 0))

    def losses(self, y: Tensor, rows: Sequence[Rows]) -> npt.NDArray[np.float64]:
        """L_j of each infant (n,)."""
        with torch.no_grad():
            parts = [self._loss(self._parameters(y), *_fields(b)).numpy() for b in self._batches(rows)]
        return np.concatenate(parts).astype(np.float64)

    def gradients(self, y: Tensor, rows: Sequence[Rows]) -> Iterator[Vector]:
        """∇L_j (P,) of each infant in turn."""
        for batch in self._batches(rows):
            parameters = self._parameters(y)
            with torch.no_grad():  # whatever of the network still asks for gradients; `grad` has its own say inside
                found: Mapping[str, Tensor] = self._grad(parameters, *_fields(batch))
                flat = torch.cat([found[name].reshape(len(batch.gate), -1) for name in parameters], dim=1)
            yield from flat.numpy()

    def _one(
        self, parameters: dict[str, Tensor], tokens: Tensor, gate: Tensor, reason: Tensor, share: Tensor
    ) -> Tensor:
        out = functional_call(self._module, parameters, (tokens,))
        return infant_loss(out, gate, reason, share, self._cfg)

    def _parameters(self, y: Tensor) -> dict[str, Tensor]:
        return {f"net.{e.name}": y[e.offset : e.offset + e.size].view(e.shape) for e in self._schema.entries}

    def _batches(self, rows: Sequence[Rows]) -> Iterator[InfantBatch]:
        for start in range(0, len(rows), _CHUNK):
            yield gather(self._data, rows[start : start + _CHUNK])


class _Classifier(nn.Module):
    """`functional_call` calls a module's `forward`; training starts behind the tokens."""

    def __init__(self, net: CryNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, tokens: Tensor) -> Outputs:
        return self.net.classify(tokens)


def _fields(batch: InfantBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return batch.tokens, batch.gate, batch.reason, batch.share


def draw_frames(gate: npt.NDArray[np.int8], rows: Rows, most: int, noise: Noise) -> Rows:
    """At most `most` of one infant's rows without replacement, both sides of its gate alike (arXiv 1012.0256, keys log u / w)."""
    if len(rows) <= most:
        return rows
    side = gate[rows].astype(np.int64)
    per_side = np.bincount(side, minlength=2)[side]
    return rows[np.argsort(np.log(noise.uniform(len(rows))) * per_side)[-most:]]


def clipped_sum(gradients: Iterator[Vector], clip: float, size: int) -> npt.NDArray[np.float64]:
    """Σ_j g_j · min(1, S / ‖g_j‖), float64 (size,): one infant moves it by at most S.

    Raises:
        UpdateRejected: a gradient is not finite.
    """
    total = np.zeros(size)
    for gradient in gradients:
        g = gradient.astype(np.float64)
        norm = float(np.sqrt(g @ g))
        if not math.isfinite(norm):
            raise UpdateRejected(
                "an infant's gradient is not finite: lower lr, or look for broken frames; the site sends nothing"
            )
        total += g * min(1.0, clip / max(norm, 1e-300))
    return total


def dp_local_step(
    net: CryNet,
    data: InfantTokens,
    theta: Vector,
    cfg: LocalConfig,
    privacy: PrivacyConfig,
    control: Vector | None = None,
    source: Entropy = os.urandom,
) -> LocalResult:
    """K steps of DP-SGD from θ on one site's infants.

    Args:
        net: the pretrained network; it holds θ afterwards.
        data: the site's training tokens by infant.
        theta: (P,) float32, the global adapters and heads.
        cfg: steps, rates, weights; `batch_size` and `grad_clip` have no meaning here.
        privacy: noise, clipping, sampling.
        control: c − c_i (P,) float32, or None; of transmitted values only.
        source: random bytes; anything but the default is for tests and voids the promise.

    Returns:
        Δ and its normaliser; no losses.

    Raises:
        ConfigError: δ promises nothing to this many infants.
        FederationError: `theta` or `control` does not fit the network.
        DataError: the tokens do not fit the network.
        UpdateRejected: a gradient or the result is not finite; the site sends nothing.
    """
    rate = privacy.sampling_rate(len(data.rows))
    schema = adapter_schema(net)
    check_infants(net, data)
    if control is not None:
        schema.check(control, "control variate")
    set_vector(net, theta)
    net.eval()
    with one_thread():
        y = _descend(net, data, theta, cfg, privacy, rate, control, Noise(source))
    delta = theta - y
    if not np.isfinite(delta).all():
        raise UpdateRejected("the local update is not finite: lower lr; the site sends nothing")
    return LocalResult(delta, normaliser(cfg.steps, cfg.lr, cfg.momentum), {}, cfg.steps)


def check_infants(net: CryNet, data: InfantTokens) -> None:
    """Refuse tokens of another network or label set.

    Raises:
        DataError: they do not fit.
    """
    shape = (len(data.tokens), net.cfg.n_tokens, net.cfg.d_model)
    if data.tokens.tokens.shape != shape:
        raise DataError(
            f"tokens are {data.tokens.tokens.shape}, the network takes {shape}: the cache is of another network"
        )
    if int(data.tokens.reason.max()) >= len(net.reasons):
        raise DataError(f"training needs reasons below {len(net.reasons)}")


def _descend(
    net: CryNet,
    data: InfantTokens,
    theta: Vector,
    cfg: LocalConfig,
    privacy: PrivacyConfig,
    rate: float,
    control: Vector | None,
    noise: Noise,
) -> Vector:
    infants, engine = data.rows, PerInfant(net, data.tokens, cfg)
    expected = rate * len(infants)
    y, velocity = theta.copy(), np.zeros_like(theta)
    for _ in range(cfg.steps):
        drawn = np.flatnonzero(noise.uniform(len(infants)) < rate)
        rows = [draw_frames(data.tokens.gate, infants[j], privacy.frames_per_infant, noise) for j in drawn]
        total = clipped_sum(engine.gradients(torch.from_numpy(y), rows), privacy.clip, y.size)
        if privacy.noise_multiplier > 0:
            total += privacy.noise_multiplier * privacy.clip * noise.normal(y.size)
        g = (total / expected).astype(np.float32)
        if control is not None:
            g += control
        if cfg.prox_mu > 0:
            g += np.float32(cfg.prox_mu) * (y - theta)
        velocity = np.float32(cfg.momentum) * velocity + g
        y = y - np.float32(cfg.lr) * velocity
    return y
