"""Membership inference: how well an attacker tells the infants that were trained on from others of the same kind.

loss         −L_j(θ): what was learned by heart has a low loss (Yeom et al., arXiv 1709.01604)
calibrated   mean over reference models that never saw j of L_j, minus L_j(θ): what is low *for this infant* (arXiv 2111.08440;
             offline LiRA, arXiv 2112.03570, with one variance for all gives the same order)
alignment    cosine of Δ and ∇L_j(θ), θ being where the round began: what a sum of updates gives away although no single update
             is seen (Li, Li and Ribeiro, ICLR 2023)
regression   ridge regression of Δ on all candidates' unit gradients at once: alignment less what an infant shares with the others

The unit is the infant, over all of its frames. The numbers of merit are the area under the ROC (0.5: the attacker learns
nothing) and the true-positive rate at 1 % false positives, for a mean can look harmless while a few infants are sure finds. What
these attacks find is a lower bound on what can be found; the upper one is (ε, δ).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from models.adapters import Vector, adapter_schema
from models.bootstrap import Interval, group_bootstrap
from models.errors import DataError
from models.infants import InfantTokens, PerInfant, check_infants
from models.local_step import LocalConfig
from models.metrics import Floats, auroc, roc_curve
from models.network import CryNet
from models.threads import one_thread

FPR = 0.01
_RIDGE = 0.1  # in units of a unit gradient's own square


@dataclass(frozen=True)
class Attack:
    """What one attack found, with intervals over infants."""

    auc: Interval
    tpr: Interval  # at FPR
    members: int
    others: int

    def to_dict(self) -> dict[str, object]:
        """JSON types."""
        return {
            "auc": self.auc.to_dict(),
            "tpr_at_1_percent_fpr": self.tpr.to_dict(),
            "members": self.members,
            "others": self.others,
        }


def tpr_at_fpr(
    score: npt.ArrayLike, member: npt.ArrayLike, weight: npt.ArrayLike | None = None, *, fpr: float = FPR
) -> Floats:
    """Largest share of members found by a threshold that accuses at most `fpr` of the others; `weight` as in `models.metrics`."""
    curve = roc_curve(score, member, weight)
    allowed = np.where(curve.fpr <= fpr + 1e-12, curve.tpr, 0.0).max(-1)
    return np.where(np.isnan(curve.fpr).any(-1), np.nan, allowed)


def judge(scores: npt.ArrayLike, member: npt.ArrayLike, *, seed: int, resamples: int = 1000) -> Attack:
    """Numbers of merit of an attack, one row an infant.

    Args:
        scores: (n,), higher accuses.
        member: (n,) mask, whether the infant was trained on.
        seed: of the bootstrap.
        resamples: how many.
    """
    s, y = np.asarray(scores, np.float64), np.asarray(member, bool)
    infant = np.arange(s.size)
    auc, tpr = (
        group_bootstrap(partial(statistic, s, y), infant, seed=seed, resamples=resamples)
        for statistic in (auroc, tpr_at_fpr)
    )
    return Attack(auc, tpr, int(y.sum()), int((~y).sum()))


def infant_losses(net: CryNet, data: InfantTokens, theta: Vector, cfg: LocalConfig) -> Floats:
    """L_j(θ) of each infant (n,), in the order of `data.names`.

    Raises:
        DataError, FederationError: tokens or θ do not fit the network.
    """
    _check(net, data, theta)
    with one_thread():
        return PerInfant(net, data.tokens, cfg).losses(torch.from_numpy(theta.copy()), data.rows)


def loss_scores(losses: npt.ArrayLike) -> Floats:
    """The loss attack's scores (n,)."""
    return -np.asarray(losses, np.float64)


def calibrated_scores(losses: npt.ArrayLike, reference: npt.ArrayLike, used: npt.ArrayLike) -> Floats:
    """The calibrated attack's scores (n,).

    Args:
        losses: (n,) under the released model.
        reference: (R, n) under R reference models.
        used: (R, n) mask, whether the reference model was trained on the infant.

    Raises:
        DataError: every reference model was trained on one of the infants.
    """
    reference, out = np.asarray(reference, np.float64), ~np.asarray(used, bool)
    if not out.any(0).all():
        raise DataError(
            "every reference model was trained on some infant: train more of them, on other halves"
        )
    return np.where(out, reference, 0.0).sum(0) / out.sum(0) - np.asarray(losses, np.float64)


def unit_gradients(
    net: CryNet, data: InfantTokens, theta: Vector, cfg: LocalConfig
) -> npt.NDArray[np.float32]:
    """∇L_j(θ) / ‖∇L_j(θ)‖ of each infant (n, P), in the order of `data.names`; θ is where a round began. 4·n·P bytes.

    Raises:
        DataError, FederationError: tokens or θ do not fit the network.
    """
    _check(net, data, theta)
    units = np.empty((len(data.rows), theta.size), np.float32)
    with one_thread():
        engine = PerInfant(net, data.tokens, cfg)
        for j, g in enumerate(engine.gradients(torch.from_numpy(theta.copy()), data.rows)):
            units[j] = g / max(float(np.linalg.norm(g)), 1e-30)
    return units


def alignment_scores(units: npt.NDArray[np.float32], update: npt.NDArray[np.floating]) -> Floats:
    """The alignment attack's scores (n,).

    Args:
        units: (n, P) of `unit_gradients`.
        update: (P,) Σ Δ_i of the round, or any positive multiple of it (the mean, θ_t − θ_{t+1}).

    Raises:
        DataError: lengths differ.
    """
    if update.shape != units.shape[1:]:
        raise DataError(f"an update of shape {update.shape} against gradients of shape {units.shape}")
    return (units @ (update / max(float(np.linalg.norm(update)), 1e-30))).astype(np.float64)


def regression_scores(units: npt.NDArray[np.float32], update: npt.NDArray[np.floating]) -> Floats:
    """The regression attack's scores (n,): x of min ‖Δ/‖Δ‖ − Σ x_j u_j‖² + λ‖x‖². Arguments and errors as `alignment_scores`."""
    gram = (units @ units.T).astype(np.float64)
    return np.asarray(np.linalg.solve(gram + _RIDGE * np.eye(len(units)), alignment_scores(units, update)))


def _check(net: CryNet, data: InfantTokens, theta: Vector) -> None:
    adapter_schema(net).check(theta, "θ")
    check_infants(net, data)
    net.eval()
