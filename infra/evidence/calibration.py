"""Calibration of the gate across sites: every site's fit on its own clips and on every other site's.

A fit, temperature and bias, is never judged on clips that it was fitted to: for the clips of a fold it is fitted to the site's
clips of the other folds, each scored by a network that met nothing of it. So a site has one fit a fold and seed, of networks that
differ a little; that is the price of using every clip. Public noise belongs to no site and is heard at all of them: its
recordings are dealt to the sites, or a ward without non-cries of its own would have nothing to be calibrated on.

The bias is needed: batches hold as many cries as non-cries, which no site does. Temperature alone, which the paper fits, is shown
beside it. The federated fit is that of all sites' clips, from sums alone (`models.calibration.fit_affine`).

ECE is biased: a perfectly calibrated predictor shows one above zero on a finite number of clips. What it would show is simulated
from the same probabilities; a site's ECE is set against the 95 % band of that, and the debiased ECE is what exceeds its mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from infra.evidence import conformal
from models import metrics as m
from models.bootstrap import group_bootstrap
from models.calibration import affine_sums, fit_affine, fit_temperature
from models.metrics import Floats, sigmoid
from models.predict import ClipScores
from models.seeds import derive_seed

Json = dict[str, Any]
Seeds = Mapping[int, ClipScores]
Mask = npt.NDArray[np.bool_]
Metric = Callable[..., Floats]

BINS: Final = 15
ALPHA: Final = 0.1
NULL_DRAWS: Final = 2000
RESAMPLES: Final = 1000
NONE, FEDERATED, OWN, TEMPERATURE = "none", "federated", "own", "temperature"

METRICS: Final[dict[str, Metric]] = {
    "ece": partial(m.expected_calibration_error, bins=BINS),
    "adaptive_ece": partial(m.expected_calibration_error, bins=BINS, adaptive=True),
    "brier": m.brier,
    "log_loss": m.log_loss,
}


def calibration_document(seeds: Seeds, command: str, resamples: int = RESAMPLES) -> Json:
    """Matrix, bands, reliability and conformal sets.

    Args:
        seeds: out-of-fold scores of one arm, by seed.
        command: that makes this.
        resamples: of the bootstrap.
    """
    worlds = [_Clips(scores, seed) for seed, scores in sorted(seeds.items())]
    first = worlds[0]
    calibrators = [NONE, *first.sites, FEDERATED]
    return {
        "protocol": __doc__.split("\n\n", 1)[1].replace("\n\n", " ").replace("\n", " ").strip(),
        "command": command,
        "seeds": sorted(seeds),
        "folds": len(first.folds),
        "bins": BINS,
        "clips": {site: _counts(first, first.site == site) for site in first.sites},
        "matrix": {
            row: {
                column: {
                    name: _mean([_value(metric, w, w.said[row], column) for w in worlds])
                    for name, metric in METRICS.items()
                }
                for column in (*first.sites, "all")
            }
            for row in calibrators
        },
        "own": {site: _own(worlds, site, resamples) for site in first.sites},
        "pooled": {kind: _pooled(worlds, kind, resamples) for kind in (NONE, TEMPERATURE, OWN, FEDERATED)},
        "reliability": {kind: _reliability(worlds, kind) for kind in (NONE, OWN)},
        "spread": _spread(worlds),
        "conformal": _conformal(worlds, resamples),
    }


class _Clips:
    """One seed's clips as recorded, who they are dealt to, and what every calibrator says of each."""

    def __init__(self, scores: ClipScores, seed: int) -> None:
        rows = scores.select(scores.view == 0)
        self.seed = seed
        self.sites = sorted({str(s) for s in rows.site} - {""})
        self.cry, self.fold, self.group = rows.gate == 1, rows.part, rows.group
        self.folds = sorted(set(self.fold.tolist()))
        self.site = np.array(
            [s or self.sites[derive_seed("dealt", g) % len(self.sites)] for s, g in zip(rows.site, rows.group, strict=True)]
        )  # fmt: skip
        self.temperature: dict[str, list[float]] = {name: [] for name in (*self.sites, FEDERATED)}
        self.bias: dict[str, list[float]] = {name: [] for name in self.temperature}
        self.said = {name: np.empty(len(rows)) for name in (NONE, *self.sites, FEDERATED, OWN, TEMPERATURE)}
        logit = rows.gate_logit
        self.said[NONE][:] = sigmoid(logit)
        for fold in self.folds:
            here = self.fold == fold
            theirs = {site: ~here & (self.site == site) for site in self.sites}
            asks = {site: partial(affine_sums, logit[at], self.cry[at]) for site, at in theirs.items()}
            fitted = {site: fit_affine([ask]) for site, ask in asks.items()}
            fitted[FEDERATED] = fit_affine(list(asks.values()))
            for name, fit in fitted.items():
                self.temperature[name].append(fit.temperature)
                self.bias[name].append(fit.bias)
                self.said[name][here] = fit.probability(logit[here])
            for site, at in theirs.items():
                mine = here & (self.site == site)
                self.said[OWN][mine] = self.said[site][mine]
                self.said[TEMPERATURE][mine] = sigmoid(logit[mine] / fit_temperature(logit[at], self.cry[at]))

    def at(self, site: str) -> Mask:
        """The clips of a site, or of "all"."""
        return np.ones(len(self.cry), bool) if site == "all" else self.site == site


