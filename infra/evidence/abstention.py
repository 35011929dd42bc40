"""Which signal knows when not to answer: energy with outlier exposure against three others, as one document.

energy        −T·logsumexp of the reason logits, trained with outlier exposure (arXiv 2010.03759); it decides in a release
max_softmax   top probability of the reason head (arXiv 1610.02136)
gate          the gate's probability; ranked by its logit, which is the same order
mahalanobis   distance of pooled features to the training cries (arXiv 1807.03888; `infra.evidence.mahalanobis`)

How numbers are made is in `infra.evidence.signals`, thresholds in `infra.evidence.site_thresholds`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from infra.evaluation.protocol import NEGATIVES, EvaluationConfig, Json, Mask, as_recorded, negatives, number
from infra.evidence.signals import (
    Distances,
    Metric,
    Scores,
    SeedScores,
    mean_curve,
    seeds_of,
    within_folds,
)
from infra.evidence.site_thresholds import refused_at_own_threshold, site_threshold_table
from models import metrics as m
from models.bootstrap import group_bootstrap_many
from models.errors import DataError
from models.frames import UNKNOWN
from models.metrics import Floats

BAR_AUROC = 0.95  # energy, cries against all non-cries
_GRID = np.linspace(0.0, 1.0, 201)


def _average_precision_noncries(x: Floats, cry: Mask, w: Floats | None) -> Floats:
    return m.average_precision(-x, ~cry, w)


RANKING: dict[str, Metric] = {
    "auroc": m.auroc,
    "average_precision": m.average_precision,
    "average_precision_noncries": _average_precision_noncries,
    "fpr95": m.fpr_at_tpr,
}


def abstention_evidence(
    scores: Scores,
    *,
    distance: Distances | None = None,
    validation: Scores | None = None,
    validation_distance: Distances | None = None,
    name: str = "",
    command: str | None = None,
    config: EvaluationConfig | None = None,
) -> Json:
    """Ranking, risk–coverage and thresholds of every signal.

    Args:
        scores: out-of-fold scores of one arm, or those by seed; `part` holds the fold, views with noise are welcome.
        distance: Mahalanobis distances (R,) in the order of `scores` (by seed if those are); see `mahalanobis.site_distances`.
        validation: scores of each fold's validation clips by the fold's own network, `part` the fold: thresholds are then fitted
            on them. Without, they are cross-fitted: on the site's out-of-fold cries of all other folds.
        validation_distance: distances of `validation`.
        name: what the arm is called on the page.
        command: what makes the document, for the page.
        config: resamples, level and seed of the bootstrap.

    Returns:
        JSON types; numbers that the clips cannot support are None.

    Raises:
        DataError: no cry or no non-cry as recorded, seeds of different clips, a clip twice, or distances that do not fit.
    """
    config = config or EvaluationConfig()
    tables, left_out = seeds_of(scores, distance)
    clean = [t.rows(as_recorded(t.scores)) for t in tables]
    cry = clean[0].cry
    if not cry.any() or cry.all():
        raise DataError(
            f"abstention needs cries and non-cries as recorded; there are {cry.sum()} and {(~cry).sum()}"
        )
    fit, fitted_on = clean, "cross_fitted"
    if validation is not None:
        fit = [t.rows(as_recorded(t.scores)) for t in seeds_of(validation, validation_distance)[0]]
        fitted_on = "validation"
        if [t.seed for t in fit] != [t.seed for t in clean]:
            raise DataError(
                f"validation scores of seeds {[t.seed for t in fit]} for seeds {[t.seed for t in clean]}"
            )
    folds = sorted({int(f) for t in clean for f in t.scores.part})
    signals = list(clean[0].signals)
    cross_fitted = fitted_on == "cross_fitted"
    fittable = [s for s in signals if s in fit[0].signals] if len(folds) > 1 or not cross_fitted else []
    ranking = {which: rank_signals(clean, which, config) for which in NEGATIVES}
    auroc = ranking["all"]["signals"]["energy"]["auroc"] if "energy" in signals else None
    table = partial(site_threshold_table, config=config, cross_fitted=cross_fitted)
    return {
        "name": name,
        "command": command,
        "seeds": [t.seed for t in tables],
        "folds": folds,
        "signals": signals,
        "left_out": left_out,
        "fitted_on": fitted_on if fittable else None,
        "settings": {"resamples": config.resamples, "level": config.level, "seed": config.seed},
        "counts": {
            "clips": len(cry),
            "cries": int(cry.sum()),
            "site_noncries": int((~cry & (clean[0].scores.site != "")).sum()),
            "public_noncries": int((~cry & (clean[0].scores.site == "")).sum()),
            "groups": len(set(clean[0].scores.group.tolist())),
            "groups_of_cries": len(set(clean[0].scores.group[cry].tolist())),
            "sites": len({str(s) for s in clean[0].scores.site} - {""}),
        },
        "bar": {
            "auroc": BAR_AUROC,
            "measured": auroc,
            "met": bool(auroc and auroc["value"] is not None and auroc["value"] >= BAR_AUROC),
        },
        "ranking": ranking,
        "snr": _by_snr(tables, fit, fittable, config, cross_fitted=cross_fitted),
        "risk_coverage": _risk_coverage(clean, config),
        "thresholds": {s: table(fit, clean, s) for s in fittable},
    }


def _mean_over_seeds(
    metric: Metric,
    tables: Sequence[SeedScores],
    signal: str,
    truth: Sequence[Mask],
    w: Floats | None,
    *,
    folds: bool = True,
    both_sides: bool = True,
) -> Floats:
    values = [
        within_folds(
            metric,
            t.signals[signal],
            y,
            t.scores.part if folds else np.zeros(len(t.scores), np.int8),
            w,
            both_sides=both_sides,
        )
        for t, y in zip(tables, truth, strict=True)
    ]
    return np.asarray(np.mean(values, axis=0))


def rank_signals(clean: Sequence[SeedScores], which: str, config: EvaluationConfig) -> Json:
    """Cries against one kind of non-cry (of `NEGATIVES`) by every signal, and each signal less energy on the same resamples.

    Returns:
        `clips`, `prevalence`, `signals` with intervals and curves, and `against_energy`.
    """
    first = clean[0]
    keep = first.cry | negatives(first.scores, which)
    tables = [t.rows(keep) for t in clean]
    truth = [t.cry for t in tables]
    names = list(first.signals)
    columns = [(signal, stat) for signal in names for stat in (*RANKING, "pooled_auroc")]
    against = [(signal, stat) for signal in names if signal != "energy" for stat in RANKING]
    against = against if "energy" in names else []

    def statistics(w: Floats | None) -> Floats:
        value = {
            (signal, stat): _mean_over_seeds(
                RANKING.get(stat, m.auroc), tables, signal, truth, w, folds=stat in RANKING
            )
            for signal, stat in columns
        }
        difference = [value[signal, stat] - value["energy", stat] for signal, stat in against]
        return np.stack([*value.values(), *difference], -1)

    intervals = [
        i.to_dict()
        for i in group_bootstrap_many(
            statistics,
            tables[0].scores.group,
            seed=config.seed,
            resamples=config.resamples,
            level=config.level,
        )
    ]
    value = dict(zip(columns, intervals, strict=False))
    difference = dict(zip(against, intervals[len(columns) :], strict=True))
    out: Json = {
        "clips": int(keep.sum()),
        "prevalence": float(truth[0].mean()),
        "signals": {},
        "against_energy": {},
    }
    for signal in names:
        rows = [(t.signals[signal], t.cry, t.scores.part) for t in tables]
        out["signals"][signal] = {
            **{stat: value[signal, stat] for stat in (*RANKING, "pooled_auroc")},
            "auroc_by_seed": [
                number(_mean_over_seeds(m.auroc, [t], signal, [t.cry], None)) for t in tables
            ],
            "roc": mean_curve(_roc, rows, _GRID, stepped=False),
            "precision_recall": mean_curve(_precision, rows, _GRID[1:], stepped=True),
        }  # fmt: skip
        if (signal, "auroc") in difference:
            out["against_energy"][signal] = {stat: difference[signal, stat] for stat in RANKING}
    return out


def _roc(score: Floats, cry: Mask) -> tuple[Floats, Floats]:
    curve = m.roc_curve(score, cry)
    return curve.fpr, curve.tpr


def _precision(score: Floats, cry: Mask) -> tuple[Floats, Floats]:
    if cry.all():  # precision is 1 whatever the signal
        return np.zeros(0), np.zeros(0)
    curve = m.precision_recall_curve(score, cry)
    return curve.recall, curve.precision


def _by_snr(
    tables: Sequence[SeedScores],
    fit: Sequence[SeedScores],
    fittable: Sequence[str],
    config: EvaluationConfig,
    *,
    cross_fitted: bool,
) -> list[Json]:
    """AUROC at every SNR, and what the sites' thresholds (fitted on clips as recorded) keep and refuse there."""
    snr = np.asarray(tables[0].scores.snr_db)
    out: list[Json] = []
    for level in [None, *sorted({float(v) for v in snr[~np.isnan(snr)]}, reverse=True)]:
        at = as_recorded(tables[0].scores) if level is None else snr == level
        rows = [t.rows(at) for t in tables]
        if not rows[0].cry.any() or rows[0].cry.all():
            continue
        ranked = _auroc_of(rows, config)
        row: Json = {"snr_db": level, "clips": int(at.sum()), "signals": {}}
        for signal, auroc in ranked.items():
            row["signals"][signal] = {"auroc": auroc, "cries_kept": None, "noncries_refused": None}
            if signal in fittable:
                row["signals"][signal] |= refused_at_own_threshold(
                    fit, rows, signal, config, cross_fitted=cross_fitted
                )
        out.append(row)
    return out


