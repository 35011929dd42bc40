"""The release gate: may the reason head ship?

It ships only if all three hold, on test infants that no selection touched:

- the lower end of its macro-F1 interval lies above what the majority class reaches on the same clips, and above what its own
  answers reach when dealt out at random (with balanced classes guessing beats the majority class in macro-F1);
- a permutation test within platform (or site) rejects that labels which say nothing would score as well;
- the data gate's probe did not find the labels without signal.

Otherwise the release carries the cry gate alone and says why.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from infra.evaluation.protocol import Bench, EvaluationConfig, Json
from models.metrics import softmax

RULE = (
    "the lower end of the reason head's macro-F1 interval lies above the majority class and above its own answers "
    "dealt out at random, a permutation test rejects labels without signal, and the data gate did not find the labels to be so"
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


def release_decision(
    reason: Json | None,
    majority: Json | None,
    cfg: EvaluationConfig,
    *,
    permutation: Json | None = None,
    no_signal: str | None = None,
) -> Json:
    """Whether the reason head ships, the numbers that decide, and why, in a sentence.

    Args:
        reason: `reason_metrics`.
        majority: the majority class's line in the table of systems.
        cfg: the protocol's settings.
        permutation: `permutation_metrics` of the same clips.
        no_signal: the data gate's finding that the labels carry no signal; None where it made none.
    """
    out: Json = {
        "rule": RULE, "ship_reason_head": False, "macro_f1_low": None, "majority_macro_f1": None,
        "chance_macro_f1": None, "permutation_p": None, "no_signal_in_data": no_signal is not None, "groups": None,
    }  # fmt: skip
    if reason is None or majority is None or majority["macro_f1"] is None or permutation is None:
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
        "permutation_p": permutation["p"],
        "groups": f1["groups"],
    }
    found = f"; the data gate: {no_signal}" if no_signal else ""
    present = sum(1 for row in reason["per_class"] if row["clips"])
    if present < 2:
        return {**out, "why": f"the test cries have one reason only: nothing can be told apart{found}"}
    if f1["groups"] < cfg.min_groups:
        return {
            **out,
            "why": f"{f1['groups']} test groups with a reason, at least {cfg.min_groups} are needed to judge{found}",
        }
    if low is None:
        return {**out, "why": f"the interval is undefined: too many resamples lack a reason{found}"}
    above = bool(low > max(base, chance))
    verb = "is above" if above else "is not above"
    bar = f"the majority class at {base:.3f}" if base >= chance else f"random answers at {chance:.3f}"
    p, within = permutation["p"], permutation["within"]
    rejected = p is not None and p < cfg.alpha
    tested = (
        "the permutation test is undefined"
        if p is None
        else f"labels permuted within {within} score as much with p = {p:.3f}, "
        f"{'below' if rejected else 'not below'} {cfg.alpha:g}"
    )
    return {
        **out,
        "ship_reason_head": above and rejected and no_signal is None,
        "why": f"macro-F1 {f1['value']:.3f}, lower end {low:.3f}, {verb} {bar}; {tested}{found}",
    }