def _value(metric: Metric, clips: _Clips, said: Floats, site: str) -> float:
    at = clips.at(site)
    return float(metric(said[at], clips.cry[at]))


def _interval(worlds: Sequence[_Clips], metric: Metric, kind: str, site: str, resamples: int) -> Json:
    """Mean over seeds with its interval over resampled groups."""
    at = worlds[0].at(site)

    def mean(weight: Floats | None) -> Floats:
        return np.mean([metric(w.said[kind][at], w.cry[at], weight) for w in worlds], axis=0)

    return group_bootstrap(mean, worlds[0].group[at], seed=0, resamples=resamples).to_dict()


def null_ece(said: Floats, seed: int, draws: int = NULL_DRAWS) -> Floats:
    """ECE (draws,) of a predictor that says `said` (n,) and is right about it: truths are drawn from these probabilities."""
    rng = np.random.Generator(np.random.PCG64(seed))
    edges = m.bin_edges(said, BINS, adaptive=False)
    index = np.clip(np.searchsorted(edges, said, side="left") - 1, 0, BINS - 1)
    member = np.zeros((len(said), BINS))
    member[np.arange(len(said)), index] = 1.0
    truth = rng.random((draws, len(said))) < said
    return np.asarray(np.abs((truth - said) @ member).sum(1) / len(said))


def _own(worlds: Sequence[_Clips], site: str, resamples: int) -> Json:
    """A site's own fit on its own clips, and what perfect calibration would show on as many."""
    at = worlds[0].at(site)
    null = np.mean([null_ece(w.said[OWN][at], w.seed) for w in worlds], axis=0)
    each = np.concatenate([null_ece(w.said[OWN][at], w.seed) for w in worlds])
    eces = [_value(METRICS["ece"], w, w.said[OWN], site) for w in worlds]
    high = float(np.quantile(each, 0.975))
    return {
        **{name: _interval(worlds, metric, OWN, site, resamples) for name, metric in METRICS.items()},
        "before": _interval(worlds, METRICS["ece"], NONE, site, resamples),
        "band": [float(np.quantile(each, 0.025)), high],
        "expected": float(null.mean()),
        "inside": bool(np.mean(eces) <= high),
        "temperature_alone": _interval(worlds, METRICS["ece"], TEMPERATURE, site, resamples),
        "temperature": _range([t for w in worlds for t in w.temperature[site]]),
        "bias": _range([b for w in worlds for b in w.bias[site]]),
    }


