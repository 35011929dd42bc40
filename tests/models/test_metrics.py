"""Metrics against scikit-learn and against numbers worked out by hand."""

import numpy as np
import pytest
import sklearn.metrics as sk

from models import metrics as m


@pytest.fixture
def scored() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    positive = rng.random(200) < 0.3
    score = np.round(rng.normal(size=200) + positive, 1)  # rounding makes ties
    return score, positive


def test_ranking_agrees_with_scikit_learn(scored):
    score, positive = scored
    assert m.auroc(score, positive) == pytest.approx(sk.roc_auc_score(positive, score))
    assert m.average_precision(score, positive) == pytest.approx(sk.average_precision_score(positive, score))
    fpr, tpr, _ = sk.roc_curve(positive, score, drop_intermediate=False)
    assert m.fpr_at_tpr(score, positive) == pytest.approx(fpr[np.argmax(tpr >= 0.95)])
    curve = m.roc_curve(score, positive)
    np.testing.assert_allclose(curve.fpr, fpr)
    np.testing.assert_allclose(curve.tpr, tpr)


def test_weights_are_repeated_clips(scored):
    score, positive = scored
    rng = np.random.default_rng(4)
    weight = rng.integers(0, 4, size=(5, 200))
    right = rng.random(200) < 0.8
    probability = m.sigmoid(score)
    for name, call in {
        "auroc": lambda w, i: m.auroc(score[i], positive[i], w),
        "ap": lambda w, i: m.average_precision(score[i], positive[i], w),
        "fpr": lambda w, i: m.fpr_at_tpr(score[i], positive[i], w),
        "aurc": lambda w, i: m.area_under_risk_coverage(score[i], right[i], w),
        "brier": lambda w, i: m.brier(probability[i], positive[i], w),
        "nll": lambda w, i: m.log_loss(probability[i], positive[i], w),
        "ece": lambda w, i: m.expected_calibration_error(probability[i], positive[i], w),
    }.items():
        together = call(weight, slice(None))
        assert together.shape == (5,)
        for row, w in zip(together, weight, strict=True):
            assert row == pytest.approx(float(call(None, np.repeat(np.arange(200), w)))), name


def test_auroc_by_hand():
    # pairs (positive, negative): (.8 > .3) (.8 > .6) (.6 > .3) win, (.6 = .6) counts half: 3.5 of 4
    assert m.auroc([0.8, 0.6, 0.6, 0.3], [1, 1, 0, 0]) == pytest.approx(3.5 / 4)


@pytest.mark.parametrize("positive", [[0, 0, 0], [1, 1, 1]])
def test_one_class_alone_gives_nan(positive):
    assert np.isnan(m.auroc([0.1, 0.2, 0.3], positive))
    assert np.isnan(m.fpr_at_tpr([0.1, 0.2, 0.3], positive))


def test_nothing_gives_nan_not_an_error():
    empty = np.zeros(0)
    for value in (
        m.auroc(empty, empty), m.average_precision(empty, empty), m.fpr_at_tpr(empty, empty), m.brier(empty, empty),
        m.expected_calibration_error(empty, empty), m.area_under_risk_coverage(empty, empty),
        m.macro_f1(m.confusion(empty, empty, 3)),
    ):  # fmt: skip
        assert np.isnan(value)


def test_decisions_agree_with_scikit_learn():
    rng = np.random.default_rng(5)
    truth, predicted = rng.integers(0, 4, 300), rng.integers(0, 4, 300)
    matrix = m.confusion(truth, predicted, 4)
    np.testing.assert_array_equal(matrix, sk.confusion_matrix(truth, predicted))
    assert m.macro_f1(matrix) == pytest.approx(sk.f1_score(truth, predicted, average="macro"))
    assert m.balanced_accuracy(matrix) == pytest.approx(sk.balanced_accuracy_score(truth, predicted))
    assert m.accuracy(matrix) == pytest.approx(sk.accuracy_score(truth, predicted))
    score = rng.normal(size=(300, 4))
    ovr = sk.roc_auc_score(truth, m.softmax(score), multi_class="ovr", average="macro")
    assert m.auroc_one_vs_rest(m.softmax(score), truth) == pytest.approx(ovr)


def test_macro_f1_counts_only_the_classes_of_the_truth():
    """Truth 0, 0, 1; predicted 0, 2, 1. F1 of class 0: 2·1/(2+1) = 2/3; of class 1: 1; class 2 is not in the truth."""
    matrix = m.confusion([0, 0, 1], [0, 2, 1], 3)
    assert m.macro_f1(matrix) == pytest.approx((2 / 3 + 1) / 2)
    assert np.isnan(m.f1_per_class(matrix)[2])


def test_ece_by_hand():
    """Ten bins. (.8, .9]: confidences .82, .88, one right: |.5 − .85|·2/4. (.5, .6]: .55, .55, both right: .45·2/4."""
    ece = m.expected_calibration_error([0.82, 0.88, 0.55, 0.55], [1, 0, 1, 1])
    assert ece == pytest.approx(0.35 / 2 + 0.45 / 2)


def test_adaptive_bins_hold_equally_many_clips_and_never_split_ties():
    rng = np.random.default_rng(6)
    confidence = rng.beta(8, 1, 1000)
    table = m.reliability(confidence, rng.random(1000) < confidence, bins=10, adaptive=True)
    assert table.count.tolist() == [100.0] * 10
    tied = m.reliability([0.3, 0.9, 0.9, 0.9, 0.9], [0, 1, 1, 1, 0], bins=4, adaptive=True)
    assert tied.count.tolist() == [1.0, 4.0]


def test_reliability_agrees_with_ece():
    rng = np.random.default_rng(7)
    confidence = rng.random(500)
    right = rng.random(500) < confidence**2
    table = m.reliability(confidence, right)
    ece = (table.count * abs(table.frequency - table.confidence)).sum() / 500
    assert m.expected_calibration_error(confidence, right) == pytest.approx(ece)
    assert ece > 0.1


def test_probability_scores():
    p = np.array([0.9, 0.2, 0.6])
    assert m.brier(p, [1, 0, 0]) == pytest.approx(sk.brier_score_loss([1, 0, 0], p))
    assert m.log_loss(p, [1, 0, 0]) == pytest.approx(sk.log_loss([1, 0, 0], p))
    assert m.brier([[0.7, 0.2, 0.1]], [0]) == pytest.approx(0.3**2 + 0.2**2 + 0.1**2)


def test_sigmoid_and_softmax_do_not_overflow():
    np.testing.assert_allclose(m.sigmoid([-1e4, 0, 1e4]), [0, 0.5, 1])
    np.testing.assert_allclose(m.softmax([[1e4, 0.0]]), [[1, 0]])


def test_risk_coverage_by_hand():
    """Right, right, wrong, right in falling confidence: risks 0, 0, 1/3, 1/4; their mean is the AURC."""
    curve = m.risk_coverage([0.9, 0.8, 0.7, 0.6], [1, 1, 0, 1])
    np.testing.assert_allclose(curve.coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(curve.risk, [0, 0, 1 / 3, 1 / 4])
    aurc = m.area_under_risk_coverage([0.9, 0.8, 0.7, 0.6], [1, 1, 0, 1])
    assert aurc == pytest.approx((1 / 3 + 1 / 4) / 4)


def test_wrong_weight_shape_is_refused():
    with pytest.raises(ValueError, match="last axis"):
        m.auroc([1.0, 2.0], [0, 1], np.ones(3))
