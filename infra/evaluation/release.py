"""The release gate: may the reason head ship?

It ships only if the lower end of its macro-F1 interval, on test infants that no selection touched, lies above what the
majority class reaches on the same clips, and above what its own answers reach when dealt out at random (with balanced classes
guessing beats the majority class in macro-F1). Otherwise the release carries the cry gate alone and says why.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from infra.evaluation.protocol import Bench, EvaluationConfig, Json
from models.metrics import softmax

RULE = (
    "the lower end of the reason head's macro-F1 interval lies above the majority class and above its own answers "
    "dealt out at random"
)


def majority_reason(clean: Bench) -> Bench:
    """The constant predictor of the most frequent reason of these very clips: the strongest constant there is."""
    s = clean.scores
    counts = np.bincount(s.reason[clean.cries].astype(int), minlength=len(clean.reasons))
    logits = np.tile(np.log((counts + 1.0) / (counts + 1.0).sum()), (len(s), 1))
    p = softmax(logits)
    zero = np.zeros(len(s))
    return replace(
        clean,
        scores=replace(s, reason_logits=logits, gate_logit=zero, energy=zero),
        reason_raw=p,
        reason_p=p,
        gate_raw=zero + 0.5,
        gate_p=zero + 0.5,
    )


def release_decision(reason: Json | None, majority: Json | None, cfg: EvaluationConfig) -> Json:
    """Whether the reason head ships, the numbers that decide, and why, in a sentence."""
    out: Json = {
        "rule": RULE, "ship_reason_head": False, "macro_f1_low": None, "majority_macro_f1": None,
        "chance_macro_f1": None, "groups": None,
    }  # fmt: skip
    if reason is None or majority is None or majority["macro_f1"] is None:
        return {
            **out,
            "why": "there is no reason head, or no test cry with a known reason: it cannot be judged",
        }
    f1 = reason["macro_f1"]
    low, base, chance = f1["low"], majority["macro_f1"]["value"], reason["chance_macro_f1"]
    out |= {
        "macro_f1_low": low,
        "majority_macro_f1": base,
        "chance_macro_f1": chance,
        "groups": f1["groups"],
    }
    present = sum(1 for row in reason["per_class"] if row["clips"])
    if present < 2:
        return {**out, "why": "the test cries have one reason only: nothing can be told apart"}
    if f1["groups"] < cfg.min_groups:
        return {
            **out,
            "why": f"{f1['groups']} test groups with a reason, at least {cfg.min_groups} are needed to judge",
        }
    if low is None:
        return {**out, "why": "the interval is undefined: too many resamples lack a reason"}
    ship = bool(low > max(base, chance))
    verb = "is above" if ship else "is not above"
    bar = f"the majority class at {base:.3f}" if base >= chance else f"random answers at {chance:.3f}"
    return {
        **out,
        "ship_reason_head": ship,
        "why": f"macro-F1 {f1['value']:.3f}, lower end {low:.3f}, {verb} {bar}",
    }
