"""What a score is worth: discrimination, calibration and selective prediction, in numpy.

Every function takes an optional `weight` of shape (..., n) and then returns an array of shape (...): one value per weighting
of the same n clips. A bootstrap resample is such a weighting (how often each clip was drawn), so a thousand resamples are one
call that sorts the scores once; see `models.bootstrap`. Without `weight` the result is that of the clips as they are.

A value that the clips cannot support (no negatives, no cry, an empty slice) is NaN, never a guess.

Legend: n clips · C classes · score: higher means more positive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def _weights(weight: npt.ArrayLike | None, n: int) -> Floats:
    if weight is None:
        return np.ones(n)
    w = np.asarray(weight, dtype=np.float64)
    if w.shape[-1:] != (n,):
        raise ValueError(f"weight has shape {w.shape}, its last axis must be the {n} clips")
    return w


def _ratio(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> Floats:
    """Elementwise division that gives NaN, silently, where the denominator is 0."""
    top, bottom = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom != 0)


def _nanmean_last(values: Floats, keep: npt.NDArray[np.bool_]) -> Floats:
    """Mean over the last axis of the entries where `keep`; NaN where none is kept."""
    return _ratio(np.where(keep, values, 0.0).sum(-1), keep.sum(-1))


# --- ranking -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RocCurve:
    """Points from (0, 0) to (1, 1); entry k is the rule "score ≥ threshold[k]". Length K+1 along the last axis."""

    threshold: Floats
    fpr: Floats
    tpr: Floats


def _counts_by_threshold(
    score: Floats, positive: npt.NDArray[np.bool_], w: Floats
) -> tuple[Floats, Floats, Floats]:
    """Distinct thresholds in falling order, with true and false positives at each (…, K). Ties fall together."""
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    last = np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True]) if ranked.size else np.zeros(0, np.intp)
    hit = positive[order]
    w = w[..., order]
    return ranked[last], np.cumsum(w * hit, -1)[..., last], np.cumsum(w * ~hit, -1)[..., last]


def roc_curve(score: npt.ArrayLike, positive: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> RocCurve:
    """Receiver operating characteristic at every distinct score (n,); `positive` is a mask (n,)."""
    s, y = np.asarray(score, np.float64), np.asarray(positive, bool)
    threshold, tp, fp = _counts_by_threshold(s, y, _weights(weight, s.size))
    if threshold.size == 0:
        nothing = np.full((1,), np.nan)
        return RocCurve(np.array([np.inf]), nothing, nothing)
    zero = np.zeros((*tp.shape[:-1], 1))
    return RocCurve(
        np.r_[np.inf, threshold],
        _ratio(np.concatenate([zero, fp], -1), fp[..., -1:]),
        _ratio(np.concatenate([zero, tp], -1), tp[..., -1:]),
    )


def auroc(score: npt.ArrayLike, positive: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> Floats:
    """Area under the ROC: the chance that a positive outranks a negative, ties counting half."""
    curve = roc_curve(score, positive, weight)
    return np.asarray(
        (np.diff(curve.fpr, axis=-1) * (curve.tpr[..., 1:] + curve.tpr[..., :-1]) / 2).sum(-1)
        if curve.fpr.shape[-1] > 1
        else np.full(_weights(weight, np.size(score)).shape[:-1], np.nan)
    )


@dataclass(frozen=True)
class PrecisionRecallCurve:
    """One point for each distinct score, `recall` (K,) rising; entry k is the rule "score ≥ threshold[k]"."""

    threshold: Floats
    recall: Floats
    precision: Floats


def precision_recall_curve(score: npt.ArrayLike, positive: npt.ArrayLike) -> PrecisionRecallCurve:
    """Precision against recall at every distinct score (n,); its step-wise area is `average_precision`."""
    s, y = np.asarray(score, np.float64), np.asarray(positive, bool)
    threshold, tp, fp = _counts_by_threshold(s, y, np.ones(s.size))
    return PrecisionRecallCurve(threshold, _ratio(tp, y.sum()), _ratio(tp, tp + fp))


def average_precision(
    score: npt.ArrayLike, positive: npt.ArrayLike, weight: npt.ArrayLike | None = None
) -> Floats:
    """Area under the precision–recall curve as Σ (R_k − R_{k−1})·P_k, without interpolation."""
    s, y = np.asarray(score, np.float64), np.asarray(positive, bool)
    w = _weights(weight, s.size)
    threshold, tp, fp = _counts_by_threshold(s, y, w)
    if threshold.size == 0:
        return np.full(w.shape[:-1], np.nan)
    recall = _ratio(tp, tp[..., -1:])
    precision = np.nan_to_num(_ratio(tp, tp + fp))  # leading thresholds of weight 0 add no recall
    step = np.diff(recall, axis=-1, prepend=0.0)
    return np.asarray((step * precision).sum(-1))


def fpr_at_tpr(
    score: npt.ArrayLike, positive: npt.ArrayLike, weight: npt.ArrayLike | None = None, *, tpr: float = 0.95
) -> Floats:
    """Share of negatives accepted by the strictest threshold that accepts at least `tpr` of the positives."""
    curve = roc_curve(score, positive, weight)
    reached = curve.tpr >= tpr - 1e-12
    first = np.argmax(reached, axis=-1)
    value = np.take_along_axis(curve.fpr, first[..., None], -1)[..., 0]
    return np.where(reached.any(-1), value, np.nan)


def auroc_one_vs_rest(
    score: npt.ArrayLike, truth: npt.ArrayLike, weight: npt.ArrayLike | None = None
) -> Floats:
    """Macro mean over the classes of each class's AUROC against all others.

    `score` (n, C), `truth` (n,) class indices. Classes without a positive or without a negative are left out.
    """
    s, y = np.asarray(score, np.float64), np.asarray(truth, np.int64)
    each = np.stack([auroc(s[:, c], y == c, weight) for c in range(s.shape[1])], -1)
    return _nanmean_last(np.nan_to_num(each), ~np.isnan(each))


# --- decisions ---------------------------------------------------------------------------------------------------------


def confusion(
    truth: npt.ArrayLike, predicted: npt.ArrayLike, n_classes: int, weight: npt.ArrayLike | None = None
) -> Floats:
    """Weighted counts (..., C, C): rows are the truth, columns the prediction."""
    y, p = np.asarray(truth, np.int64), np.asarray(predicted, np.int64)
    w = _weights(weight, y.size)
    cell = np.zeros((y.size, n_classes * n_classes))
    cell[np.arange(y.size), y * n_classes + p] = 1.0
    return np.asarray((w @ cell).reshape(*w.shape[:-1], n_classes, n_classes))


def f1_per_class(matrix: npt.ArrayLike) -> Floats:
    """F1 of each class (..., C) from a confusion matrix (..., C, C): 0 if never right, NaN if absent from the truth."""
    m = np.asarray(matrix, np.float64)
    hits = np.diagonal(m, axis1=-2, axis2=-1)
    support, claimed = m.sum(-1), m.sum(-2)
    return np.where(support > 0, _ratio(2 * hits, support + claimed), np.nan)


def macro_f1(matrix: npt.ArrayLike) -> Floats:
    """Mean F1 over the classes that occur in the truth.

    Counting exactly the classes present in the truth (not the union with the predicted ones) gives every system scored on
    the same clips the same denominator, so that differences between systems are differences in F1.
    """
    f1 = f1_per_class(matrix)
    return _nanmean_last(np.nan_to_num(f1), ~np.isnan(f1))


def balanced_accuracy(matrix: npt.ArrayLike) -> Floats:
    """Mean recall over the classes that occur in the truth."""
    m = np.asarray(matrix, np.float64)
    recall = _ratio(np.diagonal(m, axis1=-2, axis2=-1), m.sum(-1))
    return _nanmean_last(np.nan_to_num(recall), ~np.isnan(recall))


def accuracy(matrix: npt.ArrayLike) -> Floats:
    """Share of the clips on the diagonal."""
    m = np.asarray(matrix, np.float64)
    return _ratio(np.diagonal(m, axis1=-2, axis2=-1).sum(-1), m.sum((-2, -1)))


# --- probabilities -----------------------------------------------------------------------------------------------------


def sigmoid(logit: npt.ArrayLike) -> Floats:
    """1 / (1 + e^−z), without overflow."""
    z = np.asarray(logit, np.float64)
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1.0, e) / (1.0 + e)


def softmax(logits: npt.ArrayLike) -> Floats:
    """Over the last axis, without overflow."""
    z = np.asarray(logits, np.float64)
    e = np.exp(z - z.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: per non-empty bin its edges, clip count, mean confidence and share that was right."""

    low: Floats
    high: Floats
    count: Floats
    confidence: Floats
    frequency: Floats


