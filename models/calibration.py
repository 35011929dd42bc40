"""Per-site calibration: temperatures, a gate threshold and an abstention threshold, from a site's validation clips.

Pure functions of one site's scores, so that they run at the site; what leaves it is a `SiteCalibration`: a handful of numbers.

Temperature T divides logits (Guo et al. 2017); the gate has a bias too (Platt 1999), because it learned from as many cries as
non-cries, which no site has. In β = 1/T the negative log-likelihood is convex, and a Gaussian prior on β of
mean 1 and standard deviation 1 (worth less than one clip) keeps a perfectly separated handful of clips from asking for T = 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.errors import DataError
from models.frames import UNKNOWN
from models.metrics import Floats, sigmoid, softmax

if TYPE_CHECKING:
    from models.predict import ClipScores

TRUE_POSITIVE_RATE = 0.95  # share of validation cries that must not be abstained from
MIN_PER_SIDE = 5  # cries and non-cries needed to fit the gate's temperature and threshold
MIN_CRIES = 10  # cries with a reason needed to fit the reason temperature or the energy threshold
_T_MIN, _T_MAX = 0.05, 20.0


@dataclass(frozen=True)
class SiteCalibration:
    """What turns a site's logits into decisions. Site "" is the pooled default for sites that have none.

    Attributes:
        site: its name.
        gate_temperature, gate_bias: p(cry) = sigmoid(gate_logit / T + b).
        reason_temperature: p(reason) = softmax(reason_logits / T).
        gate_threshold: call it a cry if p(cry) ≥ this; balances sensitivity and specificity.
        energy_threshold: abstain if energy > this; None never abstains. 95 % of validation cries lie at or below it.
        n_cries, n_noncries: validation clips used.
        gate_fitted, reason_fitted, energy_fitted: False where the value is a default.
        notes: why a value is a default, in words.
    """

    site: str
    gate_temperature: float = 1.0
    reason_temperature: float = 1.0
    gate_threshold: float = 0.5
    energy_threshold: float | None = None
    n_cries: int = 0
    n_noncries: int = 0
    gate_fitted: bool = False
    reason_fitted: bool = False
    energy_fitted: bool = False
    notes: tuple[str, ...] = ()
    gate_bias: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {**asdict(self), "notes": list(self.notes)}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> SiteCalibration:
        """Inverse of `to_dict`.

        Raises:
            DataError: a field is missing or unknown.
        """
        names = {f.name for f in fields(cls)}
        if set(raw) | {"gate_bias"} != names:  # of a release that had none
            odd = ", ".join(sorted(set(raw) ^ names))
            raise DataError(f"calibration of site {raw.get('site', '?')!r}: missing or unknown fields: {odd}")
        return cls(**{**raw, "notes": tuple(raw["notes"])})

    def gate_probability(self, gate_logit: npt.ArrayLike) -> Floats:
        """Calibrated p(cry), shape of the input."""
        return sigmoid(self.gate_log_odds(gate_logit))

    def gate_log_odds(self, gate_logit: npt.ArrayLike) -> Floats:
        """Calibrated log-odds of a cry, shape of the input."""
        return np.asarray(np.asarray(gate_logit, np.float64) / self.gate_temperature + self.gate_bias)

    def reason_probabilities(self, reason_logits: npt.ArrayLike) -> Floats:
        """Calibrated p(reason) over the last axis."""
        return softmax(np.asarray(reason_logits, np.float64) / self.reason_temperature)

    def abstains(self, energy: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """True where the clip is unlike the cries the network learned."""
        e = np.asarray(energy, np.float64)
        return np.zeros(e.shape, bool) if self.energy_threshold is None else e > self.energy_threshold


def fit_temperature(logits: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """Temperature with the least negative log-likelihood under the prior on β = 1/T above.

    Args:
        logits: (n,) of the gate, or (n, C) of the reasons.
        truth: (n,) 0 or 1, or class indices.

    Returns:
        T in [0.05, 20], by safeguarded Newton steps on a convex function: deterministic, to about 1e-10.
    """
    return federated_temperature([lambda beta: likelihood_slope(logits, truth, beta)])


def likelihood_slope(logits: npt.ArrayLike, truth: npt.ArrayLike, beta: float) -> tuple[float, float]:
    """First and second derivative of the negative log-likelihood in β = 1/T: sums over clips, all that a site has to tell.

    Args:
        logits: (n,) of the gate, or (n, C) of the reasons.
        truth: (n,) 0 or 1, or class indices.
        beta: where.
    """
    z = np.asarray(logits, np.float64)
    y = np.asarray(truth, np.int64)
    if y.size == 0:
        return 0.0, 0.0
    if z.ndim == 1:
        z = np.stack([np.zeros_like(z), z], -1)  # the gate is a two-class softmax with one logit fixed at 0
    p = softmax(beta * z)
    mean = (p * z).sum(-1)
    first = (mean - z[np.arange(y.size), y]).sum()
    return float(first), float(((p * z**2).sum(-1) - mean**2).sum())


def federated_temperature(sites: Sequence[Callable[[float], tuple[float, float]]]) -> float:
    """The temperature of all sites' clips together, from their sums alone: `fit_temperature` of the clips in one place.

    Args:
        sites: each answers `likelihood_slope` of its own clips at a β; a step of Newton's is one round of two numbers a site.
    """

    def slope(beta: float) -> tuple[float, float]:
        answers = [ask(beta) for ask in sites]
        return sum(a for a, _ in answers) + beta - 1.0, sum(b for _, b in answers) + 1.0

    low, high, beta = 1.0 / _T_MAX, 1.0 / _T_MIN, 1.0
    for _ in range(100):
        first, second = slope(beta)
        low, high = (beta, high) if first < 0 else (low, beta)
        proposed = beta - first / second
        following = proposed if low < proposed < high else (low + high) / 2
        if abs(following - beta) < 1e-12 * beta:
            break
        beta = following
    return 1.0 / beta


@dataclass(frozen=True)
class Affine:
    """p(cry) = sigmoid(logit / T + b): the temperature and bias of a gate (Platt scaling)."""

    temperature: float = 1.0
    bias: float = 0.0

    def probability(self, logit: npt.ArrayLike) -> Floats:
        """Shape of the input."""
        return sigmoid(np.asarray(logit, np.float64) / self.temperature + self.bias)


def affine_sums(logit: npt.ArrayLike, truth: npt.ArrayLike, at: Floats) -> Floats:
    """Sums over a site's clips at (β, b): negative log-likelihood, its gradient and the upper half of its Hessian, (6,).

    That is all a site has to tell for a fit of all sites together.
    """
    x = np.asarray(logit, np.float64)
    y = np.asarray(truth, np.float64)
    z = at[0] * x + at[1]
    p = sigmoid(z)
    w = p * (1.0 - p)
    loss = (np.logaddexp(0.0, z) - y * z).sum()
    return np.array(
        [loss, ((p - y) * x).sum(), (p - y).sum(), (w * x * x).sum(), (w * x).sum(), w.sum()], np.float64
    )


def fit_affine(sites: Sequence[Callable[[Floats], Floats]]) -> Affine:
    """Temperature and bias with the least negative log-likelihood over sites, under Gaussian priors: β = 1/T about 1, b about 0.

    Args:
        sites: each answers `affine_sums` of its own clips; one site alone is fitted the same way.

    Returns:
        The fit, T within its bounds, by damped Newton steps on a strictly convex function.
    """

    def ask(at: Floats) -> Floats:
        beta, bias = at
        total = np.sum([site(at) for site in sites], axis=0) if sites else np.zeros(6)
        prior = [((beta - 1.0) ** 2 + bias**2) / 2, beta - 1.0, bias, 1.0, 0.0, 1.0]
        return np.asarray(total + prior, np.float64)

    at = np.array([1.0, 0.0])
    here = ask(at)
    for _ in range(100):
        hessian = np.array([[here[3], here[4]], [here[4], here[5]]])
        step = np.linalg.solve(hessian, here[1:3])
        size, moved = 1.0, at
        while size > 1e-10:
            moved = np.array(
                [np.clip(at[0] - size * step[0], 1 / _T_MAX, 1 / _T_MIN), at[1] - size * step[1]]
            )
            there = ask(moved)
            if there[0] <= here[0]:
                break
            size /= 2
        else:
            break
        still = bool(np.abs(moved - at).max() < 1e-12)
        at, here = moved, there
        if still:
            break
    return Affine(1.0 / float(at[0]), float(at[1]))


def balanced_threshold(score: npt.ArrayLike, positive: npt.ArrayLike, *, even: float = 0.0) -> float:
    """Threshold on `score` (n,) that balances sensitivity and specificity, held to `even` where the clips leave a choice.

    Youden's J (sensitivity + specificity − 1) is a step function; a few validation clips leave its maximum wide or to chance.
    So of all thresholds that are at most one clip of the smaller side worse than the best, the one nearest to `even` is taken
    (for log-odds 0: p = 0.5).
    """
    s, y = np.asarray(score, np.float64), np.asarray(positive, bool)
    if not y.any() or y.all():
        return even
    distinct = np.unique(s)
    cuts = np.r_[-np.inf, (distinct[1:] + distinct[:-1]) / 2, np.inf, even]
    j = np.array([np.mean(s[y] >= c) + np.mean(s[~y] < c) for c in cuts])
    allowed = cuts[j >= j.max() - 1.0 / min(y.sum(), (~y).sum()) - 1e-12]
    return float(allowed[np.argmin(np.abs(allowed - even))])


def energy_threshold(energy_of_cries: npt.ArrayLike, tpr: float = TRUE_POSITIVE_RATE) -> float:
    """Smallest observed energy that at least `tpr` of the cries do not exceed (Liu et al. 2020, section 3)."""
    return float(np.quantile(np.asarray(energy_of_cries, np.float64), tpr, method="higher"))


def calibrate_site(
    scores: ClipScores, *, site: str | None = None, min_snr_db: float | None = None
) -> SiteCalibration:
    """Fit one site's calibration on its validation clips.

    Args:
        scores: the site's clip scores, validation part only.
        site: its name; by default the one site that `scores` holds.
        min_snr_db: also use renderings with noise mixed in at this SNR or better. Default: clips as recorded only, which is
            what the headline numbers are measured on.

    Returns:
        Fitted values, and defaults with a note where there are too few clips.

    Raises:
        DataError: `scores` holds several sites and `site` doesn't say which, or holds clips of another part.
    """
    sites = sorted({str(s) for s in scores.site})
    if site is None:
        if len(sites) > 1:
            raise DataError(
                f"calibration is per site, but these scores hold {len(sites)}: {', '.join(sites)}"
            )
        site = sites[0] if sites else ""
    if len(set(np.asarray(scores.part).tolist())) > 1:
        raise DataError(
            f"site {site!r}: calibration got clips of several parts; give it the validation part only"
        )
    heard = np.asarray(scores.view) == 0
    if min_snr_db is not None:
        heard |= np.asarray(scores.snr_db) >= min_snr_db  # False for NaN
    use = (np.asarray(scores.site) == site) & heard
    gate, reason = np.asarray(scores.gate), np.asarray(scores.reason)
    cry, noncry, reasoned = use & (gate == 1), use & (gate == 0), use & (gate == 1) & (reason != UNKNOWN)
    out = SiteCalibration(site, n_cries=int(cry.sum()), n_noncries=int(noncry.sum()))
    notes: list[str] = []

    if min(out.n_cries, out.n_noncries) >= MIN_PER_SIDE:
        sides = cry | noncry
        logit, truth = np.asarray(scores.gate_logit, np.float64)[sides], gate[sides] == 1
        fit = fit_affine([lambda at: affine_sums(logit, truth, at)])
        out = replace(out, gate_temperature=fit.temperature, gate_bias=fit.bias, gate_fitted=True)
        threshold = float(sigmoid(balanced_threshold(out.gate_log_odds(logit), truth)))
        out = replace(out, gate_threshold=threshold)
    else:
        notes.append(
            f"gate: {out.n_cries} cries and {out.n_noncries} non-cries in validation, {MIN_PER_SIDE} of each are needed; "
            "T = 1, b = 0, threshold 0.5"
        )

    logits = np.asarray(scores.reason_logits, np.float64)
    kinds = len(set(reason[reasoned].tolist()))
    if reasoned.sum() >= MIN_CRIES and kinds >= 2:
        t = fit_temperature(logits[reasoned], reason[reasoned])
        out = replace(out, reason_temperature=t, reason_fitted=True)
    else:
        notes.append(
            f"reason: {int(reasoned.sum())} cries of {kinds} reasons in validation, {MIN_CRIES} of 2 are needed; T = 1"
        )

    if out.n_cries >= MIN_CRIES:
        limit = energy_threshold(np.asarray(scores.energy)[cry])
        out = replace(out, energy_threshold=limit, energy_fitted=True)
    else:
        notes.append(
            f"energy: {out.n_cries} cries in validation, {MIN_CRIES} are needed; no abstention by energy"
        )
    return replace(out, notes=tuple(notes))


def pool_calibrations(calibrations: Sequence[SiteCalibration]) -> SiteCalibration:
    """A default for sites without their own, from what the sites published: no clip is needed for it.

    Temperatures: geometric mean; biases: mean; thresholds: median; each over the sites that fitted the value.
    """
    gate = [c for c in calibrations if c.gate_fitted]
    reason = [c for c in calibrations if c.reason_fitted]
    energy = [c.energy_threshold for c in calibrations if c.energy_threshold is not None]

    def geometric_mean(values: list[float]) -> float:
        return float(np.exp(np.mean(np.log(values)))) if values else 1.0

    return SiteCalibration(
        site="",
        gate_temperature=geometric_mean([c.gate_temperature for c in gate]),
        reason_temperature=geometric_mean([c.reason_temperature for c in reason]),
        gate_threshold=float(np.median([c.gate_threshold for c in gate])) if gate else 0.5,
        energy_threshold=float(np.median(energy)) if energy else None,
        n_cries=sum(c.n_cries for c in calibrations),
        n_noncries=sum(c.n_noncries for c in calibrations),
        gate_fitted=bool(gate),
        reason_fitted=bool(reason),
        energy_fitted=bool(energy),
        notes=(f"pooled over {len(calibrations)} sites",),
        gate_bias=float(np.mean([c.gate_bias for c in gate])) if gate else 0.0,
    )


def with_fallback(own: SiteCalibration, pooled: SiteCalibration) -> SiteCalibration:
    """`own`, with the pooled value wherever the site itself had too few clips to fit one.

    The `*_fitted` flags stay False there: they say what the site itself could fit.
    """
    out = own
    if not own.gate_fitted and pooled.gate_fitted:
        out = replace(
            out, gate_temperature=pooled.gate_temperature, gate_bias=pooled.gate_bias,
            gate_threshold=pooled.gate_threshold,
        )  # fmt: skip
    if not own.reason_fitted and pooled.reason_fitted:
        out = replace(out, reason_temperature=pooled.reason_temperature)
    if not own.energy_fitted and pooled.energy_fitted:
        out = replace(out, energy_threshold=pooled.energy_threshold)
    return out
