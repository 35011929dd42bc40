"""Tokens are computed once, kept at the site, and never taken from a stale file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from infra.data.features import load_frames
from infra.federation.base import load_base
from infra.federation.files import decode_arrays
from infra.federation.job import FederationJob
from infra.federation.site_round import tally
from infra.federation.tokens import SiteTokens, features_digest, load_site_tokens
from models.errors import DataError
from models.frames import TRAIN, VAL, SiteFrames
from models.local_step import select_tokens
from models.network import CryNet
from models.predict import frame_tokens, predict
from tests.infra.federation.world import REASONS, make_job


@pytest.fixture
def job(tmp_path: Path) -> FederationJob:
    return make_job(tmp_path, sites=1)


def _net(job: FederationJob) -> tuple[CryNet, str]:
    return load_base(job.base_model, job.model(), job.reasons)


def _load(job: FederationJob, base: str | None = None) -> SiteTokens:
    net, digest = _net(job)
    site = job.sites[0]
    return load_site_tokens(site.features, site.folder, net, base or digest, features_digest(site.features))


def _caches(job: FederationJob) -> list[Path]:
    return sorted(job.sites[0].folder.iterdir())


def _frames(job: FederationJob) -> SiteFrames:
    return load_frames(job.sites[0].features)


def _rewrite(job: FederationJob, reasons: tuple[str, ...] = REASONS, **changes: np.ndarray) -> None:
    """Change arrays without the checks of the writer."""
    path = job.sites[0].features
    arrays = {**decode_arrays(path.read_bytes(), "features"), **changes}
    described = {"reasons": reasons, "group": [f"infant-{i // 2}" for i in range(12)]}
    path.write_bytes(save(arrays, {"cryfed.frames": json.dumps(described)}))


def test_equals_the_selection_of_the_local_step(job: FederationJob) -> None:
    net, _ = _net(job)
    frames = _frames(job)
    expected = select_tokens(frame_tokens(net, frames.log_mel), frames, TRAIN)
    found = _load(job).train
    np.testing.assert_allclose(found.tokens.astype(np.float32), expected.tokens.astype(np.float32), atol=2e-3)
    for name in ("gate", "reason", "weight"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_the_tally_is_the_confusion_of_clip_scores(job: FederationJob) -> None:
    net, _ = _net(job)
    scores = predict(net, _frames(job)).of_part(VAL)
    gate = np.zeros((2, 2), np.int64)
    np.add.at(gate, (scores.gate, (scores.gate_logit > 0).astype(int)), 1)
    cries = scores.select(scores.gate == 1)
    reason = np.zeros((3, 3), np.int64)
    np.add.at(reason, (cries.reason, cries.reason_logits.argmax(1)), 1)
    found = tally(net, _load(job))
    np.testing.assert_array_equal(found[0], gate)
    np.testing.assert_array_equal(found[1], reason)


def test_every_frame_knows_its_infant(job: FederationJob) -> None:
    """12 clips of 6 infants, 3 frames each; clips 0–3 and 6–9 are for training."""
    _rewrite(job)
    assert _load(job).train_infant.tolist() == [i // 2 for i in (0, 1, 2, 3, 6, 7, 8, 9) for _ in range(3)]


def test_unlabelled_clips_and_other_views_stay_out(job: FederationJob) -> None:
    frames = _frames(job)
    gate, view = frames.gate.copy(), frames.view.copy()
    gate[:2] = -1  # two training clips without a label
    view[1::3] = 1  # the second frame of every clip is another rendering
    _rewrite(job, gate=gate, view=view)
    tokens = _load(job)
    assert len(tokens.train) == (8 - 2) * 3
    assert len(tokens.val) == 4 * 2


def test_second_load_reads_the_cache(job: FederationJob, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _load(job)
    monkeypatch.setattr("infra.federation.tokens.frame_tokens", None)  # computing again would raise
    second = _load(job)
    np.testing.assert_array_equal(first.train.tokens, second.train.tokens)
    np.testing.assert_array_equal(first.val.tokens, second.val.tokens)


def test_another_base_or_other_features_replace_the_cache(job: FederationJob) -> None:
    _load(job)
    (before,) = _caches(job)
    _load(job, base="0" * 64)
    (after,) = _caches(job)
    assert after != before
    _rewrite(job, log_mel=_frames(job).log_mel + np.float16(1))
    _load(job, base="0" * 64)
    (last,) = _caches(job)
    assert last != after


@pytest.mark.parametrize("content", [b"", b"half", b"\xff" * 100])
def test_a_damaged_cache_is_computed_again(job: FederationJob, content: bytes) -> None:
    first = _load(job)
    (cache,) = _caches(job)
    whole = cache.read_bytes()
    cache.write_bytes(content or whole[:-7])
    np.testing.assert_array_equal(_load(job).train.tokens, first.train.tokens)
    assert cache.read_bytes() == whole


def test_bad_features_are_named(job: FederationJob) -> None:
    frames = _frames(job)
    broken = {
        "no labelled training frame": {"part": np.full_like(frames.part, VAL)},
        "do not fit together": {"clip": frames.clip[:-1]},
        "not fit together": {"clip": frames.clip + 100},
        "the network takes": {"log_mel": frames.log_mel[:, :32]},
        "not finite": {"log_mel": np.full_like(frames.log_mel, np.nan)},
    }
    original = job.sites[0].features.read_bytes()
    _rewrite(job, reasons=REASONS[::-1])
    with pytest.raises(DataError, match="numbers its reasons as"):
        _load(job)
    for says, change in broken.items():
        _rewrite(job, **change)
        with pytest.raises(DataError, match=says):
            _load(job)
        job.sites[0].features.write_bytes(original)
    assert not job.sites[0].folder.exists()
    job.sites[0].features.write_bytes(b"not safetensors")
    with pytest.raises(DataError, match="extract them again"):
        _load(job)
    job.sites[0].features.unlink()
    with pytest.raises(DataError, match="cannot read"):
        _load(job)


def test_a_sites_process_does_without_the_heavy_libraries() -> None:
    code = "import sys, infra.federation.client_app; print([m for m in ('pandas', 'great_expectations') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
