"""`evaluate`: scores and calibrations in, the evaluation document of `metrics.json` out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np

from infra.evaluation.heads import gate_metrics, reason_metrics
from infra.evaluation.permutation import permutation_metrics
from infra.evaluation.protocol import (
    Bench,
    EvaluationConfig,
    Json,
    as_recorded,
    make_bench,
    number,
)
from infra.evaluation.release import majority_reason, release_decision
from infra.evaluation.selective import abstention_metrics, risk_coverage_metrics
from infra.evaluation.slices import metadata_slices, site_slices, snr_slices, spread
from models import metrics as m
from models.calibration import SiteCalibration
from models.errors import DataError
from models.predict import ClipScores

SYSTEM = "federated"
MAJORITY = "majority"


def evaluate(
    scores: ClipScores,
    calibrations: Mapping[str, SiteCalibration] | None = None,
    baselines: Mapping[str, ClipScores] | None = None,
    *,
    default: SiteCalibration | None = None,
    config: EvaluationConfig | None = None,
    system: str = SYSTEM,
    metadata: Mapping[str, Mapping[str, str]] | None = None,
    no_signal: str | None = None,
    leaky: Json | None = None,
) -> Json:
    """Every number of the report that comes from scores, each with its protocol and, where it has one, its interval.

    Args:
        scores: the system's, on the clips to be judged and on no others (`scores.of_part(TEST)`): rows as recorded, and
            rows at given SNRs where there are any. Unlabelled clips are left out here.
        calibrations: by site. Clips of other sites take `default`, or the pool of these.
        baselines: name → scores of other systems on the same clips (as recorded), e.g. "majority", "logistic_regression",
            "central"; matched by site and clip, clips that a baseline lacks are left out of its comparison.
        default: calibration for sites without their own, as in a release.
        config: the protocol's settings.
        system: what `scores` is called in the table of systems.
        metadata: column → clip_id → value, such as platform, age and sex: the numbers by each value. Labels are permuted within
            `platform`; without that column, and where a cry has none, within sites.
        no_signal: what the data gate found where its probe heard no signal in the labels: it holds the reason head back.
        leaky: `infra.leaky.leaky_protocol`, passed through as a warning.

    Returns:
        A JSON document: protocol, counts, gate, reason, permutation, abstention, risk_coverage, snr, sites, slices,
        calibration_spread, systems, leaky_warning, release. Undefined numbers are None.

    Raises:
        DataError: no labelled clip as recorded is among the rows.
    """
    cfg = config or EvaluationConfig()
    known = dict(calibrations or {})
    labelled = scores.select(np.asarray(scores.gate) >= 0)
    bench = make_bench(labelled, known, cfg, default)
    clean = bench.rows(as_recorded(labelled))
    if not len(clean.scores):
        raise DataError(
            "nothing to evaluate: no labelled clip as recorded among the scores; check the manifest's roles and the part"
        )
    described = metadata or {}
    reason, permutation = reason_metrics(clean), permutation_metrics(clean, described.get("platform"))
    rows = site_slices(clean, known)
    systems = {system: _system(clean, clean)}
    for name, other in (baselines or {}).items():
        systems[name] = _system(make_bench(_recorded(other), None, cfg), clean)
    if MAJORITY not in systems and reason is not None:
        # its shares are those of these very clips, so its calibration error is 0 by construction: no number to show
        systems[MAJORITY] = {**_system(majority_reason(clean), clean), "reason_ece": None}
    return {
        "protocol": _protocol(clean, cfg, bool(known) or default is not None),
        "counts": _counts(clean),
        "reasons": list(clean.reasons),
        "gate": gate_metrics(clean),
        "reason": reason,
        "permutation": permutation,
        "abstention": abstention_metrics(clean),
        "risk_coverage": risk_coverage_metrics(clean),
        "snr": snr_slices(bench),
        "sites": rows,
        "slices": metadata_slices(clean, described),
        "calibration_spread": spread(rows),
        "systems": systems,
        "leaky_warning": leaky,
        "release": release_decision(
            reason, systems.get(MAJORITY), cfg, permutation=permutation, no_signal=no_signal
        ),
    }


def _recorded(scores: ClipScores) -> ClipScores:
    return scores.select(as_recorded(scores) & (np.asarray(scores.gate) >= 0))


def _protocol(clean: Bench, cfg: EvaluationConfig, calibrated: bool) -> Json:
    groups = len({str(g) for g in clean.scores.group})
    return {
        "unit": "the unit is the clip, and its score the soft maximum (reasons: mean) of the logits of its one-second frames",
        "headline_view": "clips as recorded, no noise mixed in",
        "interval": (
            f"{cfg.level:.0%} percentile interval, {cfg.resamples} bootstrap resamples of groups "
            "(an infant, a recording device or a noise class is drawn with all of its clips)"
        ),
        "calibrated": calibrated,
        "groups": groups,
        "settings": asdict(cfg),
    }


def _counts(clean: Bench) -> Json:
    s = clean.scores
    return {
        "clips": len(s),
        "cries": int((s.gate == 1).sum()),
        "cries_with_reason": int(clean.cries.sum()),
        **{f"{which}_noncries": int(clean.negatives(which).sum()) for which in ("site", "public")},
        "groups_of_cries": len({str(g) for g in s.group[s.gate == 1]}),
        "sites": len({str(x) for x in s.site} - {""}),
        "by_reason": {name: int((s.reason[clean.cries] == k).sum()) for k, name in enumerate(s.reasons)},
    }


def _system(bench: Bench, champion: Bench) -> Json:
    """One line of the table of systems, with the champion's paired advantage on the clips that both scored."""
    mine, theirs = _matched(bench, champion)
    s = bench.scores
    side, cries = bench.sided, bench.cries
    logit, positive = s.gate_logit[side], s.gate[side] == 1
    out: Json = {
        "clips": len(s),
        "gate_auroc": bench.interval(lambda w: m.auroc(logit, positive, w), side).to_dict(),
        "gate_fpr95": bench.interval(lambda w: m.fpr_at_tpr(logit, positive, w), side).to_dict(),
        "macro_f1": None,
        "auc": None,
        "reason_ece": None,
        "advantage": {"clips": len(mine.scores), "gate_auroc": None, "macro_f1": None},
    }
    if bench.reasons and cries.any():
        truth, p = s.reason[cries], bench.reason_raw[cries]
        c, predicted = len(bench.reasons), bench.reason_raw[cries].argmax(1)
        out["macro_f1"] = bench.interval(
            lambda w: m.macro_f1(m.confusion(truth, predicted, c, w)), cries
        ).to_dict()
        out["reason_ece"] = number(
            m.expected_calibration_error(p.max(1), predicted == truth, bins=bench.config.bins)
        )
        out["auc"] = bench.interval(lambda w: m.auroc_one_vs_rest(p, truth, w), cries).to_dict()
    if bench is champion or not len(mine.scores):
        return out
    side, cries = mine.sided, mine.cries
    y, a, b = mine.scores.gate[side] == 1, theirs.scores.gate_logit[side], mine.scores.gate_logit[side]
    out["advantage"]["gate_auroc"] = mine.interval(
        lambda w: m.auroc(a, y, w) - m.auroc(b, y, w), side
    ).to_dict()
    if bench.reasons and champion.reasons and cries.any():
        truth, c = mine.scores.reason[cries], len(champion.reasons)
        p, q = theirs.reason_raw[cries].argmax(1), mine.reason_raw[cries].argmax(1)
        out["advantage"]["macro_f1"] = mine.interval(
            lambda w: m.macro_f1(m.confusion(truth, p, c, w)) - m.macro_f1(m.confusion(truth, q, c, w)), cries
        ).to_dict()
    return out


