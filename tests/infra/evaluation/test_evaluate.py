"""The evaluation document, on scores of a known make."""

import json
from dataclasses import replace

import numpy as np
import pytest
import sklearn.metrics as sk

from infra.evaluation.evaluate import evaluate, headline
from infra.evaluation.protocol import EvaluationConfig
from infra.evaluation.release import release_decision
from models.calibration import SiteCalibration, calibrate_site
from models.errors import DataError
from models.frames import VAL

QUICK = EvaluationConfig(resamples=100)


@pytest.fixture(scope="module")
def calibrations(scores_of):
    val = scores_of(seed=9)
    val = replace(val, part=np.full_like(val.part, VAL))
    return {f"site{k}": calibrate_site(val.select(val.site == f"site{k}")) for k in range(4)}


@pytest.fixture(scope="module")
def document(scores_of, calibrations):
    return evaluate(scores_of(), calibrations, {"weak": scores_of(signal=0.5, snrs=())}, config=QUICK)


def test_it_is_json_and_the_same_twice(scores_of, calibrations, document):
    text = json.dumps(document, allow_nan=False, sort_keys=True)
    again = evaluate(scores_of(), calibrations, {"weak": scores_of(signal=0.5, snrs=())}, config=QUICK)
    assert json.dumps(again, allow_nan=False, sort_keys=True) == text
    assert len(text) < 300_000


def test_numbers_are_those_of_scikit_learn_on_the_clips_as_recorded(scores_of, document):
    s = scores_of()
    s = s.select(s.view == 0)
    assert document["gate"]["negatives"]["all"]["auroc"]["value"] == pytest.approx(
        sk.roc_auc_score(s.gate, s.gate_logit)
    )
    site = s.select((s.gate == 1) | (s.site != ""))
    assert document["gate"]["negatives"]["site"]["auroc"]["value"] == pytest.approx(
        sk.roc_auc_score(site.gate, site.gate_logit)
    )
    cry = s.select(s.gate == 1)
    predicted = cry.reason_logits.argmax(1)
    assert document["reason"]["macro_f1"]["value"] == pytest.approx(
        sk.f1_score(cry.reason, predicted, average="macro")
    )
    assert document["reason"]["confusion"] == sk.confusion_matrix(cry.reason, predicted).tolist()
    assert document["systems"]["federated"]["macro_f1"] == document["reason"]["macro_f1"]


def test_counts(document):
    assert document["counts"] == {
        "clips": 4 * (30 + 12) + 24, "cries": 120, "cries_with_reason": 120, "site_noncries": 48, "public_noncries": 24,
        "groups_of_cries": 24, "sites": 4, "by_reason": document["counts"]["by_reason"],
    }  # fmt: skip
    assert sum(document["counts"]["by_reason"].values()) == 120
    assert document["reason"]["macro_f1"]["groups"] == 24


def test_noise_makes_it_worse(document):
    snr = document["snr"]
    assert [row["snr_db"] for row in snr] == [None, 20.0, 0.0]
    assert snr[0]["macro_f1"]["value"] > snr[1]["macro_f1"]["value"] > snr[2]["macro_f1"]["value"]
    assert snr[0]["macro_f1"] == document["reason"]["macro_f1"]


def test_calibration_of_the_sites_helps(document):
    reason = document["reason"]["calibration"]
    assert reason["after"]["ece"]["value"] < reason["before"]["ece"]["value"]
    assert 0 < reason["ece_if_calibrated"] < 0.2
    assert [row["site"] for row in document["sites"]] == [f"site{k}" for k in range(4)]
    temperatures = [row["calibration"]["reason_temperature"] for row in document["sites"]]
    assert document["calibration_spread"]["reason_temperature"]["mean"] == pytest.approx(
        np.mean(temperatures)
    )


def test_systems_stand_side_by_side(document):
    weak, majority = document["systems"]["weak"], document["systems"]["majority"]
    assert weak["advantage"]["macro_f1"]["low"] > 0
    assert weak["advantage"]["clips"] == document["counts"]["clips"]
    assert majority["gate_auroc"]["value"] == 0.5
    share = max(document["counts"]["by_reason"].values()) / 120
    assert majority["macro_f1"]["value"] == pytest.approx(2 * share / (1 + share) / 5)


def test_abstention_and_risk_coverage(document):
    energy = document["abstention"]["signals"]["energy"]
    assert energy["site"]["auroc"]["value"] > 0.95
    assert document["abstention"]["at_threshold"]["cries_kept"] == pytest.approx(0.95, abs=0.05)
    assert document["abstention"]["at_threshold"]["all_noncries_refused"] > 0.8
    risk = document["risk_coverage"]["signals"]
    assert (
        risk["oracle"]["aurc"]
        <= risk["max_softmax"]["aurc"]["value"]
        < document["risk_coverage"]["error_rate"]
    )
    coverage, risks = risk["max_softmax"]["curve"]
    assert coverage[-1] == 1
    assert risks[-1] == pytest.approx(document["risk_coverage"]["error_rate"], abs=1e-5)


def test_a_reason_head_with_signal_ships(document):
    assert document["release"]["ship_reason_head"], document["release"]["why"]
    assert headline(document)["ship_reason_head"]


def test_a_reason_head_without_signal_does_not_ship(scores_of):
    out = evaluate(scores_of(signal=0.0), config=QUICK)
    assert not out["release"]["ship_reason_head"]
    assert "not above" in out["release"]["why"]