def _pooled(worlds: Sequence[_Clips], kind: str, resamples: int) -> Json:
    null = float(np.mean([null_ece(w.said[kind], w.seed).mean() for w in worlds]))
    out: Json = {name: _interval(worlds, metric, kind, "all", resamples) for name, metric in METRICS.items()}
    debiased = {k: None if v is None else max(0.0, v - null) for k, v in out["ece"].items() if k != "groups"}
    return {**out, "expected": null, "debiased": debiased}


def _reliability(worlds: Sequence[_Clips], kind: str) -> Json:
    """Points of the diagram over the clips of all seeds together, pooled and by site; counts are of clips times seeds."""
    out: Json = {}
    for site in ("all", *worlds[0].sites):
        said = np.concatenate([w.said[kind][w.at(site)] for w in worlds])
        cry = np.concatenate([w.cry[w.at(site)] for w in worlds])
        points = m.reliability(said, cry, bins=BINS)
        out[site] = [points.confidence.tolist(), points.frequency.tolist(), points.count.tolist()]
    return out


def _spread(worlds: Sequence[_Clips]) -> Json:
    """What the paper does not report: how much ECE and temperature differ over sites, and over seeds."""
    sites = worlds[0].sites
    ece = np.array([[_value(METRICS["ece"], w, w.said[OWN], s) for s in sites] for w in worlds])
    pooled = [_value(METRICS["ece"], w, w.said[OWN], "all") for w in worlds]
    temperature = np.array([[np.mean(w.temperature[s]) for s in sites] for w in worlds])
    return {
        "ece_over_sites": _range(ece.mean(0).tolist()),
        "ece_over_seeds": _range(pooled),
        "temperature_over_sites": _range(temperature.mean(0).tolist()),
        "temperature_over_seeds": _range(temperature.mean(1).tolist()),
    }


def _conformal(worlds: Sequence[_Clips], resamples: int) -> Json:
    """Coverage of sets calibrated on the other folds: of the site's own clips, and of all sites' together."""
    out: Json = {"nominal": 1.0 - ALPHA}
    first = worlds[0]
    for kind, by_class in (("own", False), ("together", False), ("by class", True)):
        held, size = [], []
        for w in worlds:
            said = w.said[FEDERATED]
            sets = np.zeros((len(said), 2), bool)
            for fold in w.folds:
                for site in w.sites if kind == "own" else ["all"]:
                    judged, fitting = (w.fold == fold) & w.at(site), (w.fold != fold) & w.at(site)
                    how = conformal.fit(said[fitting], w.cry[fitting], ALPHA, by_class=by_class)
                    sets[judged] = how.sets(said[judged])
            held.append(conformal.holds(sets, w.cry).astype(np.float64))
            size.append(sets.sum(1))
        kept, sizes = np.mean(held, axis=0), np.stack(size)
        part = partial(_share, kept, first.group, resamples)
        out[kind] = {
            "coverage": part(np.ones(len(kept), bool)),
            "cries": part(first.cry),
            "non_cries": part(~first.cry),
            "sites": {site: part(first.at(site)) for site in first.sites},
            "size": float(sizes.mean()),
            "both": float((sizes == 2).mean()),
            "neither": float((sizes == 0).mean()),
        }
    return out


def _share(held: Floats, group: npt.NDArray[np.str_], resamples: int, at: Mask) -> Json:
    values = held[at]

    def mean(weight: Floats | None) -> Floats:
        if weight is None:
            return np.asarray(values.mean())
        return np.asarray((weight @ values) / weight.sum(-1))

    return group_bootstrap(mean, group[at], seed=0, resamples=resamples).to_dict()


def _counts(clips: _Clips, at: Mask) -> Json:
    return {"cries": int((at & clips.cry).sum()), "non_cries": int((at & ~clips.cry).sum())}


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 5)


def _range(values: Sequence[float]) -> Json:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {
        "mean": float(np.mean(values)), "sd": deviation, "low": float(np.min(values)), "high": float(np.max(values)),
    }  # fmt: skip