def _matched(bench: Bench, champion: Bench) -> tuple[Bench, Bench]:
    """Rows of both for the clips that both have, in the same order."""

    def keys(b: Bench) -> dict[tuple[str, str], int]:
        return {
            (str(site), str(c)): i
            for i, (site, c) in enumerate(zip(b.scores.site, b.scores.clip_id, strict=True))
        }

    mine, theirs = keys(bench), keys(champion)
    shared = [k for k in mine if k in theirs]
    return (
        bench.rows(np.array([mine[k] for k in shared], np.intp)),
        champion.rows(np.array([theirs[k] for k in shared], np.intp)),
    )


def headline(document: Json) -> Json:
    """The few numbers a terminal shows, from an evaluation document."""
    reason, gate = document["reason"], document["gate"]
    return {
        "gate_auroc": gate["negatives"]["all"]["auroc"],
        "gate_fpr95": gate["negatives"]["all"]["fpr95"],
        "macro_f1": reason["macro_f1"] if reason else None,
        "auc": reason["auc"] if reason else None,
        "reason_ece": reason["calibration"]["after"]["ece"] if reason else None,
        "majority_macro_f1": (document["systems"].get(MAJORITY) or {}).get("macro_f1"),
        "ship_reason_head": document["release"]["ship_reason_head"],
        "clips": number(document["counts"]["clips"]),
    }
