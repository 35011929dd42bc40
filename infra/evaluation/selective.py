"""Knowing when not to answer: abstention on what isn't a cry, and risk against coverage on what is."""

from __future__ import annotations

from functools import partial

import numpy as np

from infra.evaluation.protocol import NEGATIVES, Bench, Json, Mask, number, thin
from models import metrics as m
from models.metrics import Floats


def abstention_metrics(bench: Bench) -> Json:
    """Cries against non-cries by energy, by the top reason probability and by the gate, and what the thresholds do.

    The energy decides; the other two stand beside it so that it can be seen whether it earns its place.
    """
    s = bench.scores
    signals: dict[str, Floats] = {"energy": -s.energy}
    if bench.reasons:
        signals["max_softmax"] = bench.reason_raw.max(1)
    signals["gate"] = s.gate_logit
    signals = {name: score for name, score in signals.items() if not np.isnan(score).any()}
    out: Json = {"signals": {}, "at_threshold": {}}
    for name, score in signals.items():
        out["signals"][name] = {}
        for which in NEGATIVES:
            keep = (s.gate == 1) | bench.negatives(which)
            x, cry = score[keep], s.gate[keep] == 1
            curve = m.roc_curve(x, cry)
            out["signals"][name][which] = {
                "auroc": bench.interval(partial(m.auroc, x, cry), keep).to_dict(),
                "fpr95": number(m.fpr_at_tpr(x, cry)),
                "roc": thin(curve.fpr, curve.tpr),
            }

    def share(keep: Mask, event: Mask) -> float | None:
        return number(event[keep].mean()) if keep.any() else None

    out["at_threshold"] = {
        "cries_kept": share(s.gate == 1, ~bench.abstained),
        **{
            f"{which}_noncries_refused": share(bench.negatives(which), bench.abstained) for which in NEGATIVES
        },
        **{
            f"{which}_noncries_stopped_by_gate_or_energy": share(
                bench.negatives(which), bench.abstained | ~bench.called
            )
            for which in NEGATIVES
        },
    }
    return out


def risk_coverage_metrics(bench: Bench) -> Json | None:
    """Error of the reason head when only the most confident clips are answered; None without a reason head or cries."""
    cries = bench.cries
    if not bench.reasons or not cries.any():
        return None
    s = bench.scores
    p = bench.reason_p[cries]
    right = p.argmax(1) == s.reason[cries]
    signals = {"max_softmax": p.max(1), "energy": -s.energy[cries]}
    out: Json = {"error_rate": number(1 - right.mean()), "signals": {}}
    for name, confidence in {**signals, "oracle": right.astype(float)}.items():
        if np.isnan(confidence).any():
            continue
        # the oracle ranks every right answer first: no confidence can do better at this error rate
        curve = m.risk_coverage(confidence, right) if name != "oracle" else _oracle(right)
        out["signals"][name] = {
            "aurc": number(np.mean(curve.risk))
            if name == "oracle"
            else bench.interval(partial(m.area_under_risk_coverage, confidence, right), cries).to_dict(),
            "curve": thin(curve.coverage, curve.risk),
        }
    return out


def _oracle(right: Mask) -> m.RiskCoverage:
    n = np.arange(1, right.size + 1)
    return m.RiskCoverage(n / right.size, np.maximum(0, n - right.sum()) / n)
