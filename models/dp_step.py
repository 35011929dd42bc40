"""A site's share of a round with differential privacy for its infants: DP-SGD (arXiv 1607.00133) in place of `local_step`.

    G = Σ_{j ∈ batch} clip_S(∇L_j(y)) + N(0, σ²S² I)      g = G / E|batch| + (c − c_i) + μ (y − θ)
    v ← ρ v + g,   y ← y − η v

The unit is the *infant*, with everything recorded of it (a group of the manifest, whether it holds cries or not). L_j is the
loss of infant j alone (`models.infants`), over at most m of its frames, so one infant more or less moves the un-noised sum by at
most S in Euclidean norm, however many frames it has. Each step takes every infant by itself with chance q = batch / infants
(Poisson sampling); the sum is divided by the *expected* number, for the number drawn is private. All K steps of a round are
released together, and cost `infra.federation.privacy.accountant.epsilon(K, q, σ, δ)`.

Post-processing, at no cost: momentum, the proximal term, and the control c − c_i, because c and c_i are made of nothing but
transmitted d̂. Not covered: n, the number of infants, counts as known; nor does the promise reach anything else that a site
reports (its gate's verdict, tallies, calibration). `LocalResult.losses` is empty: a loss would be one more release.

Draws and noise come from the operating system's CSPRNG and never from the run's seed: the server knows that one, could subtract
the noise, and amplification by sampling holds only while the sample is secret. A step cannot be repeated; a site that is asked
again sends the same stored update. Normals are Box–Muller in float64 from 52 random bits: the theorem is about real numbers, and
the low bits of floating-point noise can betray the value below (Mironov 2012; arXiv 2112.05307 for the Gaussian). Rounding to
float32 after K summed steps, and to few bits by the codec, hides most of that; it is no proof. Tails end at 8.5 deviations.

What it costs: drawing infants at random leaves no way to balance a batch by class, as `local_step` does. Within an infant both
sides of the gate weigh half each; across infants nothing is balanced, so frequent reasons weigh more than rare ones.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from models.adapters import Vector, adapter_schema, set_vector
from models.errors import ConfigError, UpdateRejected
from models.infants import InfantTokens, PerInfant, Rows, check_infants
from models.local_step import LocalConfig, LocalResult, normaliser
from models.network import CryNet
from models.threads import one_thread

__all__ = ["Entropy", "InfantTokens", "Noise", "PrivacyConfig", "clipped_sum", "dp_local_step", "draw_frames"]

Entropy = Callable[[int], bytes]


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
