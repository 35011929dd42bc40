"""Batches for the gate: who is drawn, how often, and what is done to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.config import LogMelConfig
from models.errors import ConfigError, DataError
from models.frames import CALL, TEST, TRAIN, SiteFrames
from models.gate_batches import AugmentConfig, GateBatches

MEL = LogMelConfig()
AS_THEY_ARE = AugmentConfig(clean_share=1.0, microphone=0.0, mask_rows=0, mask_steps=0, frames_per_clip=1)

Site = Callable[..., SiteFrames]


@pytest.fixture
def site() -> Site:
    """Frames whose every value is their clip's number, so that a drawn frame names its clip."""

    def make(name: str, gate: list[int], frames: list[int], first: float = 0.0) -> SiteFrames:
        clip = np.repeat(np.arange(len(gate)), frames).astype(np.int32)
        value = (first + clip).astype(np.float16)
        return SiteFrames(
            site=name, reasons=("hungry", "tired"),
            log_mel=np.broadcast_to(value[:, None, None], (len(clip), MEL.n_mels, MEL.n_frames)).copy(),
            clip=clip, view=np.zeros(len(clip), np.int16), snr_db=np.full(len(clip), np.nan, np.float32),
            gate=np.array(gate, np.int8), reason=np.where(np.array(gate) == 1, np.arange(len(gate)) % 2, -1).astype(np.int16),
            part=np.full(len(gate), TRAIN, np.int8), group=np.array([f"{name}{i}" for i in range(len(gate))]),
            clip_id=np.array([f"{name}{i}" for i in range(len(gate))]), label=np.array(["x"] * len(gate)),
        )  # fmt: skip

    return make


