"""One threshold a site at 95 % of its cries kept, and what it does at every other site.

A site fits its threshold on its own cries that its network was not trained on; a site with too few takes the median of
the others' (the rules of `models.calibration`, applied to every signal as they are to the energy).

kept, refused   shares of cries and of non-cries: a clip is refused if its doubt (the signal, sign turned) is above the threshold
from i to j     site i's threshold on site j's clips; "pooled" is the median threshold, which every site without its own takes
interval        over groups of the clips that a threshold is applied to; the thresholds stay as fitted. Refitting them in every
                resample would be biased: of a site's 15 to 60 cries the 95 % point is among the largest few, which a resample
                often lacks and never exceeds, so that "kept" would be pulled below what is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.evaluation.protocol import NEGATIVES, EvaluationConfig, Json, number
from infra.evidence.signals import SeedScores
from models.bootstrap import group_bootstrap_many
from models.calibration import (
    MIN_CRIES,
    TRUE_POSITIVE_RATE,
    SiteCalibration,
    energy_threshold,
    pool_calibrations,
    with_fallback,
)
from models.metrics import Floats

POOLED = "pooled"


def fit_thresholds(
    doubt: npt.ArrayLike, site: npt.ArrayLike, sites: Sequence[str]
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Thresholds (S + 1,) from the doubt of cries (n,) at their site (n,), the pooled one last; and who fitted its own (S,).

    Infinite (nothing is refused) where no site has `MIN_CRIES` cries.
    """
    x, at = np.asarray(doubt, np.float64), np.asarray(site)
    fitted = []
    for name in sites:
        n = int((at == name).sum())
        enough = n >= MIN_CRIES
        limit = energy_threshold(x[at == name]) if enough else None
        fitted.append(SiteCalibration(name, energy_threshold=limit, energy_fitted=enough, n_cries=n))
    pooled = pool_calibrations(fitted)
    limits = [with_fallback(own, pooled).energy_threshold for own in fitted] + [pooled.energy_threshold]
    return (
        np.array([np.inf if limit is None else limit for limit in limits], np.float64),
        np.array([own.energy_fitted for own in fitted], bool),
    )


@dataclass(frozen=True)
class _Counts:
    """One seed's weighted counts (r, T, S + 1) of clips by threshold and place; the last place is public noise."""

    kept: Floats
    refused: Floats
    cries: Floats  # (r, 1, S + 1)
    noncries: Floats


class _Experiment:
    """One signal's thresholds at every fold and seed, and which clips they refuse: only counts depend on bootstrap weights."""

    def __init__(
        self, fit: Sequence[SeedScores], use: Sequence[SeedScores], name: str, *, cross_fitted: bool
    ) -> None:
        rows = use[0].scores
        self.group = rows.group
        self.sites = sorted({str(s) for s in rows.site} - {""})
        self.place = np.array(
            [self.sites.index(str(s)) if s else len(self.sites) for s in rows.site], np.intp
        )
        self.where = np.eye(len(self.sites) + 1)[self.place]
        self.cry = use[0].cry
        self.above: list[npt.NDArray[np.bool_]] = []  # by seed (n, T): the clip is refused by that threshold
        thresholds, own, to_fit = [], [], []
        for f, u in zip(fit, use, strict=True):
            above = np.zeros((len(rows), len(self.sites) + 1), bool)
            for part in np.unique(u.scores.part):
                held = (f.scores.part != part) if cross_fitted else (f.scores.part == part)
                rows_to_fit = held & f.cry
                at = f.scores.site[rows_to_fit]
                limit, fitted = fit_thresholds(-f.signals[name][rows_to_fit], at, self.sites)
                inside = u.scores.part == part
                above[inside] = -u.signals[name][inside, None] > limit
                thresholds.append(limit)
                own.append(fitted)
                to_fit.append([int((at == s).sum()) for s in self.sites])
            self.above.append(above)
        self.thresholds = np.stack(thresholds)  # (fits, S + 1)
        self.own = np.stack(own)  # (fits, S)
        self.to_fit = np.array(to_fit)  # (fits, S)

    def counts(self, weight: Floats) -> list[_Counts]:
        """Counts under weights (r, n), by seed."""
        cries, noncries = self.where * self.cry[:, None], self.where * ~self.cry[:, None]
        totals = ((weight @ cries)[:, None], (weight @ noncries)[:, None])
        return [
            _Counts(
                np.stack([weight @ (cries * ~a[:, None]) for a in above.T], 1),
                np.stack([weight @ (noncries * a[:, None]) for a in above.T], 1),
                *totals,
            )
            for above in self.above
        ]

    def intervals(
        self, columns: Callable[[list[_Counts]], Floats], config: EvaluationConfig
    ) -> list[dict[str, Any]]:
        """Of columns (r, K) that come from counts: K values with their intervals, as JSON."""

        def statistics(weight: Floats | None) -> Floats:
            values = columns(self.counts(np.ones((1, self.group.size)) if weight is None else weight))
            return values[0] if weight is None else values

        made = group_bootstrap_many(
            statistics, self.group, seed=config.seed, resamples=config.resamples, level=config.level
        )
        return [interval.to_dict() for interval in made]