def bin_edges(confidence: npt.ArrayLike, bins: int, *, adaptive: bool) -> Floats:
    """Edges of `bins` equal-width bins on [0, 1], or of (up to) `bins` bins of equally many clips.

    Adaptive edges lie between distinct confidences, so equal confidences share a bin.
    """
    c = np.sort(np.asarray(confidence, np.float64))
    if not adaptive or c.size == 0:
        return np.linspace(0.0, 1.0, bins + 1)
    cuts = [k for k in np.unique((np.arange(1, bins) * c.size) // bins) if k > 0 and c[k] > c[k - 1]]
    return np.unique(np.r_[0.0, [(c[k] + c[k - 1]) / 2 for k in cuts], 1.0])


def _bin_index(confidence: Floats, edges: Floats) -> npt.NDArray[np.intp]:
    # right-closed bins, as in Guo et al. 2017: (0, .1], (.1, .2], …; a confidence of 0 joins the first
    return np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, len(edges) - 2)


def reliability(
    confidence: npt.ArrayLike, right: npt.ArrayLike, *, bins: int = 10, adaptive: bool = False
) -> Reliability:
    """The points of a reliability diagram; `right` (n,) is what happened (0 or 1), `confidence` (n,) what was said."""
    c, y = np.asarray(confidence, np.float64), np.asarray(right, np.float64)
    edges = bin_edges(c, bins, adaptive=adaptive)
    index = _bin_index(c, edges)
    count = np.bincount(index, minlength=len(edges) - 1).astype(np.float64)
    full = count > 0
    return Reliability(
        edges[:-1][full],
        edges[1:][full],
        count[full],
        np.bincount(index, weights=c, minlength=len(count))[full] / count[full],
        np.bincount(index, weights=y, minlength=len(count))[full] / count[full],
    )


def expected_calibration_error(
    confidence: npt.ArrayLike,
    right: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    *,
    bins: int = 10,
    adaptive: bool = False,
) -> Floats:
    """Σ_b (n_b / n)·|frequency_b − confidence_b| (Naeini et al. 2015; Guo et al. 2017).

    For several classes give the top probability and whether the top class was right; for the gate the probability of a cry
    and whether it was one. Bins are those of the unweighted clips, also under weights.
    """
    c, y = np.asarray(confidence, np.float64), np.asarray(right, np.float64)
    w = _weights(weight, c.size)
    edges = bin_edges(c, bins, adaptive=adaptive)
    member = np.zeros((c.size, len(edges) - 1))
    if c.size:
        member[np.arange(c.size), _bin_index(c, edges)] = 1.0
    gap = np.abs((w * (y - c)) @ member)
    return _ratio(gap.sum(-1), w.sum(-1))


def brier(probability: npt.ArrayLike, truth: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> Floats:
    """Mean squared error of the probabilities (Brier 1950).

    Binary: `probability` (n,), `truth` (n,) 0 or 1, range [0, 1]. Several classes: (n, C) and class indices, range [0, 2].
    """
    p = np.asarray(probability, np.float64)
    y = np.asarray(truth, np.int64)
    each = (p - y) ** 2 if p.ndim == 1 else ((p - np.eye(p.shape[1])[y]) ** 2).sum(-1)
    w = _weights(weight, y.size)
    return _ratio((w * each).sum(-1), w.sum(-1))


def log_loss(probability: npt.ArrayLike, truth: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> Floats:
    """Mean negative log-likelihood in nats; shapes as in `brier`."""
    p = np.asarray(probability, np.float64)
    y = np.asarray(truth, np.int64)
    said = np.where(y == 1, p, 1 - p) if p.ndim == 1 else p[np.arange(y.size), y]
    w = _weights(weight, y.size)
    return _ratio((w * -np.log(np.clip(said, 1e-12, None))).sum(-1), w.sum(-1))


# --- selective prediction ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RiskCoverage:
    """Answer the most confident share of clips: `coverage` (k,) rising, `risk` (k,) = share of wrong answers so far."""

    coverage: Floats
    risk: Floats


def risk_coverage(confidence: npt.ArrayLike, right: npt.ArrayLike) -> RiskCoverage:
    """Risk–coverage curve at every distinct confidence (El-Yaniv and Wiener 2010)."""
    c, y = np.asarray(confidence, np.float64), np.asarray(right, bool)
    _, good, bad = _counts_by_threshold(c, y, np.ones(c.size))
    answered = good + bad
    return RiskCoverage(answered / max(c.size, 1), _ratio(bad, answered))


def area_under_risk_coverage(
    confidence: npt.ArrayLike, right: npt.ArrayLike, weight: npt.ArrayLike | None = None
) -> Floats:
    """Mean risk over coverage (AURC): lower is better, the plain error rate is what random confidence would give."""
    c, y = np.asarray(confidence, np.float64), np.asarray(right, bool)
    w = _weights(weight, c.size)
    _, good, bad = _counts_by_threshold(c, y, w)
    if c.size == 0:
        return np.full(w.shape[:-1], np.nan)
    answered = good + bad
    step = np.diff(answered, axis=-1, prepend=0.0)
    return _ratio((step * np.nan_to_num(_ratio(bad, answered))).sum(-1), answered[..., -1])
