"""A vector as a few bits a coordinate whose integer sum over sites decodes to the sum of the decoded vectors, to the bit.

    z = R·u        q = ⌊z/s + U(0,1)⌋ clamped to ±h        decode(Σq) = (s/64) · R_int⁻¹(Σq)

R is a public rotation (`models.rotation`), h = 2^(b−1) − 1 and s = r/h the step of a public range r = ρ·C/√padded. What travels
is q + h in 0 … 2h. Stochastic rounding is unbiased, E[q·s] = z within the range (arXiv 1611.00429, section 2); the error has
E‖û − u‖² ≈ padded·s²/6, so at ‖u‖ = C it is ρ/(h·√6): 1.4 % at 8 bits, 26 % at 4.

Rotation, clipping and a modular sum together: arXiv 2102.06387, algorithm 1. The range is public and common, because values
scaled by a site's own range cannot be summed under a mask; C therefore adapts in public, by a masked count (`next_clip`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from models.errors import ConfigError, FederationError, UpdateRejected
from models.rotation import BLOCK, Float64, Rotation

_CHUNK: Final = 4 * BLOCK
_CLIP_RANGE: Final = (1e-30, 1e30)  # beyond it the step leaves what float32 parameters can hold


@dataclass(frozen=True)
class QuantiserConfig:
    """Plain numbers only: it travels as JSON.

    Sources: stochastic rounding after a rotation, arXiv 1611.00429; adaptive clipping, arXiv 1905.03871.
    """

    bits: int = 8  # b: 8 or 4
    clip: float = 1.0  # C, the largest ‖u‖ of one site
    range_sigmas: float = 4.5  # ρ: the range in units of C/√padded, the deviation of R·u at ‖u‖ = C
    adaptive_quantile: float | None = None  # γ: the share of sites to be within C; None keeps C fixed
    adaptive_rate: float = 0.2  # η_C

    def __post_init__(self) -> None:
        if self.bits not in (4, 8):
            raise ConfigError(f"a quantiser has 4 or 8 bits, not {self.bits}")
        if not _CLIP_RANGE[0] <= self.clip <= _CLIP_RANGE[1]:
            raise ConfigError(
                f"clip must lie within {_CLIP_RANGE[0]:g} … {_CLIP_RANGE[1]:g}, not {self.clip}"
            )
        if not 1.0 <= self.range_sigmas <= 64.0:
            raise ConfigError(
                f"range_sigmas must lie within 1 … 64 (4 to 5 is usual), not {self.range_sigmas}"
            )
        if self.adaptive_quantile is not None and not 0.0 < self.adaptive_quantile < 1.0:
            raise ConfigError(
                f"adaptive_quantile must lie between 0 and 1 or be none, not {self.adaptive_quantile}"
            )
        if not 0.0 < self.adaptive_rate <= 1.0:
            raise ConfigError(f"adaptive_rate must lie within 0 … 1, not {self.adaptive_rate}")


@dataclass(frozen=True)
class Encoded:
    """levels uint16 (padded,), each in 0 … 2h, and how many coordinates lay outside the range."""

    levels: npt.NDArray[np.uint16]
    saturated: int


class Quantiser:
    """Vectors (size,) ↔ levels (padded,), for one public seed of 32 bytes and one public C.

    Attributes: size; padded; clip, C; half, h; levels, 2h, the largest value that one summand may have; step, s.

    Raises:
        FederationError: the size, the seed or the given C is out of range.
    """

    def __init__(self, size: int, cfg: QuantiserConfig, seed: bytes, clip: float | None = None) -> None:
        self.clip = cfg.clip if clip is None else clip
        if not _CLIP_RANGE[0] <= self.clip <= _CLIP_RANGE[1]:
            raise FederationError(
                f"clip must lie within {_CLIP_RANGE[0]:g} … {_CLIP_RANGE[1]:g}, not {self.clip}"
            )
        self.rotation = Rotation(size, seed)
        self.size, self.padded = size, self.rotation.padded
        self.half = 2 ** (cfg.bits - 1) - 1
        self.levels = 2 * self.half
        self.step = cfg.range_sigmas * self.clip / math.sqrt(self.padded) / self.half

    def clip_norm(self, u: npt.NDArray[np.floating]) -> tuple[Float64, bool]:
        """u (size,) scaled to ‖u‖ ≤ C (up to rounding), and whether it was within: the count bit of arXiv 1905.03871, section 2.

        Raises:
            UpdateRejected: another shape, or a value that is not finite.
        """
        peak = self._peak(u)
        clipped = np.array(u, dtype=np.float64)
        if peak == 0.0:
            return clipped, True
        unit = clipped / peak  # first, so that no square overflows or vanishes
        norm = math.sqrt(float(np.square(unit).sum()))  # ≥ 1; no BLAS, whose sum depends on threads
        inside = peak <= self.clip / norm
        if not inside:
            np.multiply(unit, self.clip / norm, out=clipped)
        return clipped, inside

    def encode(self, u: npt.NDArray[np.floating], rng: np.random.Generator) -> Encoded:
        """u (size,) → levels. Does not clip the norm (`clip_norm` does): coordinates beyond the range saturate and are counted.

        Raises:
            UpdateRejected: another shape, or a value that is not finite.
        """
        if self._peak(u) * BLOCK / self.step == math.inf:
            raise UpdateRejected("update holds a value too large to quantise: clip its norm first")
        z = self.rotation.forward(u)
        levels = np.empty(self.padded, dtype=np.uint16)
        saturated = 0
        noise = np.empty(_CHUNK)
        for start in range(0, self.padded, _CHUNK):
            part = z[start : start + _CHUNK]
            part *= 1.0 / self.step
            saturated += int(np.count_nonzero(np.abs(part) > self.half))
            np.clip(part, -self.half, self.half, out=part)
            part += self.half
            part += rng.random(out=noise[: part.size])
            levels[start : start + _CHUNK] = part
        # 2h + U rounds up to 2h + 1 for the largest U
        np.minimum(levels, self.levels, out=levels)
        return Encoded(levels, saturated)

    def decode(self, levels: npt.NDArray[np.unsignedinteger]) -> Float64:
        """One site's û (size,) as the others will count it: `decode_sum` of one summand."""
        return self.decode_sum(levels, 1)

    def decode_sum(self, total: npt.NDArray[np.unsignedinteger], summands: int) -> Float64:
        """Σ levels over `summands` sites (padded,) → Σ û, (size,). Exact in integers but for one last multiplication.

        Raises:
            FederationError: fewer than one summand.
            UpdateRejected: another shape, not unsigned integers, or a total that so many summands cannot reach.
        """
        if summands < 1:
            raise FederationError(f"a sum needs at least one summand, not {summands}")
        if total.shape != (self.padded,) or total.dtype.kind != "u":
            raise UpdateRejected(
                f"sum of levels is {total.dtype} {total.shape}, needs unsigned integers ({self.padded},)"
            )
        most = self.levels * summands
        if int(total.max()) > most:
            raise UpdateRejected(
                f"sum of levels reaches {int(total.max())}, {summands} sites reach {most} at most: a mask is left in it, "
                "or a site sent what no quantiser gives"
            )
        centred: npt.NDArray[np.signedinteger] = total.astype(np.int32 if most < 1 << 31 else np.int64)
        centred -= summands * self.half
        return self.rotation.inverse_int(centred) * (self.step / math.sqrt(BLOCK))

    def _peak(self, u: npt.NDArray[np.floating]) -> float:
        """max|u|, checked."""
        if u.shape != (self.size,):
            raise UpdateRejected(f"update has shape {u.shape}, needs ({self.size},)")
        peak = max(float(u.max()), -float(u.min()))
        if not math.isfinite(peak):
            raise UpdateRejected("update holds a value that is not finite: the local step diverged")
        return peak


