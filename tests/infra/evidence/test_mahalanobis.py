"""Distances to the training cries, against scipy's and scikit-learn's own algebra."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import ledoit_wolf as sklearn_ledoit_wolf

from infra.evidence.mahalanobis import clip_features, fit_gaussians, ledoit_wolf, site_distances
from models.errors import DataError
from models.frames import TRAIN
from models.predict import predict
from tests.models.helpers import made_up_frames, tiny_net


@pytest.fixture
def training():
    rng = np.random.default_rng(3)
    y = rng.integers(0, 4, 90)
    mixing = rng.normal(size=(12, 12))
    return rng.normal(size=(90, 12)) @ mixing + 2 * rng.normal(size=(4, 12))[y], y


@pytest.mark.parametrize("n", [13, 90, 2000])
def test_shrinkage_is_that_of_scikit_learn(n):
    rng = np.random.default_rng(n)
    x = rng.normal(size=(n, 12)) @ rng.normal(size=(12, 12))
    covariance, shrinkage = ledoit_wolf(x)
    expected, amount = sklearn_ledoit_wolf(x, assume_centered=True)
    assert shrinkage == pytest.approx(amount, rel=1e-9)
    np.testing.assert_allclose(covariance, expected, rtol=1e-9, atol=1e-12)


def test_distance_is_the_squared_one_of_scipy_to_the_nearest_class(training):
    x, y = training
    g = fit_gaussians(x, y)
    centred = np.concatenate([x[y == k] - x[y == k].mean(0) for k in range(4)])
    inverse = np.linalg.inv(sklearn_ledoit_wolf(centred, assume_centered=True)[0])
    probe = 4 * np.random.default_rng(4).normal(size=(20, 12))
    expected = [min(mahalanobis(p, x[y == k].mean(0), inverse) ** 2 for k in range(4)) for p in probe]
    np.testing.assert_allclose(g.distance(probe), expected, rtol=1e-9)


def test_without_shrinkage_a_change_of_basis_changes_nothing(training):
    """Mahalanobis distance is invariant under x → Ax + b for as long as the covariance is the sample's own."""
    x, y = training
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=(12, 12)), rng.normal(size=12)

    def distance(features, probe):
        g = fit_gaussians(features, y)
        centred = features - g.mean[np.searchsorted(g.classes, y)]
        return type(g)(g.classes, g.mean, centred.T @ centred / len(y), 0.0).distance(probe)

    np.testing.assert_allclose(distance(x @ a + b, x @ a + b), distance(x, x), rtol=1e-6)


def test_means_are_near_and_the_mean_training_distance_is_about_the_dimension(training):
    x, y = training
    g = fit_gaussians(x, y)
    np.testing.assert_allclose(g.distance(g.mean), 0, atol=1e-12)
    assert g.distance(x + 100).min() > g.distance(x).max()
    # E[(x−μ)ᵀΣ⁻¹(x−μ)] = D; the nearest class and the shrinkage only take from it
    assert 0.4 * 12 < g.distance(x).mean() < 12.5


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (np.zeros((5, 3)), np.zeros(5, int), "do not vary"),
        (np.full((5, 3), np.nan), np.zeros(5, int), "NaN"),
        (np.zeros((5, 3)), np.zeros(4, int), "needed"),
        (np.eye(3), np.arange(3), "nothing to estimate"),
        (np.zeros((0, 3)), np.zeros(0, int), "nothing to estimate"),
    ],
)
def test_what_cannot_be_fitted_is_refused(x, y, said):
    with pytest.raises(DataError, match=said):
        fit_gaussians(x, y)


def test_features_of_another_width_are_refused(training):
    with pytest.raises(DataError, match=r"fitted on \(n, 12\)"):
        fit_gaussians(*training).distance(np.zeros((3, 11)))


def test_pooled_features_are_means_over_a_clips_frames_in_the_rows_of_its_scores():
    net, frames = tiny_net(), made_up_frames()
    got, scores = clip_features(net, frames, batch=4), predict(net, frames)
    with torch.inference_mode():
        every = net.features(net.tokens(torch.from_numpy(frames.log_mel.astype(np.float32)))).numpy()
    for row, (clip, view) in enumerate(zip(scores.clip, scores.view, strict=True)):
        at = (frames.clip == clip) & (frames.view == view)
        # tokens are cached as float16
        np.testing.assert_allclose(got[row], every[at].mean(0), atol=5e-3)
    assert got.shape == (len(scores), net.cfg.d_model)


def test_gaussians_of_a_fold_see_its_training_cries_as_recorded_only():
    net = tiny_net()
    a, b = made_up_frames(0, clips=30, site="a"), made_up_frames(1, clips=30, site="b")
    got = site_distances(net, [a, b])
    x, y = [], []
    for f in (a, b):
        s, rows = predict(net, f), clip_features(net, f)
        use = (s.view == 0) & (s.part == TRAIN) & (s.gate == 1)
        x.append(rows[use])
        y.append(s.reason[use])
    expected = fit_gaussians(np.concatenate(x), np.concatenate(y))
    for f in (a, b):
        np.testing.assert_allclose(got[f.site], expected.distance(clip_features(net, f)))
    with pytest.raises(DataError, match="nothing to estimate"):
        site_distances(net, [])
