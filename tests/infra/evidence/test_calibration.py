"""Calibration across sites on made-up logits, whose right calibration is known."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from infra.evidence.calibration import FEDERATED, calibration_document, null_ece
from infra.report.calibration import render_calibration
from models.metrics import expected_calibration_error, sigmoid
from models.predict import ClipScores

SITES = ("ward1", "ward2", "ward3")


def scores(temperature: float, bias: float, *, seed: int = 1, n: int = 400, silent: str = "") -> ClipScores:
    """Logits z of which sigmoid(z / T + b) of the clips are cries; `silent` has no non-cry of its own."""
    rng = np.random.default_rng(seed)
    site = np.repeat(np.array([*SITES, ""]), n)
    z = rng.normal(0.0, 3.0, len(site))
    cry = rng.random(len(site)) < sigmoid(z / temperature + bias)
    keep = ~((site == "") & cry) & ~((site == silent) & ~cry)
    z, site, cry = z[keep], site[keep], cry[keep]
    k = np.arange(len(z))
    names = np.array([f"clip{i:05d}" for i in k])
    return ClipScores(
        reasons=("a", "b"), gate_logit=z, reason_logits=np.zeros((len(z), 2)), energy=-z, n_frames=np.ones(len(z), np.int32),
        view=np.zeros(len(z), np.int16), snr_db=np.full(len(z), np.nan, np.float32), site=site, clip=k.astype(np.int32),
        clip_id=names, group=names, label=np.where(cry, "a", "rain"), part=(k % 5).astype(np.int8),
        gate=cry.astype(np.int8), reason=np.where(cry, 0, -1).astype(np.int16),
    )  # fmt: skip


@pytest.fixture(scope="module")
def sure() -> dict[str, Any]:
    """Three times too sure, and shifted."""
    return calibration_document({1: scores(3.0, -1.0), 2: scores(3.0, -1.0)}, "make this", resamples=60)


def test_too_sure_a_gate_is_repaired_and_found_inside_the_band(sure: dict[str, Any]) -> None:
    pooled = sure["pooled"]
    assert pooled["none"]["debiased"]["value"] > 0.1
    assert pooled["own"]["debiased"]["value"] < 0.03
    assert pooled[FEDERATED]["log_loss"]["value"] < pooled["temperature"]["log_loss"]["value"]
    assert all(site["inside"] for site in sure["own"].values())
    for site in sure["own"].values():
        assert site["before"]["value"] > site["band"][1]
    # public noise is all non-cries: the fit is of the sites' clips with their share of it
    assert pooled["own"]["ece"]["value"] == pytest.approx(pooled["own"]["expected"], abs=0.03)


def test_the_matrix_holds_every_fit_at_every_site(sure: dict[str, Any]) -> None:
    assert list(sure["matrix"]) == ["none", *SITES, FEDERATED]
    for row in sure["matrix"].values():
        assert list(row) == [*SITES, "all"]
        assert set(row["all"]) == {"ece", "adaptive_ece", "brier", "log_loss"}
    own = np.mean([sure["matrix"][s][s]["log_loss"] for s in SITES])
    assert own < np.mean([sure["matrix"]["none"][s]["log_loss"] for s in SITES])
    for s in SITES:
        assert sure["matrix"][s][s]["ece"] == pytest.approx(sure["own"][s]["ece"]["value"], abs=1e-4)


def test_every_clip_is_counted_once(sure: dict[str, Any]) -> None:
    counted = sum(c["cries"] + c["non_cries"] for c in sure["clips"].values())
    assert counted == len(scores(3.0, -1.0))
    assert sum(sure["reliability"]["own"]["all"][2]) == 2 * counted  # two seeds


def test_conformal_sets_keep_their_promise_out_of_fold(sure: dict[str, Any]) -> None:
    for kind in ("own", "together", "by class"):
        found = sure["conformal"][kind]
        assert found["coverage"]["value"] == pytest.approx(0.9, abs=0.02)
        assert 1.0 <= found["size"] + found["neither"] <= 2.0


def test_a_perfect_predictor_lies_in_its_band_as_often_as_it_should() -> None:
    rng = np.random.default_rng(0)
    inside, excess = [], []
    for seed in range(200):
        p = rng.uniform(0, 1, 80)
        null = null_ece(p, seed, draws=400)
        ece = expected_calibration_error(p, rng.random(80) < p, bins=15)
        inside.append(np.quantile(null, 0.025) <= ece <= np.quantile(null, 0.975))
        excess.append(ece - null.mean())
    assert 0.91 <= np.mean(inside) <= 0.99
    assert abs(np.mean(excess)) < 0.01


def test_a_site_that_has_nothing_but_cries_hears_its_share_of_public_noise() -> None:
    document = calibration_document({1: scores(1.0, 0.0, silent="ward2", n=60)}, "make this", resamples=20)
    assert document["clips"]["ward2"]["non_cries"] > 0
    json.dumps(document, allow_nan=False)


def test_the_page_says_what_the_document_says(sure: dict[str, Any]) -> None:
    page = render_calibration({**sure, "quick": False})
    assert "make this" in page
    assert f"{sure['pooled']['own']['debiased']['value']:.3f}" in page
    for site in SITES:
        assert site in page
    assert page == render_calibration({**sure, "quick": False})
