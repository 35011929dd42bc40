"""The gate's own phase: the same rounds and masks over other parameters, from frames and public noise instead of tokens."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.data.features import load_frames, save_frames
from infra.digest import digest_bytes
from infra.federation.base import load_base
from infra.federation.fold import fold, fold_job
from infra.federation.gate_frames import load_gate_frames
from infra.federation.job import FederationJob
from infra.federation.material import Wanted, named
from infra.federation.results import load_theta
from infra.federation.rounds import federate
from infra.federation.tokens import PUBLIC, load_site_tokens, material_digest
from models.adapters import adapter_schema, get_vector
from models.errors import ConfigError, DataError, FederationError
from models.frames import CALL, CALL_SHARE, TRAIN
from models.gate_batches import AugmentConfig
from models.gate_training import GATE_SERVER, train_gate_federated
from models.state import load_arrays
from tests.infra.federation.world import REASONS, local_transport, make_job, write_features

GATE: dict[str, Any] = {"local_steps": 2, "local_batch_size": 4, "lr": 0.003}


def gate_job(root: Path, **changes: Any) -> FederationJob:
    root.mkdir(parents=True, exist_ok=True)
    public = root / "public.safetensors"
    write_features(public, site="")
    frames = load_frames(public)
    none = np.full_like(frames.reason, -1)
    save_frames(replace(frames, gate=np.zeros_like(frames.gate), reason=none), public)
    server = {"optimiser": "nesterov", "lr": 0.7, "beta1": 0.7}
    fields = {
        "gate": GATE,
        "public": public,
        "server": server,
        "codec": {"bits": 8, "clip": 6.0},
        "rounds": 2,
    }
    return make_job(root, **{**fields, **changes})


@pytest.mark.parametrize("secure", [True, False])
def test_equals_the_plain_loop_bit_for_bit(tmp_path: Path, secure: bool) -> None:
    job = gate_job(tmp_path, secure=secure)
    events: list[dict[str, Any]] = []
    result = federate(job, local_transport(job, tmp_path), lambda e: events.append(dict(e)))
    plan = job.plan()
    assert plan.gate is not None
    assert not plan.control_variates
    net, _ = load_base(job.base_model, job.model(), job.reasons)
    sites = {
        s.name: load_gate_frames(s.features, job.public, net, AugmentConfig()).batches for s in job.sites
    }
    train_gate_federated(net, sites, plan.gate, job.seed, server=GATE_SERVER, codec=plan.codec)
    theta = get_vector(net, "gate")
    assert result.theta_digest == digest_bytes(theta.tobytes())
    # the sites tally every θ on their validation clips, as in the other phase
    scores = [e["validation"] for e in events if e["event"] == "closing"]
    assert scores[0]["gate_macro_f1"] is not None
    # what comes out is a base model of the same shape, whose adapters are as they were
    fresh, _ = load_base(job.base_model, job.model(), job.reasons)
    before = get_vector(fresh, "adapters")
    arrays = fold(fresh, load_theta(result.theta, adapter_schema(fresh, "gate")), "gate")
    load_arrays(net, arrays)
    heads = adapter_schema(net).slices()
    for name, where in heads.items():
        if "lora_" in name:
            np.testing.assert_array_equal(get_vector(net)[where], before[where])


def test_what_a_site_learns_from_is_its_own_training_part_and_public_noise(tmp_path: Path) -> None:
    job = gate_job(tmp_path)
    net, _ = load_base(job.base_model, job.model(), job.reasons)
    site = job.sites[0]
    own = load_frames(site.features)
    found = load_gate_frames(
        site.features,
        job.public,
        net,
        AugmentConfig(clean_share=1.0, microphone=0.0, mask_rows=0, mask_steps=0),
    )
    train = (own.part[own.clip] == 0) & (own.view == 0)
    public = load_frames(job.public)
    seen = np.concatenate([own.log_mel[train], public.log_mel[public.part[public.clip] == 0]])
    batch = found.batches.draw(np.random.default_rng(0), 16)
    mel = net.cfg.log_mel
    seen = np.maximum(seen.astype(np.float32), np.log(mel.floor))  # mixing is in power, above the floor
    raw = batch.x.numpy() * mel.std + mel.mean
    for frame in raw:
        assert np.abs(seen - frame).max(axis=(1, 2)).min() < 0.05
    assert found.val_clip.size == ((own.part[own.clip] == 1) & (own.view == 0)).sum()


def test_the_digest_that_a_site_names_covers_the_public_noise(tmp_path: Path) -> None:
    job = gate_job(tmp_path)
    site = job.sites[0]
    alone, beside = named(site, Wanted()), named(site, Wanted.of(job))
    write_features(job.public, site="other")
    assert len({alone, beside, named(site, Wanted.of(job))}) == 3


def test_public_noise_stands_beside_the_sites_own_non_cries(tmp_path: Path) -> None:
    """As much of the draws as these, and nobody's infant."""
    job = gate_job(tmp_path)
    net, base = load_base(job.base_model, job.model(), job.reasons)
    site = job.sites[0]
    digest = material_digest(site.features, job.public)
    found = load_site_tokens(site.features, site.folder, net, base, digest, job.public)
    again = load_site_tokens(site.features, site.folder, net, base, digest, job.public)
    np.testing.assert_array_equal(found.train.tokens, again.train.tokens)  # from the cache
    public = found.train_infant == PUBLIC
    assert public.any()
    assert (found.train.gate[public] == 0).all()
    weight = found.train.weight
    own = weight[~public & (found.train.gate == 0)].sum()
    assert weight[public].sum() == pytest.approx(own, rel=1e-5)


