"""The abstention document, on scores of a known make."""

import json
from dataclasses import replace

import numpy as np
import pytest
import sklearn.metrics as sk

from infra.evaluation.protocol import EvaluationConfig
from infra.evidence.abstention import abstention_evidence, rank_signals
from infra.evidence.signals import seeds_of
from models.errors import DataError
from models.metrics import area_under_risk_coverage, precision_recall_curve

QUICK = EvaluationConfig(resamples=40)


@pytest.fixture(scope="module")
def scores(seeds):
    return seeds(2, snrs=(20.0, 0.0))


@pytest.fixture(scope="module")
def document(scores):
    distance = {
        k: 3 * s.energy + 60 + np.random.default_rng(k).normal(size=len(s)) for k, s in scores.items()
    }
    return abstention_evidence(scores, distance=distance, config=QUICK)


def _folds(s):
    return [s.select((s.view == 0) & (s.part == f)) for f in range(5)]


def test_it_is_json_and_the_same_twice(scores, document):
    json.dumps(document, allow_nan=False)
    again = abstention_evidence(scores, config=QUICK)
    assert again["ranking"]["all"]["signals"]["gate"] == document["ranking"]["all"]["signals"]["gate"]
    assert again["left_out"] == {"mahalanobis": "no distances were given"}


def test_numbers_are_scikit_learns_within_folds_and_averaged_over_seeds(scores, document):
    energy = document["ranking"]["all"]["signals"]["energy"]
    for key, metric in (
        ("auroc", lambda f: sk.roc_auc_score(f.gate, -f.energy)),
        ("average_precision", lambda f: sk.average_precision_score(f.gate, -f.energy)),
        ("average_precision_noncries", lambda f: sk.average_precision_score(1 - f.gate, f.energy)),
    ):
        by_seed = [np.mean([metric(f) for f in _folds(s)]) for s in scores.values()]
        assert energy[key]["value"] == pytest.approx(np.mean(by_seed)), key
        if key == "auroc":
            assert energy["auroc_by_seed"] == pytest.approx(by_seed)
    pooled = [sk.roc_auc_score(s.gate[s.view == 0], -s.energy[s.view == 0]) for s in scores.values()]
    assert energy["pooled_auroc"]["value"] == pytest.approx(np.mean(pooled))
    fpr, tpr = energy["roc"]
    assert np.trapezoid(tpr, fpr) == pytest.approx(energy["auroc"]["value"], abs=0.01)
    assert document["bar"]["measured"] == energy["auroc"]


def test_seeds_are_not_an_ensemble(scores):
    """The mean score of two seeds ranks better than either; the document reports the mean of the two."""
    rng = np.random.default_rng(7)
    two = {k: replace(s, energy=s.energy + 3 * rng.normal(size=len(s))) for k, s in scores.items()}
    mean = replace(two[0], energy=(two[0].energy + two[1].energy) / 2)
    ensemble, one = (rank_signals(seeds_of(x)[0], "all", EvaluationConfig(resamples=10)) for x in (mean, two))
    by_seed = one["signals"]["energy"]["auroc_by_seed"]
    assert one["signals"]["energy"]["auroc"]["value"] == pytest.approx(np.mean(by_seed))
    assert ensemble["signals"]["energy"]["auroc"]["value"] > max(by_seed)


def test_a_scale_of_each_folds_own_changes_nothing_within_folds(scores):
    s = scores[0]
    scaled = replace(s, energy=s.energy * (1.0 + s.part) + 30.0 * s.part)
    a, b = (abstention_evidence(x, config=QUICK)["ranking"]["all"]["signals"]["energy"] for x in (s, scaled))
    assert a["auroc"] == b["auroc"]
    assert a["fpr95"] == b["fpr95"]
    assert b["pooled_auroc"]["value"] < a["pooled_auroc"]["value"]


def test_differences_are_paired(scores, document):
    ranking = document["ranking"]["all"]
    d = ranking["against_energy"]["mahalanobis"]["auroc"]
    one, energy = (ranking["signals"][n]["auroc"] for n in ("mahalanobis", "energy"))
    assert d["value"] == pytest.approx(one["value"] - energy["value"])
    assert d["high"] - d["low"] < 0.8 * (one["high"] - one["low"] + energy["high"] - energy["low"])
    same = abstention_evidence(
        scores[0], distance=scores[0].energy, config=QUICK
    )  # distance = energy: no difference at all
    for stat in same["ranking"]["all"]["against_energy"]["mahalanobis"].values():
        assert stat["value"] == stat["low"] == stat["high"] == 0


def test_a_signal_that_is_noise_gets_one_half_and_says_so(out_of_fold):
    """Twenty draws of noise: AUROC near .5 each, and 95 % intervals that cover .5 in 17 or more."""
    s = out_of_fold(sites=4, infants=8)
    rng = np.random.default_rng(0)
    values, covered = [], 0
    for _ in range(20):
        noise = replace(s, energy=rng.normal(size=len(s)), gate_logit=np.full(len(s), np.nan))
        noise = replace(noise, reason_logits=np.zeros((len(s), 0)), reasons=())
        table, _ = seeds_of(noise)
        auroc = rank_signals(table, "all", EvaluationConfig(resamples=100))["signals"]["energy"]["auroc"]
        values.append(auroc["value"])
        covered += auroc["low"] <= 0.5 <= auroc["high"]
    assert np.mean(values) == pytest.approx(0.5, abs=0.03)
    assert np.ptp(values) < 0.3
    assert covered >= 17