def _auroc_of(rows: Sequence[SeedScores], config: EvaluationConfig) -> Json:
    names, truth = list(rows[0].signals), [t.cry for t in rows]

    def statistics(w: Floats | None) -> Floats:
        return np.stack([_mean_over_seeds(m.auroc, rows, signal, truth, w) for signal in names], -1)

    intervals = group_bootstrap_many(
        statistics, rows[0].scores.group, seed=config.seed, resamples=config.resamples, level=config.level
    )
    return {name: i.to_dict() for name, i in zip(names, intervals, strict=True)}


def _error_rate(_: Floats, right: Mask, w: Floats | None) -> Floats:
    weight = np.ones(right.size) if w is None else w
    total = weight.sum(-1)
    wrong = (weight * ~right).sum(-1)
    return np.divide(wrong, total, out=np.full(total.shape, np.nan), where=total > 0)


def _risk_coverage(clean: Sequence[SeedScores], config: EvaluationConfig) -> Json | None:
    """Errors of the reason head when only the clips that a signal trusts most are answered; None without reasons.

    `gain` is the error rate less the AURC: what the order of the signal is worth over a random one.
    """
    s = clean[0].scores
    cries = clean[0].cry & (s.reason != UNKNOWN)
    if not np.shape(s.reason_logits)[1] or not cries.any():
        return None
    tables = [t.rows(cries) for t in clean]
    right = [t.scores.reason_logits.argmax(1) == t.scores.reason for t in tables]
    names = list(tables[0].signals)
    columns = [
        ("", "error_rate"),
        *[(n, k) for n in names for k in ("aurc", "gain")],
        *[(n, "against_energy") for n in names],
    ]

    def statistics(w: Floats | None) -> Floats:
        error = _mean_over_seeds(_error_rate, tables, names[0], right, w, both_sides=False)
        aurc = {
            n: _mean_over_seeds(m.area_under_risk_coverage, tables, n, right, w, both_sides=False)
            for n in names
        }
        base = aurc.get("energy", np.full_like(error, np.nan))
        pairs = [v for n in names for v in (aurc[n], error - aurc[n])]
        return np.stack([error, *pairs, *[aurc[n] - base for n in names]], -1)

    value = {
        column: i.to_dict()
        for column, i in zip(
            columns,
            group_bootstrap_many(
                statistics,
                tables[0].scores.group,
                seed=config.seed,
                resamples=config.resamples,
                level=config.level,
            ),
            strict=True,
        )
    }
    grid = _GRID[4:]  # below 2 % of a fold there is no clip
    folds = [t.scores.part for t in tables]
    return {
        "cries": int(cries.sum()),
        "error_rate": value["", "error_rate"],
        "signals": {
            n: {
                "aurc": value[n, "aurc"],
                "gain": value[n, "gain"],
                "against_energy": value[n, "against_energy"] if n != "energy" else None,
                "curve": mean_curve(
                    _risk,
                    [(t.signals[n], y, f) for t, y, f in zip(tables, right, folds, strict=True)],
                    grid,
                    stepped=True,
                ),
            }
            for n in names
        },
        # ranks every right answer first: no signal can do better at this error rate
        "best_possible": mean_curve(
            _risk,
            [(y + np.arange(y.size) / (2 * y.size), y, f) for y, f in zip(right, folds, strict=True)],
            grid,
            stepped=True,
        ),
    }


def _risk(confidence: Floats, right: Mask) -> tuple[Floats, Floats]:
    curve = m.risk_coverage(confidence, right)
    return curve.coverage, curve.risk
