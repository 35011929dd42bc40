"""What a site sends in a round: a local step, put on the common scale, clipped and quantised; and what it keeps of it.

    û_i = decode(encode(A_ref d_i))      d_i = (θ − y_i) / A_i

`update` is what the server will decode, to the bit. The next control variate is made of it, and not of the movement that was
meant: kept from the raw d_i, clipping alone moves the optimum (arXiv 1910.06378 assumes that both ends see the same Δ).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from models.adapters import Vector
from models.control_variates import Control, Variate, next_site_variate
from models.errors import UpdateRejected
from models.local_step import LocalConfig, LocalResult, TokenSet, local_step, normaliser
from models.network import CryNet
from models.quantise import Quantiser


@dataclass(frozen=True)
class SiteUpdate:
    """`update` û float64 (P,); `levels` its integers (padded,), None without a codec; `variate` c_i⁺ to commit once counted.

    `inside`: whether it lay within the clipping norm. The norm and the number of saturated coordinates stay at the site.
    """

    update: npt.NDArray[np.float64]
    levels: npt.NDArray[np.uint16] | None
    variate: Variate | None
    losses: dict[str, float]
    inside: bool
    norm: float
    saturated: int


def site_update(
    net: CryNet,
    data: TokenSet,
    theta: Vector,
    cfg: LocalConfig,
    seed: int,
    *,
    steps: int = 0,
    control: Control | None = None,
    quantiser: Quantiser | None = None,
) -> SiteUpdate:
    """One site's share of a round.

    Args:
        net, data, theta, cfg, seed: as for `local_step`.
        steps: the site's own number of local steps K_i; 0 takes cfg's, which also defines A_ref.
        control: c and c_i; None trains without control variates.
        quantiser: this round's codec; None sends float32.

    Raises:
        FederationError, DataError, UpdateRejected: as `local_step`.
    """
    own = replace(cfg, steps=steps or cfg.steps)
    result = local_step(net, data, theta, own, seed, None if control is None else control.correction)
    reference = normaliser(cfg.steps, cfg.lr, cfg.momentum)
    return encode_update(result, reference, seed, control=control, quantiser=quantiser)


def encode_update(
    result: LocalResult,
    reference: float,
    seed: int,
    *,
    control: Control | None = None,
    quantiser: Quantiser | None = None,
) -> SiteUpdate:
    """What is sent of a local step's result, and what is kept; `reference` is A_ref, the rest as for `site_update`."""
    meant = result.delta.astype(np.float64) * (reference / result.normaliser)
    if not np.isfinite(meant).all():
        raise UpdateRejected("the local update is not finite on the common scale: the site sends nothing")
    norm = float(np.linalg.norm(meant))
    levels, inside, saturated = None, True, 0
    if quantiser is None:
        update = meant.astype(np.float32).astype(np.float64)
    else:
        clipped, inside = quantiser.clip_norm(meant)
        encoded = quantiser.encode(clipped, np.random.Generator(np.random.PCG64([seed, 1])))
        levels, saturated = encoded.levels, encoded.saturated
        update = quantiser.decode(levels)
    variate = None if control is None else next_site_variate(control, update / reference)
    return SiteUpdate(update, levels, variate, result.losses, inside, norm, saturated)
