"""Temperatures, thresholds and their fallbacks, on scores whose truth is known."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from models import metrics
from models.calibration import (
    Affine,
    SiteCalibration,
    affine_sums,
    balanced_threshold,
    calibrate_site,
    energy_threshold,
    federated_temperature,
    fit_affine,
    fit_temperature,
    likelihood_slope,
    pool_calibrations,
    with_fallback,
)
from models.errors import DataError


def scores(n_cry=60, n_non=60, sharpness=3.0, site="a", seed=0, reasons=3):
    """Honest logits times `sharpness`: the right temperature is `sharpness`."""
    rng = np.random.default_rng(seed)
    n = n_cry + n_non
    gate = np.r_[np.ones(n_cry), np.zeros(n_non)].astype(np.int8)
    honest = rng.normal(1.0, np.sqrt(2.0), n) * np.where(gate == 1, 1, -1)  # N(±μ, 2μ): a calibrated log-odds
    logits = rng.normal(size=(n, reasons)) * 2
    drawn = (metrics.softmax(logits).cumsum(1) > rng.random((n, 1))).argmax(1)
    return SimpleNamespace(
        site=np.repeat(site, n), part=np.ones(n, np.int8), view=np.zeros(n, np.int16),
        snr_db=np.full(n, np.nan), gate=gate,
        reason=np.where(gate == 1, drawn, -1).astype(np.int16), gate_logit=sharpness * honest,
        reason_logits=sharpness * logits, energy=np.where(gate == 1, -5.0, 0.0) + rng.normal(size=n),
    )  # fmt: skip


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_temperature_undoes_sharpness(sharpness):
    s = scores(3000, 3000, sharpness)
    assert fit_temperature(s.gate_logit, s.gate) == pytest.approx(sharpness, rel=0.1)
    cry = s.gate == 1
    assert fit_temperature(s.reason_logits[cry], s.reason[cry]) == pytest.approx(sharpness, rel=0.1)


def test_temperature_is_the_minimum_of_the_stated_objective():
    s = scores(30, 20, 2.0)

    def objective(beta):
        likelihood = metrics.log_loss(metrics.sigmoid(beta * s.gate_logit), s.gate) * 50
        return float(likelihood) + (beta - 1) ** 2 / 2

    best = minimize_scalar(objective, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-10}).x
    assert fit_temperature(s.gate_logit, s.gate) == pytest.approx(1 / best, rel=1e-5)


def test_temperature_of_perfectly_separated_clips_stays_sane():
    assert 0.2 < fit_temperature([4.0, 5.0, -4.0, -5.0], [1, 1, 0, 0]) < 1.0


def test_temperature_of_always_wrong_logits_is_bounded():
    assert fit_temperature(np.full(500, 9.0), np.zeros(500)) == pytest.approx(20, rel=1e-6)


def test_balanced_threshold_by_hand():
    """Ten non-cries at 1…10, ten cries at 6…15. J + 1 is 1.5 from 5.5 to 10.5; one clip worse (1.4) from 4.5: nearest to 0."""
    score, truth = np.r_[np.arange(1, 11), np.arange(6, 16)], np.repeat([0, 1], 10)
    assert balanced_threshold(score, truth) == pytest.approx(4.5)
    assert balanced_threshold(score, truth, even=8.0) == pytest.approx(8.0)
    assert balanced_threshold(-score, 1 - truth) == pytest.approx(-4.5)


def test_balanced_threshold_is_even_odds_if_they_separate():
    assert balanced_threshold([-3.0, -1.0, 2.0, 4.0], [0, 0, 1, 1]) == 0.0


def test_balanced_threshold_moves_if_the_clips_insist():
    rng = np.random.default_rng(0)
    score = np.r_[rng.normal(4, 1, 100), rng.normal(8, 1, 100)]
    assert balanced_threshold(score, np.repeat([0, 1], 100)) == pytest.approx(6, abs=0.5)


def test_energy_threshold_keeps_at_least_95_percent():
    energy = np.random.default_rng(0).normal(size=37)
    limit = energy_threshold(energy)
    assert (energy <= limit).mean() >= 0.95
    assert (energy < limit).mean() < 0.95


def test_calibration_lowers_the_calibration_error():
    val, test = scores(400, 400, 3.0), scores(2000, 2000, 3.0, seed=1)
    own = calibrate_site(val)
    for before, after, right in (
        (metrics.sigmoid(test.gate_logit), own.gate_probability(test.gate_logit), test.gate),
        *[
            (
                metrics.softmax(x).max(1),
                own.reason_probabilities(x).max(1),
                x.argmax(1) == test.reason[test.gate == 1],
            )
            for x in [test.reason_logits[test.gate == 1]]
        ],
    ):
        raw = metrics.expected_calibration_error(before, right)
        assert raw > 0.08
        assert metrics.expected_calibration_error(after, right) < 0.4 * raw
    assert own.abstains(test.energy[test.gate == 1]).mean() == pytest.approx(0.05, abs=0.03)
    assert not own.notes


def test_too_few_clips_fall_back_and_say_why():
    own = calibrate_site(scores(4, 30))
    assert (own.gate_temperature, own.reason_temperature, own.gate_threshold, own.energy_threshold) == (
        1,
        1,
        0.5,
        None,
    )
    assert [note.split(":")[0] for note in own.notes] == ["gate", "reason", "energy"]
    assert "4 cries" in own.notes[0]
    assert not own.abstains([1e9]).any()


def test_one_reason_alone_has_no_reason_temperature():
    s = scores(30, 30)
    s.reason = np.where(s.gate == 1, 2, -1)
    own = calibrate_site(s)
    assert (own.reason_temperature, own.reason_fitted, own.gate_fitted) == (1.0, False, True)


def test_noisy_views_count_only_when_asked_for():
    s = scores(40, 40)
    s.snr_db[::2] = 10.0
    s.view[::2] = 3
    assert calibrate_site(s).n_cries == 20
    assert calibrate_site(s, min_snr_db=10).n_cries == 40
    assert calibrate_site(s, min_snr_db=11).n_cries == 20


def test_unlabelled_clips_do_not_count():
    s = scores(40, 40)
    s.gate[:5] = -1
    assert calibrate_site(s).n_cries == 35


def test_two_sites_or_two_parts_at_once_are_refused():
    both = scores()
    both.site = np.where(np.arange(120) % 2, "a", "b")
    with pytest.raises(DataError, match="a, b"):
        calibrate_site(both)
    assert calibrate_site(both, site="b").site == "b"
    mixed = scores()
    mixed.part[0] = 2
    with pytest.raises(DataError, match="validation part only"):
        calibrate_site(mixed)


def test_pooling_and_fallback():
    fitted = [
        SiteCalibration("a", 1.0, 4.0, 0.3, -2.0, 10, 10, True, True, True),
        SiteCalibration("b", 4.0, 1.0, 0.5, -4.0, 10, 10, True, True, True),
        SiteCalibration("c", notes=("few",)),
    ]
    pooled = pool_calibrations(fitted)
    assert pooled.gate_temperature == pytest.approx(2)
    assert pooled.reason_temperature == pytest.approx(2)
    assert pooled.gate_threshold == pytest.approx(0.4)
    assert pooled.energy_threshold == pytest.approx(-3)
    assert pooled.n_cries == 20
    lent = with_fallback(fitted[2], pooled)
    assert (lent.site, lent.gate_temperature, lent.energy_threshold) == ("c", pooled.gate_temperature, -3)
    assert with_fallback(fitted[0], pooled) == fitted[0]
    assert pool_calibrations([]).gate_temperature == 1.0


def test_json_round_trip():
    own = calibrate_site(scores(4, 30))
    assert SiteCalibration.from_dict(own.to_dict()) == own
    raw = replace(own, notes=()).to_dict()
    del raw["gate_threshold"]
    with pytest.raises(DataError, match="gate_threshold"):
        SiteCalibration.from_dict(raw)


def _sites(seed=0, sizes=(30, 60, 200)):
    rng = np.random.default_rng(seed)
    out = []
    for n in sizes:
        logit = rng.normal(0, 3, n)
        out.append((logit, (rng.random(n) < metrics.sigmoid(logit / 2.0 - 1.0)).astype(int)))
    return out


def test_a_fit_from_sums_is_the_fit_of_all_clips_in_one_place():
    sites = _sites()
    apart = fit_affine([lambda at, s=s: affine_sums(*s, at) for s in sites])
    logit, truth = (np.concatenate(x) for x in zip(*sites, strict=True))
    together = fit_affine([lambda at: affine_sums(logit, truth, at)])
    assert apart.temperature == pytest.approx(together.temperature, rel=1e-9)
    assert apart.bias == pytest.approx(together.bias, rel=1e-9)
    slopes = federated_temperature([lambda b, s=s: likelihood_slope(*s, b) for s in sites])
    assert slopes == pytest.approx(fit_temperature(logit, truth), rel=1e-9)


def test_temperature_and_bias_are_found_again_and_the_gradient_is_zero_there():
    (found,) = [fit_affine([lambda at, s=s: affine_sums(*s, at)]) for s in _sites(sizes=(20_000,))]
    assert found.temperature == pytest.approx(2.0, rel=0.05)
    assert found.bias == pytest.approx(-1.0, abs=0.06)
    at = np.array([1 / found.temperature, found.bias])
    prior = np.array([at[0] - 1.0, at[1]])
    np.testing.assert_allclose(affine_sums(*_sites(sizes=(20_000,))[0], at)[1:3] + prior, 0.0, atol=1e-6)


def test_the_sums_are_derivatives():
    site, at, h = _sites()[0], np.array([0.7, -0.3]), 1e-5
    here = affine_sums(*site, at)
    for k in range(2):
        step = np.eye(2)[k] * h
        up, down = affine_sums(*site, at + step), affine_sums(*site, at - step)
        assert here[1 + k] == pytest.approx((up[0] - down[0]) / (2 * h), rel=1e-5)
        second = (up[1:3] - down[1:3]) / (2 * h)
        assert second == pytest.approx(here[[3, 4]] if k == 0 else here[[4, 5]], rel=1e-4)


def test_separated_clips_and_no_clips_give_a_finite_fit():
    split = fit_affine([lambda at: affine_sums([-9.0, -8.0, 8.0, 9.0], [0, 0, 1, 1], at)])
    assert 0.05 <= split.temperature < 1.0
    assert abs(split.bias) < 0.2
    assert fit_affine([]) == Affine(1.0, 0.0)
    all_cries = fit_affine([lambda at: affine_sums(np.zeros(50), np.ones(50, int), at)])
    assert 0 < all_cries.bias < 10
