"""A release scores a recording as the network in training would, and decides as its calibration says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from infra.edge.bundle import Bundle, write_bundle
from infra.edge.release import CalibrationDocument
from infra.edge.scorer import RawScore, Scorer, decide
from models.calibration import SiteCalibration
from models.errors import BundleError
from models.network import CryNet
from models.pooling import soft_maximum
from models.segmentation import VadConfig, frames

RAW = RawScore(
    gate_logit=2.0, energy=-3.0, reason_logits=np.array([0.0, np.log(3.0)]), n_frames=4, seconds=2.5
)
CALIBRATION = SiteCalibration("s", gate_temperature=2.0, gate_threshold=0.7, energy_threshold=-2.5)


def bursts(seconds: float = 5.0) -> np.ndarray:
    """Silence with loud seconds in it, so that VAD leaves some frames out."""
    t = np.arange(int(seconds * 16_000)) / 16_000
    rng = np.random.default_rng(4)
    wave = 0.001 * rng.normal(size=t.shape) + 0.3 * np.sin(2 * np.pi * 450 * t) * (
        np.sin(2 * np.pi * 0.3 * t) > 0.5
    )
    return wave.astype(np.float32)


def test_decision_by_hand() -> None:
    """σ(2 / 2) = 0.731 ≥ 0.7: a cry; softmax(0, ln 3) = (1/4, 3/4): the second reason; energy −3 ≤ −2.5: no abstention."""
    out = decide(RAW, CALIBRATION, ("hungry", "tired"))
    assert (out.decision, out.reason) == ("cry", "tired")
    assert out.gate_probability == pytest.approx(0.7310586)
    assert out.reason_probabilities == pytest.approx({"hungry": 0.25, "tired": 0.75})


def test_reason_temperature_flattens() -> None:
    """At T = 2 the odds 3 : 1 become √3 : 1."""
    out = decide(RAW, replace(CALIBRATION, reason_temperature=2.0), ("hungry", "tired"))
    assert out.reason_probabilities["tired"] == pytest.approx(3**0.5 / (1 + 3**0.5))


@pytest.mark.parametrize(
    ("calibration", "decision", "why"),
    [
        (replace(CALIBRATION, gate_threshold=0.75), "no cry", "below the threshold 0.750"),
        (replace(CALIBRATION, energy_threshold=-3.5), "abstain", "energy -3.00 is above -3.50"),
        (replace(CALIBRATION, energy_threshold=0.0, gate_threshold=0.7310585), "cry", "reaches"),
        (replace(CALIBRATION, energy_threshold=None), "cry", "reaches"),
        (replace(CALIBRATION, gate_threshold=0.75, energy_threshold=-3.5), "no cry", "below"),
    ],
)
def test_three_decisions(calibration: SiteCalibration, decision: str, why: str) -> None:
    out = decide(RAW, calibration, ("hungry", "tired"))
    assert out.decision == decision
    assert why in out.why
    assert (out.reason is None) == (decision != "cry")


def test_gate_alone_names_no_reason() -> None:
    out = decide(replace(RAW, reason_logits=np.zeros(0)), CALIBRATION, ())
    assert out.decision == "cry"
    assert out.reason is None
    assert out.reason_probabilities == {}


def test_same_score_as_the_network(make_bundle: Callable[..., Bundle], tiny_net: CryNet) -> None:
    wave = bursts()
    kept = frames(wave, VadConfig())
    assert 1 < len(kept) < 9  # some of the nine frames are left out
    with torch.no_grad():
        out = tiny_net(torch.from_numpy(kept))
    raw = Scorer(make_bundle()).raw(wave)
    assert raw.n_frames == len(kept)
    assert raw.seconds == 5.0
    assert raw.gate_logit == pytest.approx(soft_maximum(out.gate_logit.numpy()), abs=1e-5)
    assert raw.energy == pytest.approx(-soft_maximum(-out.energy.numpy()), abs=1e-5)
    np.testing.assert_allclose(raw.reason_logits, out.reason_logits.mean(0).numpy(), atol=1e-5)


def test_vad_settings_come_from_the_bundle(make_bundle: Callable[..., Bundle]) -> None:
    wave = bursts()
    default, coarse = Scorer(make_bundle()), Scorer(make_bundle(vad={"hop_s": 1.0}))
    assert coarse.raw(wave).n_frames < default.raw(wave).n_frames
    with pytest.raises(BundleError, match="unknown VAD setting"):
        Scorer(make_bundle(vad={"magic": 1}))


def test_graph_and_manifest_must_agree(make_bundle: Callable[..., Bundle]) -> None:
    with pytest.raises(BundleError, match="graph has 3 reasons, its manifest names 2"):
        Scorer(make_bundle(reasons=("hungry", "tired")))


def test_site_calibration_falls_back_where_it_was_not_fitted(make_bundle: Callable[..., Bundle]) -> None:
    pooled = CalibrationDocument(
        gate_temperature=1.7, gate_fitted=True, energy_threshold=-1.0, energy_fitted=True
    )
    own = CalibrationDocument(site="ward", energy_threshold=-4.0, energy_fitted=True)
    bundle = make_bundle(default_calibration=pooled, calibrations={"ward": own})
    calibration = Scorer(bundle, site="ward").calibration
    assert calibration.gate_temperature == 1.7
    assert calibration.energy_threshold == -4.0
    assert Scorer(bundle).calibration.energy_threshold == -1.0
    with pytest.raises(BundleError, match="'moon'"):
        Scorer(bundle, site="moon")


def test_changed_graph_is_not_loaded(make_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    bundle = make_bundle()
    bundle.path().write_bytes(bundle.path().read_bytes()[:-1] + b"\0")
    with pytest.raises(BundleError, match="do not match"):
        Scorer(bundle)


def test_bundle_can_be_written_again(make_bundle: Callable[..., Bundle]) -> None:
    bundle = make_bundle()
    assert write_bundle(bundle.folder, bundle.manifest, {"model.onnx": bundle.path()}).digest == bundle.digest