def encode_with_feedback(
    quantiser: Quantiser, u: npt.NDArray[np.floating], residual: Float64, rng: np.random.Generator
) -> tuple[Encoded, Float64]:
    """Error feedback: encode u + e, and the residual e⁺ = u + e − û to keep for the next round (arXiv 1901.09847, algorithm 2).

    The sent vectors then sum to Σu + e_0 − e_T, so their mean errs by O(1/T) rather than O(1/√T). ‖e‖ stays that of one
    quantisation while nothing saturates; what saturates comes back with the next round. Zeros (size,) begin it. The
    residual belongs to the update: it is committed or dropped together with it.

    Raises:
        UpdateRejected: another shape, or a value that is not finite.
    """
    if residual.shape != u.shape:
        raise UpdateRejected(f"residual has shape {residual.shape}, the update {u.shape}")
    corrected = u + residual
    encoded = quantiser.encode(corrected, rng)
    return encoded, corrected - quantiser.decode(encoded.levels)


def norm_bound(quantiser: Quantiser) -> float:
    """What ‖mean of û‖ cannot exceed while every site clips to C: C and its quantisation error, and a tenth for chance."""
    padded_error = quantiser.step * math.sqrt(quantiser.padded / 6.0)
    return 1.1 * (quantiser.clip + padded_error)


def next_clip(clip: float, inside_count: int, summands: int, cfg: QuantiserConfig) -> float:
    """C⁺ = C·exp(−η_C·(b̄ − γ)), b̄ the share of sites within C: the geometric update of arXiv 1905.03871, section 2.

    Kept within what a `Quantiser` takes: sites that no longer move would shrink C without end.

    Raises:
        FederationError: a count that so many sites cannot give.
    """
    if summands < 1 or not 0 <= inside_count <= summands:
        raise FederationError(f"{inside_count} of {summands} sites within the clip: not a count")
    if cfg.adaptive_quantile is None:
        return clip
    moved = clip * math.exp(-cfg.adaptive_rate * (inside_count / summands - cfg.adaptive_quantile))
    return min(max(moved, _CLIP_RANGE[0]), _CLIP_RANGE[1])