def _share(top: Floats, bottom: Floats) -> Floats:
    top, bottom = np.broadcast_arrays(top, bottom)
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)


def _overall(counts: Sequence[_Counts], row: npt.NDArray[np.intp]) -> dict[str, Floats]:
    """Shares over all clips when place k answers by threshold `row[k]`; (r,) means over the seeds."""
    places = np.arange(len(row))
    home, public = places[:-1], places[-1:]
    out = {
        "cries_kept": np.mean(
            [_share(c.kept[:, row, places].sum(1), c.cries[:, 0].sum(1)) for c in counts], 0
        )
    }
    for which, at in zip(NEGATIVES, (places, home, public), strict=True):
        out[f"refused_{which}"] = np.mean(
            [_share(c.refused[:, row[at], at].sum(1), c.noncries[:, 0, at].sum(1)) for c in counts], 0
        )
    return out


def refused_at_own_threshold(
    fit: Sequence[SeedScores],
    use: Sequence[SeedScores],
    name: str,
    config: EvaluationConfig,
    *,
    cross_fitted: bool,
) -> Json:
    """`cries_kept` and `noncries_refused` over all clips of `use`, each at its site's threshold from `fit`, with intervals."""
    experiment = _Experiment(fit, use, name, cross_fitted=cross_fitted)
    own = np.arange(len(experiment.sites) + 1)

    def both(counts: list[_Counts]) -> Floats:
        got = _overall(counts, own)
        return np.stack([got["cries_kept"], got["refused_all"]], -1)

    kept, refused = experiment.intervals(both, config)
    return {"cries_kept": kept, "noncries_refused": refused}


def _columns(counts: Sequence[_Counts]) -> dict[str, Floats]:
    """What gets an interval, as name → (r, …): means over the seeds of each seed's shares."""
    kept = np.mean([_share(c.kept, c.cries) for c in counts], 0)[..., :-1]
    refused = np.mean([_share(c.refused, c.noncries) for c in counts], 0)[..., :-1]
    s = kept.shape[-1]
    out: dict[str, Floats] = {"kept": kept, "refused": refused}
    own = _overall(
        counts, np.arange(s + 1)
    )  # public noise has no site: the pooled threshold, the last, is its own
    pooled = _overall(counts, np.full(s + 1, s))
    away = ~np.eye(s, dtype=bool)
    out |= {f"own.{k}": v for k, v in own.items()}
    out |= {f"pooled.{k}": v for k, v in pooled.items()}
    out |= {f"own_minus_pooled.{k}": v - pooled[k] for k, v in own.items()}
    out["other.cries_kept"] = _mean(kept[:, :-1][:, away])
    out["other.refused_site"] = _mean(refused[:, :-1][:, away])
    return out


def _mean(x: Floats) -> Floats:
    """Mean over the last axis of what is defined."""
    known = ~np.isnan(x)
    return _share(np.where(known, x, 0.0).sum(-1), known.sum(-1).astype(float))


