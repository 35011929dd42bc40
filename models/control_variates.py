"""Control variates (SCAFFOLD, arXiv 1910.06378) that cost no upload and survive clipping, quantisation and masking.

Every site sends one vector: its movement per unit of step, d_i = (θ − y_i) / A_i with A_i = Σ_k a_k (`local_step.normaliser`),
as it comes out of clipping and quantisation, d̂_i. Site and server then advance their variates by what was sent, never by what
was meant:

    site     c_i⁺ = c_i − c + d̂_i                                      once the server says that it counted d̂_i
    server   c⁺ = c − (|U|/N) c + (1/N) Σ_U d̂_i       θ⁺ = θ − η_g A_ref (1/|U|) Σ_U d̂_i

This is SCAFFOLD's option II with Δc_i = d̂_i − c known to both ends (as SCALLION, arXiv 2308.08165, does for plain SCAFFOLD), so c
is a function of sums that are released anyway. K_i and A_i stay at the site: unequal local steps need nothing more.

Invariant: c = mean(c_i) over all N registered sites. A difference is conserved for ever and moves the optimum, hence the commit
rule, and a reset of all variates (a new epoch) when a site has lost its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.adapters import Vector
from models.errors import FederationError

Variate = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Control:
    """What a site's local step needs: c as the server sent it, float32 (P,), and the site's own c_i, float64 (P,)."""

    server: Vector
    own: Variate

    @property
    def correction(self) -> Vector:
        """c − c_i, float32 (P,): what is added to every local gradient."""
        return (self.server - self.own).astype(np.float32)


def next_site_variate(control: Control, sent: Variate) -> Variate:
    """c_i⁺ = c_i − c + d̂_i, float64 (P,).

    Args:
        control: the variates of the local step that gave `sent`.
        sent: d̂_i (P,) as the server decodes it.
    """
    return control.own - control.server + sent


def next_server_variate(
    c: Variate, sent: npt.NDArray[np.floating], total: Variate, *, counted: int, registered: int
) -> Variate:
    """c⁺ = c − (|U|/N) c̃ + (1/N) Σ_U d̂_i, float64 (P,), with c̃ = c as it was sent.

    c travels as float32; with c̃ here, and not c, the rounding is in the site's step and in the server's alike, and c = mean(c_i)
    holds to the precision of float64 over any number of rounds.

    Args:
        c: the server's variate (P,).
        sent: c̃, what the sites were sent of it (P,): `as_sent(c)`.
        total: Σ_U d̂_i (P,).
        counted: |U|.
        registered: N, all sites of the federation, asked or not.

    Raises:
        FederationError: more sites counted than registered, or none.
    """
    if not 1 <= counted <= registered:
        raise FederationError(f"{counted} sites counted of {registered} registered: the round cannot be used")
    return c - (counted / registered) * sent.astype(np.float64) + total / registered


def as_sent(c: Variate) -> Vector:
    """c as it travels, float32 (P,)."""
    return c.astype(np.float32)