def test_labels_are_permuted_within_platform_where_every_cry_has_one(scores_of, document):
    assert document["permutation"]["within"] == "site"
    assert document["permutation"]["strata"] == 4
    assert document["permutation"]["p"] == 1 / 1000
    assert document["permutation"]["macro_f1"] == document["reason"]["macro_f1"]["value"]
    assert sum(document["permutation"]["null"]["count"]) == 999
    assert np.diff(document["permutation"]["null"]["edges"]).min() > 0
    ids = [str(c) for c in np.unique(scores_of().clip_id)]
    two = {c: ("ios", "android")[i % 2] for i, c in enumerate(ids)}
    named = evaluate(scores_of(), config=QUICK, metadata={"platform": two})["permutation"]
    assert (named["within"], named["strata"]) == ("platform", 2)
    assert "never across a platform" in named["unit"]
    cry = str(scores_of().clip_id[scores_of().gate == 1][0])
    rest = {k: v for k, v in two.items() if k != cry}
    partly = evaluate(scores_of(), config=QUICK, metadata={"platform": rest})
    assert partly["permutation"]["within"] == "site"


def test_a_finding_of_the_data_gate_holds_the_reason_head_back(scores_of, document):
    held = evaluate(scores_of(), config=QUICK, no_signal="labels carry no signal")["release"]
    assert evaluate(scores_of(), config=QUICK)["release"]["ship_reason_head"]
    assert not held["ship_reason_head"]
    assert held["no_signal_in_data"]
    assert held["why"].endswith("; the data gate: labels carry no signal")
    assert not document["release"]["no_signal_in_data"]


def test_a_permutation_test_that_does_not_reject_holds_the_reason_head_back(document):
    """Whatever the interval says: the bar is alpha, and p = alpha is not below it."""
    majority, test = document["systems"]["majority"], document["permutation"]
    for p, ships in ((0.049, True), (0.05, False), (0.4, False), (None, False)):
        out = release_decision(document["reason"], majority, QUICK, permutation={**test, "p": p})
        assert out["ship_reason_head"] is ships, p
        assert out["permutation_p"] == p
        assert ("not below 0.05" in out["why"] or p is None) is not ships
        json.dumps(out, allow_nan=False)


def test_the_leaky_score_is_handed_on_and_weighs_nothing(scores_of):
    warned = evaluate(scores_of(signal=0.0), config=QUICK, leaky={"macro_f1": 1.0})
    plain = evaluate(scores_of(signal=0.0), config=QUICK)
    assert warned.pop("leaky_warning") == {"macro_f1": 1.0}
    assert plain.pop("leaky_warning") is None
    assert warned == plain
    assert not warned["release"]["ship_reason_head"]
    assert "not below 0.05" in warned["release"]["why"]


def test_a_handful_of_infants_cannot_carry_a_release(scores_of):
    out = evaluate(scores_of(sites=2, infants=4, signal=5.0), config=QUICK)
    assert not out["release"]["ship_reason_head"]
    assert "8 test groups" in out["release"]["why"]


def test_one_reason_alone_cannot_carry_a_release(scores_of):
    s = scores_of()
    s = replace(s, reason=np.where(s.gate == 1, 0, -1).astype(np.int16))
    assert "one reason only" in evaluate(s, config=QUICK)["release"]["why"]


def test_without_a_reason_head(scores_of):
    out = evaluate(scores_of(reasons=()), config=QUICK)
    assert out["reason"] is None
    assert out["risk_coverage"] is None
    assert not out["release"]["ship_reason_head"]
    assert out["gate"]["negatives"]["all"]["auroc"]["value"] > 0.9
    json.dumps(out, allow_nan=False)


def test_without_noncries_the_gate_is_undefined_not_wrong(scores_of):
    s = scores_of()
    out = evaluate(s.select(s.gate == 1), config=QUICK)
    assert out["gate"]["negatives"]["all"]["auroc"] == {
        "value": None,
        "low": None,
        "high": None,
        "groups": 24,
    }
    assert out["reason"]["macro_f1"]["value"] > 0.5
    json.dumps(out, allow_nan=False)


def test_unlabelled_clips_are_left_out(scores_of, document):
    s = scores_of()
    extra = replace(s.select(s.gate == 0), gate=np.full((s.gate == 0).sum(), -1, np.int8))
    joined = replace(
        s,
        **{
            k: np.concatenate([v, getattr(extra, k)]) for k, v in vars(s).items() if isinstance(v, np.ndarray)
        },
    )
    assert evaluate(joined, config=QUICK)["counts"] == document["counts"]


def test_baselines_are_matched_by_clip_not_by_position(scores_of, document):
    weak = scores_of(signal=0.5, snrs=())
    order = np.random.default_rng(0).permutation(len(weak))[:150]
    out = evaluate(scores_of(), baselines={"weak": weak.select(order)}, config=QUICK)
    assert out["systems"]["weak"]["advantage"]["clips"] == 150
    assert out["systems"]["weak"]["advantage"]["macro_f1"]["value"] == pytest.approx(
        document["systems"]["weak"]["advantage"]["macro_f1"]["value"], abs=0.15
    )


def test_a_site_without_calibration_takes_the_default(scores_of):
    strict = SiteCalibration("", gate_threshold=0.999999, gate_fitted=True)
    out = evaluate(scores_of(), default=strict, config=QUICK)
    assert out["gate"]["sensitivity"]["value"] < 0.3
    assert out["sites"][0]["calibration"] is None


def test_nothing_to_evaluate_is_an_error(scores_of):
    s = scores_of()
    with pytest.raises(DataError, match="nothing to evaluate"):
        evaluate(s.select(s.view == 1), config=QUICK)