def site_threshold_table(
    fit: Sequence[SeedScores],
    use: Sequence[SeedScores],
    name: str,
    config: EvaluationConfig,
    *,
    cross_fitted: bool,
) -> Json:
    """Thresholds of one signal at every site, applied there and everywhere.

    Args:
        fit: rows to fit on, by seed: clips as recorded.
        use: rows to apply to, by seed in the same order; `fit` itself for the clips as recorded.
        name: the signal.
        config: resamples, level and seed.
        cross_fitted: the threshold of a fold comes from all other folds, which other folds' networks scored; otherwise from the
            rows of `fit` with that fold as their `part`, which its own network scored.

    Returns:
        `sites`, `cross` (kept and refused from i to j with counts, means over the seeds), `overall` and `spread`.
    """
    experiment = _Experiment(fit, use, name, cross_fitted=cross_fitted)

    def flat(counts: list[_Counts]) -> Floats:
        return np.concatenate([v.reshape(len(v), -1) for v in _columns(counts).values()], 1)

    it = iter(experiment.intervals(flat, config))
    counts = experiment.counts(np.ones((1, experiment.group.size)))
    value: dict[str, npt.NDArray] = {}
    for key, v in _columns(counts).items():
        filled = np.empty(v[0].shape, object)
        for index in np.ndindex(filled.shape):
            filled[index] = next(it)
        value[key] = filled
    return _document(experiment, value, counts)


def _document(experiment: _Experiment, value: dict[str, npt.NDArray], counts: Sequence[_Counts]) -> Json:
    sites, thresholds = experiment.sites, experiment.thresholds
    finite = np.where(np.isfinite(thresholds), thresholds, np.nan)

    def mean_count(key: str) -> Floats:
        return np.asarray(np.mean([getattr(c, key) for c in counts], 0)[0])

    def cells(key: str) -> list[list[Json]]:
        n = mean_count(key)
        return [
            [{**{k: v for k, v in cell.items() if k != "groups"}, "count": round(float(n[i, j]), 3)}
             for j, cell in enumerate(row)]
            for i, row in enumerate(value[key])
        ]  # fmt: skip

    cries, noncries = mean_count("cries")[0], mean_count("noncries")[0]
    kept, refused = cells("kept"), cells("refused")
    table = [
        {
            "site": s,
            "threshold": number(finite[:, i].mean()),
            "threshold_sd_over_fits": number(_sd(finite[:, i])),
            "cries_to_fit": [int(experiment.to_fit[:, i].min()), int(experiment.to_fit[:, i].max())],
            "fitted": int(experiment.own[:, i].sum()),
            "cries": round(float(cries[i])),
            "noncries": round(float(noncries[i])),
            "kept": kept[i][i],
            "refused": refused[i][i],
        }
        for i, s in enumerate(sites)
    ]
    home = range(len(sites))
    pairs = {
        "own": [(i, i) for i in home],
        "other": [(i, j) for i in home for j in home if i != j],
        "pooled": [(len(sites), j) for j in home],
    }
    overall: dict[str, Json] = {}
    for key, cell in value.items():
        name, _, statistic = key.partition(".")
        if statistic:
            overall.setdefault(name, {})[statistic] = cell.item()
    return {
        "target": TRUE_POSITIVE_RATE,
        "min_cries": MIN_CRIES,
        "fits": len(thresholds),
        "pooled_threshold": number(finite[:, -1].mean()),
        "threshold_sd_over_sites": number(_sd(finite[:, :-1].mean(0))),
        "sites": table,
        "cross": {
            "from": [*sites, POOLED],
            "to": list(sites),
            "cries": [row["cries"] for row in table],
            "noncries": [row["noncries"] for row in table],
            "kept": kept,
            "refused": refused,
        },
        "overall": overall,
        "spread": {
            name: {
                "kept": _spread([kept[i][j]["value"] for i, j in at], [cries[j] for _, j in at]),
                "refused": _spread([refused[i][j]["value"] for i, j in at], [noncries[j] for _, j in at]),
            }
            for name, at in pairs.items()
        },
    }


def _sd(x: npt.ArrayLike) -> float:
    x = np.asarray(x, np.float64)
    return float(np.std(x, ddof=1)) if x.size > 1 and np.isfinite(x).all() else float("nan")


def _spread(shares: Sequence[float | None], n: Sequence[float]) -> Json:
    """Spread of shares over the sites, beside what equal sites of those sizes would show by the luck of their clips alone."""
    known = [(p, k) for p, k in zip(shares, n, strict=True) if p is not None and k > 0]
    if not known:
        return {"mean": None, "sd": None, "min": None, "max": None, "sd_by_chance": None}
    p = np.array([v for v, _ in known])
    overall = np.average(p, weights=[k for _, k in known])
    chance = np.sqrt(np.mean([overall * (1 - overall) / k for _, k in known]))
    return {
        "mean": number(p.mean()),
        "sd": number(_sd(p)),
        "min": number(p.min()),
        "max": number(p.max()),
        "sd_by_chance": number(chance),
    }