def drawn(batches: GateBatches, size: int = 64, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The clips' numbers and the targets of a batch."""
    batch = batches.draw(np.random.default_rng(seed), size)
    return np.rint(batch.x[:, 0, 0].numpy() * MEL.std + MEL.mean).astype(int), batch.cry.numpy()


def test_half_are_cries_and_the_rest_own_and_public_noncries(site: Site) -> None:
    batches = GateBatches(
        [site("a", [1, 0] * 20, [1] * 40)], site("", [0] * 5, [2] * 5, 60.0), MEL, AS_THEY_ARE
    )
    clips, cry = drawn(batches, 100)
    assert cry.sum() == 50
    assert np.array_equal(cry == 1, (clips < 60) & (clips % 2 == 0))
    assert ((clips < 60) & (clips % 2 == 1)).sum() == 30
    assert (clips >= 60).sum() == 20


def test_a_site_without_noncries_learns_them_from_public_noise(site: Site) -> None:
    clips, cry = drawn(GateBatches([site("a", [1, 1], [3, 3])], site("", [0], [1], 60.0), MEL, AS_THEY_ARE))
    assert (clips[cry == 0] == 60).all()
    few = GateBatches([site("a", [1, 0], [3, 3])], site("", [0], [1], 60.0), MEL, AS_THEY_ARE)
    assert (drawn(few)[0] == 1).sum() == 2  # its one non-cry does not fill a third of every batch


def test_clips_weigh_the_same_however_long(site: Site) -> None:
    batches = GateBatches([site("a", [1, 1], [1, 30])], site("", [0], [1], 60.0), MEL, AS_THEY_ARE)
    clips = np.concatenate([drawn(batches, 200, seed)[0] for seed in range(10)])
    assert abs((clips == 0).sum() / (clips < 60).sum() - 0.5) < 0.05


def test_nothing_but_clean_training_frames_is_drawn(site: Site) -> None:
    own = site("a", [1, 1, 0, 0], [2] * 4)
    own.part[[1, 3]] = TEST
    own.view[own.clip == 0] = [0, 3]
    own.log_mel[np.flatnonzero(own.clip == 0)[1]] = 50.0  # a rendering, which is altered already
    batches = GateBatches([own], site("", [0, 0], [1, 1], 60.0), MEL, AS_THEY_ARE)
    seen = {int(c) for seed in range(20) for c in drawn(batches, 32, seed)[0]}
    assert seen == {0, 2, 60, 61}
    public = site("", [0, 0], [1, 1], 60.0)
    public.part[1] = TEST
    assert 61 not in {
        int(c) for s in range(20) for c in drawn(GateBatches([own], public, MEL, AS_THEY_ARE), 32, s)[0]
    }


def test_reasons_follow_their_frames(site: Site) -> None:
    batch = GateBatches([site("a", [1, 1, 0], [1] * 3)], site("", [0], [1], 60.0), MEL, AS_THEY_ARE).draw(
        np.random.default_rng(0), 64
    )
    clips = np.rint(batch.x[:, 0, 0].numpy() * MEL.std + MEL.mean).astype(int)
    expected = np.zeros((64, 2))
    expected[clips == 0, 0] = expected[clips == 1, 1] = 1
    assert np.array_equal(batch.reason.numpy(), expected)


def test_noise_masks_and_microphone_change_frames_but_not_their_target(site: Site) -> None:
    own, public = site("a", [1, 0], [3, 3]), site("", [0], [1], 1.0)
    plain = GateBatches([own], public, MEL, AS_THEY_ARE).draw(np.random.default_rng(1), 32)
    for change in ({"clean_share": 0.0}, {"microphone": 0.7}, {"mask_rows": 10}, {"mask_steps": 20}):
        other = GateBatches([own], public, MEL, replace(AS_THEY_ARE, **change)).draw(
            np.random.default_rng(1), 32
        )
        assert torch.equal(other.cry, plain.cry)
        assert not torch.allclose(other.x, plain.x, atol=1e-3), change
        assert torch.isfinite(other.x).all()
        if "microphone" not in change and "clean_share" not in change:
            assert torch.allclose(other.clean, plain.clean)


def test_frames_of_a_recording_share_what_is_done_to_it(site: Site) -> None:
    cfg = replace(AS_THEY_ARE, frames_per_clip=4, microphone=0.7)
    own, public = site("a", [1, 0], [6, 3]), site("", [0], [1], 1.0)
    batch = GateBatches([own], public, MEL, cfg).draw(np.random.default_rng(2), 8)
    assert batch.x.shape == (32, MEL.n_mels, MEL.n_frames)
    assert (len(batch.cry), len(batch.reason)) == (8, 8)
    clips = batch.x.reshape(8, 4, MEL.n_mels, MEL.n_frames)
    # a clip's frames are alike here, so whatever is done to the clip must leave them alike
    torch.testing.assert_close(clips, clips[:, :1].expand_as(clips))
    assert not torch.allclose(clips[0], clips[1], atol=0.05)


def test_a_long_recording_gives_different_frames(site: Site) -> None:
    own = site("a", [1], [4])
    own.log_mel[:] = np.arange(4, dtype=np.float16)[:, None, None]
    batch = GateBatches([own], site("", [0], [1]), MEL, replace(AS_THEY_ARE, frames_per_clip=4)).draw(
        np.random.default_rng(0), 2
    )
    level = batch.x[:4, 0, 0] * MEL.std + MEL.mean
    torch.testing.assert_close(level.sort().values, torch.arange(4.0), atol=1e-3, rtol=0)


def test_equal_seeds_draw_equal_batches(site: Site) -> None:
    batches = GateBatches([site("a", [1, 0], [3, 3])], site("", [0], [1], 1.0), MEL)
    torch.manual_seed(0)
    one = batches.draw(np.random.default_rng(7), 16)
    torch.manual_seed(0)
    two = batches.draw(np.random.default_rng(7), 16)
    assert torch.equal(one.x, two.x)


def test_what_cannot_teach_a_gate_is_refused(site: Site) -> None:
    with pytest.raises(DataError, match="cries and public noise"):
        GateBatches([site("a", [0], [1])], site("", [0], [1]), MEL)
    with pytest.raises(DataError, match="cries and public noise"):
        GateBatches([site("a", [1], [1])], site("", [1], [1]), MEL)
    for bad in ({"snr_low": 30.0}, {"clean_share": 1.5}, {"microphone": -1.0}):
        with pytest.raises(ConfigError):
            AugmentConfig(**bad)


def test_calls_have_a_share_of_their_own_and_are_never_mixed_in(site: Site) -> None:
    """However many there are: by their number they would be 19 of 20 public non-cries, and of the noise."""
    own, public = site("a", [1] * 10, [3] * 10), site("", [0] * 20, [1] * 20, 60.0)
    public = replace(public, label=np.array(["rain"] + [CALL] * 19))
    clips, _ = drawn(GateBatches([own], public, MEL, AS_THEY_ARE), 400)
    others = clips[clips >= 60]
    assert len(others) == 200
    assert 0.15 < (others > 60).mean() < 0.35
    none = replace(AS_THEY_ARE, call_share=0.0)
    assert (drawn(GateBatches([own], public, MEL, none), 400)[0] <= 60).all()

    slope = np.linspace(-2.0, 2.0, MEL.n_mels, dtype=np.float16)[None, :, None]
    sloping = np.where((public.clip > 0)[:, None, None], public.log_mel + slope, public.log_mel)
    loud = replace(AS_THEY_ARE, clean_share=0.0, snr_low=-20.0, snr_high=-20.0, snr_spread=0.0)
    public = replace(public, log_mel=sloping.astype(np.float16))
    batch = GateBatches([own], public, MEL, loud).draw(np.random.default_rng(0), 100)
    cries = batch.x[:50, :, 0].numpy()
    assert np.ptp(cries, axis=1).max() < 1e-3  # rain alone, which is as loud in every band


def test_calls_alone_are_all_that_a_corpus_without_noise_has(site: Site) -> None:
    calls = replace(site("", [0] * 4, [1] * 4, 60.0), label=np.array([CALL] * 4))
    clips, cry = drawn(GateBatches([site("a", [1], [3])], calls, MEL, AS_THEY_ARE), 40)
    assert (clips[cry == 0] >= 60).all()
