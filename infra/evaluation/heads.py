"""The two heads: the gate (cry or not) and the reason, as discrimination, decisions and calibration."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from infra.evaluation.protocol import NEGATIVES, Bench, Json, Mask, number, thin
from models import metrics as m
from models.metrics import Floats, Ints


def gate_metrics(bench: Bench) -> Json:
    """Gate numbers on the rows of `bench`: per kind of negatives ROC numbers, and decisions and calibration over all."""
    s = bench.scores
    out: Json = {"cries": int((s.gate == 1).sum()), "negatives": {}}
    for which in NEGATIVES:
        keep = (s.gate == 1) | bench.negatives(which)
        score, positive = s.gate_logit[keep], s.gate[keep] == 1
        curve = m.roc_curve(score, positive)
        out["negatives"][which] = {
            "clips": int(bench.negatives(which).sum()),
            "auroc": bench.interval(partial(m.auroc, score, positive), keep).to_dict(),
            "fpr95": bench.interval(partial(m.fpr_at_tpr, score, positive), keep).to_dict(),
            "average_precision": bench.interval(
                partial(m.average_precision, score, positive), keep
            ).to_dict(),
            "roc": thin(curve.fpr, curve.tpr),
        }
    side = bench.sided
    truth, called = (s.gate[side] == 1).astype(int), bench.called[side].astype(int)

    for name, keep in (("sensitivity", s.gate == 1), ("specificity", s.gate == 0)):
        right = (called == truth)[keep[side]]
        out[name] = bench.interval(partial(_mean, right), keep).to_dict()
    out["false_alarms_by_label"] = [
        {"label": str(label), "kind": "site" if s.site[at][0] else "public", "clips": int(at.sum()),
         "called_cry": number(np.mean(bench.called[at]))}
        for label in np.unique(s.label[s.gate == 0])
        for at in [(s.gate == 0) & (s.label == label)]
    ]  # fmt: skip
    # calibration on the sites' own clips: public noise has no site, and adding it would change the balance at will
    own = side & (s.site != "")
    out["calibration"] = calibration_metrics(
        bench, own, (s.gate[own] == 1).astype(float), bench.gate_raw[own], bench.gate_p[own]
    )
    out["calibration"]["share_of_cries"] = number(np.mean(s.gate[own] == 1)) if own.any() else None
    out["calibration"]["brier"] = bench.interval(
        partial(m.brier, bench.gate_p[own], s.gate[own]), own
    ).to_dict()
    return out


def reason_metrics(bench: Bench) -> Json | None:
    """Reason numbers on the cries of `bench` with a known reason; None without a reason head or such cries."""
    cries = bench.cries
    c = len(bench.reasons)
    if not c or not cries.any():
        return None
    s = bench.scores
    truth, p, raw = s.reason[cries].astype(int), bench.reason_p[cries], bench.reason_raw[cries]
    predicted = p.argmax(1)
    matrix = m.confusion(truth, predicted, c)
    right = predicted == truth

    def of_confusion(metric: Callable[[Floats], Floats]) -> Json:
        return bench.interval(lambda w: metric(m.confusion(truth, predicted, c, w)), cries).to_dict()

    share = np.bincount(truth, minlength=c) / truth.size
    out: Json = {
        "clips": int(cries.sum()),
        "macro_f1": of_confusion(m.macro_f1),
        "chance_macro_f1": number(_chance_macro_f1(truth, predicted, c, bench.config.seed)),
        "balanced_accuracy": of_confusion(m.balanced_accuracy),
        "accuracy": of_confusion(m.accuracy),
        "auc": bench.interval(partial(m.auroc_one_vs_rest, raw, truth), cries).to_dict(),
        "confusion": matrix.astype(int).tolist(),
        "per_class": [
            {"reason": name, "clips": int(matrix[k].sum()), "share": number(share[k]), "f1": number(f1)}
            for k, (name, f1) in enumerate(zip(bench.reasons, m.f1_per_class(matrix), strict=True))
        ],
        "calibration": calibration_metrics(bench, cries, right.astype(float), raw.max(1), p.max(1)),
    }
    out["calibration"]["brier"] = bench.interval(partial(m.brier, p, truth), cries).to_dict()
    answered = cries & ~bench.abstained
    seen = answered[cries]
    out["after_abstention"] = {
        "coverage": number(seen.mean()),
        "macro_f1": number(m.macro_f1(m.confusion(truth[seen], predicted[seen], c))),
    }
    return out


def calibration_metrics(bench: Bench, keep: Mask, happened: Floats, before: Floats, after: Floats) -> Json:
    """ECE before and after temperature, equal-width and adaptive, with reliability tables.

    `ece_if_calibrated` is the ECE to be expected of confidences that are exactly right, from this many clips: below it an ECE
    says nothing.
    """
    bins = bench.config.bins
    out: Json = {"clips": int(keep.sum())}
    for name, p in (("before", before), ("after", after)):
        table = m.reliability(p, happened, bins=bins)
        out[name] = {
            "ece": bench.interval(
                partial(m.expected_calibration_error, p, happened, bins=bins), keep
            ).to_dict(),
            "adaptive_ece": number(m.expected_calibration_error(p, happened, bins=bins, adaptive=True)),
            "reliability": thin(table.confidence, table.frequency, table.count),
        }
    out["ece_if_calibrated"] = number(_ece_if_calibrated(after, bins, bench.config.seed))
    return out


def _ece_if_calibrated(confidence: Floats, bins: int, seed: int, draws: int = 200) -> float:
    if not confidence.size:
        return float("nan")
    rng = np.random.Generator(np.random.PCG64(seed))
    happened = rng.random((draws, confidence.size)) < confidence
    return float(np.mean([m.expected_calibration_error(confidence, h, bins=bins) for h in happened]))


def _chance_macro_f1(truth: Ints, predicted: Ints, n_classes: int, seed: int, draws: int = 200) -> float:
    """Macro-F1 of the same answers dealt out to the clips at random: with balanced classes it lies above the majority's."""
    rng = np.random.Generator(np.random.PCG64(seed))
    return float(
        np.mean([m.macro_f1(m.confusion(rng.permutation(truth), predicted, n_classes)) for _ in range(draws)])
    )


def _mean(x: Mask, w: Floats | None = None) -> Floats:
    if w is None:
        return np.asarray(x.mean() if x.size else np.nan)
    total = w.sum(-1)
    return np.divide((w * x).sum(-1), total, out=np.full(total.shape, np.nan), where=total > 0)
