"""Thresholds per site, and the table of what each does at every other, counted by hand."""

from dataclasses import replace

import numpy as np
import pytest

from infra.evaluation.protocol import EvaluationConfig
from infra.evidence.signals import seeds_of
from infra.evidence.site_thresholds import fit_thresholds, refused_at_own_threshold, site_threshold_table
from models.calibration import MIN_CRIES, calibrate_site, pool_calibrations, with_fallback
from models.frames import VAL

QUICK = EvaluationConfig(resamples=40)


def test_thresholds_and_fallback_are_those_of_the_sites_own_calibration(out_of_fold):
    s = replace(out_of_fold(), part=np.full(len(out_of_fold()), VAL, np.int8))
    few = (s.site == "site2") & (s.gate == 1)
    s = s.select(~few | (np.cumsum(few) < MIN_CRIES))
    sites = [f"site{k}" for k in range(4)]
    cry = s.gate == 1
    got, own = fit_thresholds(s.energy[cry], s.site[cry], sites)
    calibrated = [calibrate_site(s.select(s.site == name)) for name in sites]
    pooled = pool_calibrations(calibrated)
    expected = [with_fallback(c, pooled).energy_threshold for c in calibrated] + [pooled.energy_threshold]
    assert got.tolist() == expected
    assert own.tolist() == [True, True, False, True]
    assert got[2] == got[-1]


def test_nobody_with_enough_cries_refuses_nothing():
    got, own = fit_thresholds(np.zeros(MIN_CRIES - 1), np.full(MIN_CRIES - 1, "a"), ["a", "b"])
    assert np.isinf(got).all()
    assert not own.any()


def _by_hand(s, i, j):
    """Threshold of site i on the clips of site j, fold by fold: (cries kept, non-cries refused)."""
    kept = refused = 0
    for fold in np.unique(s.part):
        fit = np.sort(s.energy[(s.site == i) & (s.gate == 1) & (s.part != fold)])
        limit = fit[int(np.ceil(0.95 * (len(fit) - 1)))]
        at = (s.site == j) & (s.part == fold)
        kept += (s.energy[at & (s.gate == 1)] <= limit).sum()
        refused += (s.energy[at & (s.gate == 0)] > limit).sum()
    return kept, refused


def test_every_cell_is_counted_as_by_hand_and_means_are_over_seeds(seeds):
    by_seed = seeds(2)
    tables, _ = seeds_of(by_seed)
    doc = site_threshold_table(tables, tables, "energy", QUICK, cross_fitted=True)
    cross = doc["cross"]
    assert cross["from"] == [*cross["to"], "pooled"] == ["site0", "site1", "site2", "site3", "pooled"]
    for i, a in enumerate(cross["to"]):
        for j, b in enumerate(cross["to"]):
            kept, refused = np.mean([_by_hand(s, a, b) for s in by_seed.values()], 0)
            assert cross["kept"][i][j]["count"] == kept
            assert cross["refused"][i][j]["count"] == refused
            assert cross["kept"][i][j]["value"] == pytest.approx(kept / cross["cries"][j])
            assert cross["refused"][i][j]["value"] == pytest.approx(refused / cross["noncries"][j])
    assert cross["cries"] == [30] * 4
    own = doc["overall"]["own"]
    kept = np.mean([cross["kept"][k][k]["value"] for k in range(4)])  # sites of equal size
    assert own["cries_kept"]["value"] == pytest.approx(kept)
    away = [cross["kept"][i][j]["value"] for i in range(4) for j in range(4) if i != j]
    assert doc["overall"]["other"]["cries_kept"]["value"] == pytest.approx(np.mean(away))
    assert doc["spread"]["other"]["kept"]["sd"] == pytest.approx(np.std(away, ddof=1))
    assert doc["spread"]["other"]["kept"]["min"] == pytest.approx(min(away))
    light = refused_at_own_threshold(tables, tables, "energy", QUICK, cross_fitted=True)
    assert light == {"cries_kept": own["cries_kept"], "noncries_refused": own["refused_all"]}


def test_public_noise_meets_the_pooled_threshold_whoever_answers(seeds):
    tables, _ = seeds_of(seeds(1))
    doc = site_threshold_table(tables, tables, "energy", QUICK, cross_fitted=True)["overall"]
    assert doc["own"]["refused_public"] == doc["pooled"]["refused_public"]
    assert doc["own_minus_pooled"]["refused_public"]["value"] == 0
    assert doc["own_minus_pooled"]["cries_kept"]["value"] == pytest.approx(
        doc["own"]["cries_kept"]["value"] - doc["pooled"]["cries_kept"]["value"]
    )


def test_a_site_on_a_scale_of_its_own_needs_its_own_threshold(out_of_fold):
    """Shifted energies of one site: its threshold travels badly both ways, at home nothing changes."""
    s = out_of_fold()
    shifted = replace(s, energy=s.energy + 3.0 * (s.site == "site1"))
    before, after = (
        site_threshold_table(*[seeds_of(x)[0]] * 2, "energy", QUICK, cross_fitted=True) for x in (s, shifted)
    )
    assert after["cross"]["kept"][1][1] == before["cross"]["kept"][1][1]
    assert after["cross"]["kept"][0][1]["value"] < before["cross"]["kept"][0][1]["value"] - 0.3
    assert after["cross"]["refused"][1][0]["value"] < before["cross"]["refused"][1][0]["value"] - 0.2
    spread = after["spread"]
    assert spread["other"]["kept"]["sd"] > 2 * spread["other"]["kept"]["sd_by_chance"]
    assert spread["own"]["kept"]["sd"] < 2 * spread["own"]["kept"]["sd_by_chance"]
    assert spread["pooled"]["kept"]["min"] < 0.8


def test_a_fold_is_not_judged_by_a_threshold_of_its_own_clips(out_of_fold):
    """A fold whose cries all look strange is refused: the other folds never saw such cries."""
    s = out_of_fold()
    odd = replace(s, energy=np.where(s.part == 2, 100.0, s.energy))
    doc = site_threshold_table(*[seeds_of(odd)[0]] * 2, "energy", QUICK, cross_fitted=True)
    share = ((s.part == 2) & (s.gate == 1)).sum() / (s.gate == 1).sum()
    assert doc["overall"]["own"]["cries_kept"]["value"] == pytest.approx(1 - share)


def test_given_validation_rows_each_fold_takes_those_of_its_own_network(out_of_fold):
    """Fold 3's network held only cries that look easy, so its threshold is strict: its cries are refused, no other fold's."""
    s = out_of_fold(cries=12)
    held = replace(s, energy=s.energy - 50.0 * (s.part == 3))
    doc = site_threshold_table(
        seeds_of(held)[0], seeds_of(s)[0], "energy", EvaluationConfig(resamples=10), cross_fitted=False
    )
    assert all(site["fitted"] == doc["fits"] == 5 for site in doc["sites"])
    share = ((s.part == 3) & (s.gate == 1)).sum() / (s.gate == 1).sum()
    assert 0.95 * (1 - share) <= doc["overall"]["own"]["cries_kept"]["value"] <= 1 - share + 1e-12
