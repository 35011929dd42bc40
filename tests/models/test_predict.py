"""Scores per frame and per clip."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.errors import DataError
from models.pooling import soft_maximum
from models.predict import FrameScores, clip_scores, concat_scores, frame_scores, frame_tokens, predict
from tests.models.helpers import made_up_frames, tiny_net


def test_clip_scores_by_hand() -> None:
    """Clip 0 has frames 0 and 1 in view 0 and frame 2 in view 1: reasons are means, 0, 1 → 0.5, and 2."""
    frames = made_up_frames(clips=2)
    n = len(frames.clip)
    values = np.arange(n, dtype=np.float32)
    scores = clip_scores(frames, FrameScores(values, np.stack([values] * 3, axis=1), -values))
    assert scores.reason_logits[:, 2].tolist() == [0.5, 2.0, 3.5, 5.0]
    assert scores.gate_logit[[1, 3]].tolist() == [2.0, 5.0]  # of one frame each
    assert scores.n_frames.tolist() == [2, 1, 2, 1]
    assert scores.view.tolist() == [0, 1, 0, 1]
    np.testing.assert_array_equal(scores.snr_db, np.array([np.nan, 5, np.nan, 5], dtype=np.float32))
    assert scores.gate.tolist() == [0, 0, 1, 1]
    assert scores.label.tolist() == ["fan", "fan", "cry", "cry"]


def test_the_soft_maximum_by_hand() -> None:
    """log mean exp of 0 and 1; equal frames score as one of them, and a large logit does not overflow."""
    frames = made_up_frames(clips=2)
    values = np.arange(len(frames.clip), dtype=np.float32)
    reasons = np.stack([values] * 3, axis=1)
    scores = clip_scores(frames, FrameScores(values, reasons, -values))
    top = np.log((1.0 + np.e) / 2.0)
    np.testing.assert_allclose(scores.gate_logit, [top, 2.0, 3.0 + top, 5.0], rtol=1e-12)
    np.testing.assert_allclose(scores.energy, [-top, -2.0, -3.0 - top, -5.0], rtol=1e-12)
    assert scores.reason_logits[:, 2].tolist() == [0.5, 2.0, 3.5, 5.0]
    same = np.full_like(values, 1000.0)
    assert (clip_scores(frames, FrameScores(same, reasons, same)).gate_logit == 1000.0).all()
    assert soft_maximum([0.0, 1.0]) == pytest.approx(top)
    assert soft_maximum([1000.0, 1000.0]) == 1000.0


def test_cached_tokens_give_the_same_scores_as_the_waveform() -> None:
    """float16 storage of log-mel and tokens costs less than 0.02 in a logit."""
    net = tiny_net()
    wave = 0.1 * torch.randn(18, 16_000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        direct = net(wave)
        log_mel = net.log_mel(wave).numpy().astype(np.float16)
    frames = replace(made_up_frames(clips=6), log_mel=log_mel)
    tokens = frame_tokens(net, frames.log_mel, batch=7)
    assert tokens.dtype == np.float16
    cached = frame_scores(net, tokens, batch=5)
    np.testing.assert_allclose(cached.gate_logit, direct.gate_logit.numpy(), atol=0.02)
    np.testing.assert_allclose(cached.energy, direct.energy.numpy(), atol=0.02)
    one, two = predict(net, frames), predict(net, frames, tokens)
    np.testing.assert_array_equal(one.gate_logit, two.gate_logit)


def test_parts_and_joining() -> None:
    net = tiny_net()
    both = concat_scores([predict(net, made_up_frames(site=s)) for s in ("x", "y")])
    assert len(both) == 24
    val = both.of_part(1)
    assert set(val.site) == {"x", "y"}
    assert (val.part == 1).all()
    assert len(val) == 8


def test_refusals() -> None:
    net, frames = tiny_net(), made_up_frames()
    with pytest.raises(DataError, match="takes \\(N, 64, 98\\)"):
        frame_tokens(net, frames.log_mel[:, :63])
    with pytest.raises(DataError, match="has reasons"):
        predict(net, replace(frames, reasons=("x", "y")))
    with pytest.raises(DataError, match="2 scores for 18 frames"):
        clip_scores(
            frames,
            FrameScores(np.zeros(2, np.float32), np.zeros((2, 3), np.float32), np.zeros(2, np.float32)),
        )
    with pytest.raises(DataError, match="can only be joined"):
        concat_scores([])


def test_no_frames() -> None:
    net = tiny_net()
    scores = frame_scores(net, np.zeros((0, 24, 32), dtype=np.float16))
    assert scores.reason_logits.shape == (0, 3)