def test_risk_coverage(scores, document):
    risk = document["risk_coverage"]
    cries = [f.select(f.gate == 1) for f in _folds(scores[0])]
    right = [f.reason_logits.argmax(1) == f.reason for f in cries]
    assert risk["error_rate"]["value"] == pytest.approx(np.mean([1 - r.mean() for r in right]))
    gate = np.mean([area_under_risk_coverage(f.gate_logit, r) for f, r in zip(cries, right, strict=True)])
    assert risk["signals"]["gate"]["aurc"]["value"] == pytest.approx(gate)
    for one in risk["signals"].values():
        assert one["gain"]["value"] == pytest.approx(risk["error_rate"]["value"] - one["aurc"]["value"])
        _, wrong = one["curve"]
        assert wrong[-1] == pytest.approx(risk["error_rate"]["value"], abs=1e-4)
        assert (np.array(wrong) >= np.array(risk["best_possible"][1]) - 1e-9).all()
    # top probabilities of a head with signal know its errors; the gate was made without knowing them
    assert risk["signals"]["max_softmax"]["gain"]["low"] > 0
    assert risk["signals"]["gate"]["gain"]["low"] < 0 < risk["signals"]["gate"]["gain"]["high"]


def test_noise_costs_and_thresholds_stay_those_of_clips_as_recorded(document):
    snr = document["snr"]
    assert [row["snr_db"] for row in snr] == [None, 20.0, 0.0]
    gate = [row["signals"]["gate"]["auroc"]["value"] for row in snr]
    assert gate[0] > gate[1] > gate[2]
    kept = [row["signals"]["energy"]["cries_kept"]["value"] for row in snr]
    assert kept[0] > kept[2], "energies rise with noise while the threshold stays"
    own = document["thresholds"]["energy"]["overall"]["own"]
    assert snr[0]["signals"]["energy"]["cries_kept"] == own["cries_kept"]


def test_rows_may_come_in_any_order(scores, document):
    shuffled = {}
    for k, s in scores.items():
        shuffled[k] = s.select(np.random.default_rng(k).permutation(len(s)))
    got = abstention_evidence(shuffled, config=QUICK)
    assert got["ranking"]["all"]["signals"]["energy"] == document["ranking"]["all"]["signals"]["energy"]
    assert got["thresholds"]["energy"] == document["thresholds"]["energy"]


def test_one_fold_has_no_threshold_without_validation_and_one_with(out_of_fold):
    s = out_of_fold()
    single = replace(s, part=np.zeros_like(s.part))
    bare = abstention_evidence(single, config=QUICK)
    assert (bare["thresholds"], bare["fitted_on"]) == ({}, None)
    held = replace(out_of_fold(seed=4), part=single.part)
    got = abstention_evidence(single, validation=held, config=QUICK)
    assert got["fitted_on"] == "validation"
    assert got["thresholds"]["energy"]["overall"]["own"]["cries_kept"]["value"] > 0.85


def test_what_is_missing_is_left_out(out_of_fold):
    s = out_of_fold(reasons=())
    s = replace(s, energy=np.full(len(s), np.nan))
    got = abstention_evidence(s, config=QUICK)
    assert got["signals"] == ["gate"]
    assert set(got["left_out"]) == {"energy", "max_softmax", "mahalanobis"}
    assert got["risk_coverage"] is None
    assert got["bar"] == {"auroc": 0.95, "measured": None, "met": False}
    json.dumps(got, allow_nan=False)


def test_without_public_noise_its_numbers_are_undefined(out_of_fold):
    got = abstention_evidence(out_of_fold(public=0), config=EvaluationConfig(resamples=10))
    public = got["ranking"]["public"]["signals"]["energy"]
    assert public["auroc"]["value"] is None
    assert public["auroc_by_seed"] == [None]
    assert public["roc"] == public["precision_recall"] == [[], []]
    json.dumps(got, allow_nan=False)


def test_what_does_not_fit_is_refused(scores):
    s = scores[0]
    with pytest.raises(DataError, match="different clips"):
        abstention_evidence({0: s, 1: s.select(np.arange(len(s) - 1))}, config=QUICK)
    with pytest.raises(DataError, match="scored twice"):
        abstention_evidence(s.select(np.r_[0, np.arange(len(s))]), config=QUICK)
    with pytest.raises(DataError, match="one a row"):
        abstention_evidence(s, distance=np.zeros(3), config=QUICK)
    with pytest.raises(DataError, match="distances of seeds"):
        abstention_evidence(scores, distance={0: np.zeros(len(s))}, config=QUICK)
    with pytest.raises(DataError, match="cries and non-cries"):
        abstention_evidence(s.select(s.gate == 1), config=QUICK)
    with pytest.raises(DataError, match="no scores"):
        abstention_evidence({}, config=QUICK)


def test_precision_recall_points_are_scikit_learns():
    rng = np.random.default_rng(0)
    score, y = rng.normal(size=50).round(1), rng.random(50) < 0.4
    got = precision_recall_curve(score, y)
    precision, recall, threshold = sk.precision_recall_curve(y, score)
    np.testing.assert_allclose(got.threshold, threshold[::-1])
    np.testing.assert_allclose(got.recall, recall[:-1][::-1])
    np.testing.assert_allclose(got.precision, precision[:-1][::-1])