def test_calls_weigh_a_quarter_of_the_public_ones_however_many_there_are(tmp_path: Path) -> None:
    job = gate_job(tmp_path)
    net, base = load_base(job.base_model, job.model(), job.reasons)
    frames = load_frames(job.public)
    call = np.arange(len(frames.gate)) > 0
    save_frames(replace(frames, label=np.where(call, CALL, "rain")), job.public)
    site = job.sites[0]
    digest = material_digest(site.features, job.public)
    found = load_site_tokens(site.features, site.folder, net, base, digest, job.public)
    public = found.train_infant == PUBLIC
    rows = np.flatnonzero((frames.part == TRAIN)[frames.clip])
    weight, loud = found.train.weight[public], call[frames.clip[rows]]
    assert 0 < loud.sum() < len(loud)
    assert weight[loud].sum() == pytest.approx(CALL_SHARE * weight.sum(), rel=1e-5)
    own = found.train.weight[~public & (found.train.gate == 0)].sum()
    assert weight.sum() == pytest.approx(own, rel=1e-5)


def test_a_site_under_differential_privacy_sits_it_out(tmp_path: Path) -> None:
    job = gate_job(tmp_path, sites=4)
    noisy = {"epsilon": 8.0, "noise_multiplier": 1.0, "clip": 1.0, "infants_per_step": 2, "delta": 1e-3}
    sites = (job.sites[0].model_copy(update={"privacy": noisy}), *job.sites[1:])
    job = job.model_copy(update={"sites": sites})
    result = federate(job, local_transport(job, tmp_path))
    first = json.loads(result.history.read_text())["rounds"][0]
    assert first["counted"] == ["site1", "site2", "site3"]


def test_jobs_and_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frames of public noise"):
        gate_job(tmp_path / "a", public=None)
    with pytest.raises(ValueError, match="at least one step"):
        gate_job(tmp_path / "b", gate={"local_steps": 0})
    job = gate_job(tmp_path / "c")
    net, _ = load_base(job.base_model, job.model(), job.reasons)
    with pytest.raises(DataError, match="no cry"):
        load_gate_frames(job.public, job.public, net, AugmentConfig())
    job.public.unlink()
    with pytest.raises(FederationError, match="cannot start"):
        federate(job, local_transport(job, tmp_path))
    plan = gate_job(tmp_path / "d").plan()
    with pytest.raises(ConfigError, match="together"):
        replace(plan, augment=None)
    with pytest.raises(ConfigError, match="no control variates"):
        replace(plan, control_variates=True)
    assert job.reasons == REASONS


def test_a_finished_phase_is_folded_into_the_base_model_of_the_next(tmp_path: Path) -> None:
    job = gate_job(tmp_path)
    path = tmp_path / "job.json"
    job.save(path)
    out = tmp_path / "next.safetensors"
    with pytest.raises(ConfigError, match="has not ended"):
        fold_job(path, out)
    assert not out.exists()
    result = federate(job, local_transport(job, tmp_path))
    digest = fold_job(path, out)
    net, named_so = load_base(out, job.model(), job.reasons)
    assert named_so == digest
    theta = load_theta(result.theta, adapter_schema(net, "gate"))
    np.testing.assert_array_equal(get_vector(net, "gate"), theta)
    follow_up = make_job(tmp_path / "next", base_model=out, public=job.public, rounds=1)
    federate(follow_up, local_transport(follow_up, tmp_path / "next"))
