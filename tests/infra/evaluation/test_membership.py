"""The attacks as a document, on trainings by hand and on a finished job."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from infra.data.features import load_frames
from infra.evaluation.membership import Trained, attack_job, attack_training, infants_of, job_infants
from infra.federation.base import load_base
from infra.federation.files import encode_arrays
from infra.federation.results import FederationResult
from models.adapters import Vector, get_vector
from models.errors import DataError
from models.frames import TEST, TRAIN, VAL
from models.infants import InfantTokens
from models.local_step import LocalConfig, local_step
from tests.infra.federation.world import make_job
from tests.models.helpers import made_up_tokens, tiny_net

CFG = LocalConfig(steps=80, batch_size=24, lr=0.15)


def random_infants(seed: int, n: int = 30) -> InfantTokens:
    """Three frames an infant, labels at random."""
    rng = np.random.default_rng(seed)
    data = made_up_tokens(seed, 3 * n)
    gate = rng.integers(0, 2, 3 * n).astype(np.int8)
    reason = np.where(gate == 1, rng.integers(0, 3, 3 * n), -1).astype(np.int16)
    return InfantTokens(dataclasses.replace(data, gate=gate, reason=reason), np.repeat(np.arange(n), 3))


def train(infants: InfantTokens, seed: int) -> Vector:
    net = tiny_net()
    theta = get_vector(net)
    return theta - local_step(net, infants.tokens, theta, CFG, seed).delta


def test_every_attack_finds_an_overfit_training() -> None:
    net, members, others = tiny_net(), random_infants(1), random_infants(2)
    start, theta = get_vector(net), train(members, 0)
    short = start - local_step(net, members.tokens, start, dataclasses.replace(CFG, steps=15), 0).delta
    promise = {"unit": "infant", "epsilon": None, "delta": None}
    trained = Trained(theta, [(start, start - short), (short, short - theta)], promise)
    found = attack_training(net, members, others, trained, CFG, reference=train, references=2, resamples=200)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["unit"], found["members"], found["others"]) == ("infant", 30, 30)
    assert found["privacy"] == promise
    assert set(found["attacks"]) == {"loss", "calibrated", "alignment", "regression"}
    for name in ("loss", "calibrated", "regression"):
        assert found["attacks"][name]["auc"]["value"] > 0.7
        assert found["attacks"][name]["auc"]["low"] > 0.5
    assert found["settings"] == {"references": 2, "rounds": 2, "resamples": 200, "seed": 0}


def test_no_attack_finds_anything_without_training() -> None:
    net, members, others = tiny_net(), random_infants(3), random_infants(4)
    theta = get_vector(net)
    found = attack_training(
        net, members, others, Trained(theta), CFG, reference=train, references=2, resamples=200
    )
    assert set(found["attacks"]) == {"loss", "calibrated"}
    for attack in found["attacks"].values():
        assert attack["auc"]["low"] < 0.5 < attack["auc"]["high"]


def test_an_odd_number_of_references_is_refused() -> None:
    net, infants = tiny_net(), random_infants(1, 4)
    with pytest.raises(DataError, match="even number"):
        attack_training(net, infants, infants, Trained(get_vector(net)), CFG, reference=train, references=3)


def test_a_finished_job(tmp_path: Path) -> None:
    """12 clips at each of 3 sites, a group each: 8 of training, and the validation ones made test clips here."""
    job = make_job(tmp_path, rounds=1)
    from infra.data.features import save_frames

    for spec in job.sites:
        assert spec.features is not None
        frames = load_frames(spec.features)
        part = np.where(frames.part == VAL, TEST, frames.part).astype(np.int8)
        save_frames(dataclasses.replace(frames, part=part), spec.features)
    net, _ = load_base(job.base_model, job.model(), job.reasons)
    members = job_infants(job, net, TRAIN)
    assert len(members.rows) == 24
    assert {len(rows) for rows in members.rows} == {3}
    theta = get_vector(net)
    path = tmp_path / "theta.safetensors"
    path.write_bytes(encode_arrays({"theta": theta}))
    result = FederationResult(path, path, path, path, "", "")
    found = attack_job(job, result, {"unit": "infant", "epsilon": 3.0})
    assert (found["members"], found["others"]) == (24, 12)
    assert set(found["attacks"]) == {"loss", "calibrated"}
    assert found["privacy"]["epsilon"] == 3.0
    with pytest.raises(DataError):
        job_infants(job, net, VAL)


def test_at_most_so_many_frames_of_an_infant_evenly_spread(tmp_path: Path) -> None:
    """Every group of the federation's world has one clip of three frames."""
    job = make_job(tmp_path, sites=2)
    net, _ = load_base(job.base_model, job.model(), job.reasons)
    frames = {spec.name: spec.features for spec in job.sites if spec.features is not None}
    every, two = infants_of(frames, net, TRAIN), infants_of(frames, net, TRAIN, most=2)
    assert {len(rows) for rows in every.rows} == {3}
    assert {len(rows) for rows in two.rows} == {2}
    assert len(two.rows) == len(every.rows)
    first, last = every.rows[0][0], every.rows[0][-1]
    np.testing.assert_allclose(
        two.tokens.tokens[two.rows[0]].astype(np.float32),
        every.tokens.tokens[[first, last]].astype(np.float32),
        atol=2e-3,
    )
    assert len(infants_of(frames, net, TRAIN, most=9).tokens) == len(every.tokens)
