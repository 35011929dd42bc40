"""The same numbers on parts of the clips: by SNR, by site, by what a manifest says of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from infra.evaluation.protocol import Bench, Json, as_recorded, number
from models import metrics as m
from models.calibration import SiteCalibration

METADATA = ("platform", "age", "sex")
"""Columns of a manifest that describe who cries, and into what."""

MOST_VALUES = 12


def snr_slices(bench: Bench) -> list[Json]:
    """Gate and reasons on the clips as recorded (`snr_db` None) and at each SNR, worst last."""
    snr = np.asarray(bench.scores.snr_db, np.float64)
    levels = sorted({float(x) for x in snr[~np.isnan(snr)]}, reverse=True)
    slices: list[tuple[float | None, Bench]] = [(None, bench.rows(as_recorded(bench.scores)))]
    slices += [(level, bench.rows(snr == np.float64(level))) for level in levels]
    return [{"snr_db": level, **_brief(part)} for level, part in slices]


def site_slices(bench: Bench, calibrations: Mapping[str, SiteCalibration]) -> list[Json]:
    """Per site, on the clips of `bench`: counts, gate against the site's own non-cries, reasons, ECE before and after."""
    out = []
    for site in sorted({str(x) for x in bench.scores.site} - {""}):
        part = bench.rows(bench.scores.site == site)
        own = calibrations.get(site)
        gate, gate_truth = part.sided, part.scores.gate == 1
        cries = part.cries
        right = part.reason_p.argmax(1) == part.scores.reason if part.reasons else np.zeros(0, bool)
        row: Json = {
            "site": site,
            **_brief(part, floor=True),
            "gate_ece": _ece(part, part.gate_raw[gate], part.gate_p[gate], gate_truth[gate]),
            "reason_ece": _ece(
                part, part.reason_raw[cries].max(1), part.reason_p[cries].max(1), right[cries]
            ) if part.reasons and cries.any() else None,
            "calibration": own.to_dict() if own else None,
        }  # fmt: skip
        out.append(row)
    return out


def metadata_slices(bench: Bench, columns: Mapping[str, Mapping[str, str]]) -> dict[str, list[Json]]:
    """The same by the values of each column that describes clips (clip_id → value): the commonest `MOST_VALUES`, in order.

    The gate is judged against non-cries of the same value: public noise, which has none, is left out.
    """
    out: dict[str, list[Json]] = {}
    ids = [str(x) for x in bench.scores.clip_id]
    for name, known in columns.items():
        value = np.array([known.get(x, "") for x in ids], dtype=str)
        found, counts = np.unique(value[value != ""], return_counts=True)
        if not len(found):
            continue
        common = sorted(found[np.argsort(-counts, kind="stable")[:MOST_VALUES]])
        out[name] = [{"value": str(v), **_brief(bench.rows(value == v), floor=True)} for v in common]
    return out


def spread(rows: list[Json]) -> Json:
    """Mean, standard deviation and range over the sites of what calibration gives them."""
    out: Json = {}
    for name in ("gate", "reason"):
        for when in ("before", "after"):
            values = [r[f"{name}_ece"][when] for r in rows if r[f"{name}_ece"]]
            out[f"{name}_ece_{when}"] = _summary(values)
        out[f"{name}_temperature"] = _summary(
            [r["calibration"][f"{name}_temperature"] for r in rows
             if r["calibration"] and r["calibration"][f"{name}_fitted"]]
        )  # fmt: skip
    return out


def _summary(values: list[float | None]) -> Json | None:
    x = np.array([v for v in values if v is not None])
    if not x.size:
        return None
    return {"mean": number(x.mean()), "sd": number(x.std()), "min": number(x.min()), "max": number(x.max())}


def _brief(part: Bench, *, floor: bool = False) -> Json:
    """Counts, gate AUROC and FPR95 and reason macro-F1; `floor` skips intervals where a few groups could not carry them."""
    s = part.scores
    side, cries = part.sided, part.cries
    score, positive = s.gate_logit[side], s.gate[side] == 1
    out: Json = {
        "cries": int(positive.sum()),
        "noncries": int((~positive).sum()),
        "reason_clips": int(cries.sum()),
    }
    out["gate_auroc"] = part.interval(lambda w: m.auroc(score, positive, w), side).to_dict()
    out["gate_fpr95"] = number(m.fpr_at_tpr(score, positive))
    out["macro_f1"] = None
    if part.reasons and cries.any():
        c, truth, predicted = len(part.reasons), s.reason[cries], part.reason_p[cries].argmax(1)
        out["macro_f1"] = part.interval(
            lambda w: m.macro_f1(m.confusion(truth, predicted, c, w)), cries
        ).to_dict()
    if floor:
        out["groups"] = len({str(g) for g in s.group})
    return out


def _ece(part: Bench, before: np.ndarray, after: np.ndarray, happened: np.ndarray) -> Json:
    bins = part.config.bins
    return {
        "clips": int(happened.size),
        "before": number(m.expected_calibration_error(before, happened, bins=bins)),
        "after": number(m.expected_calibration_error(after, happened, bins=bins)),
        "adaptive_before": number(m.expected_calibration_error(before, happened, bins=bins, adaptive=True)),
        "adaptive_after": number(m.expected_calibration_error(after, happened, bins=bins, adaptive=True)),
    }
