"""Which seconds are kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import ConfigError
from models.segmentation import VadConfig, activity, frame_starts, frames, segment


def burst_clip(start_s: float, end_s: float, total_s: float, noise: float = 1e-3) -> np.ndarray:
    rng = np.random.default_rng(1)
    wave = noise * rng.standard_normal(round(total_s * 16_000))
    a, b = round(start_s * 16_000), round(end_s * 16_000)
    wave[a:b] += 0.3 * np.sin(2 * np.pi * 450 * np.arange(b - a) / 16_000)
    return wave.astype(np.float32)


def test_finds_the_burst() -> None:
    (found,) = segment(burst_clip(2.0, 2.8, 6.0))
    assert abs(found[0] / 16_000 - 2.0) < 0.05
    assert abs(found[1] / 16_000 - 2.8) < 0.05


def test_keeps_only_frames_with_activity() -> None:
    starts = frame_starts(burst_clip(2.0, 2.8, 6.0)) / 16_000
    assert starts.tolist() == [1.5, 2.0, 2.5]


def test_adapts_to_the_noise_floor() -> None:
    """The same burst in noise 20 dB louder is still found, and the noise is still not."""
    (found,) = segment(burst_clip(2.0, 2.8, 6.0, noise=0.01))
    assert abs(found[0] / 16_000 - 2.0) < 0.05


def test_floor_follows_a_step_in_the_noise() -> None:
    """A fan that switches on is activity for a moment, then becomes the floor; a burst above it stands out."""
    wave = burst_clip(6.0, 6.6, 9.0)
    rng = np.random.default_rng(2)
    wave[48_000:] += (0.02 * rng.standard_normal(len(wave) - 48_000)).astype(np.float32)
    active = activity(wave)
    assert active[605:655].all()
    assert not active[520:580].any()


def test_steady_sound_is_kept_whole() -> None:
    wave = np.random.default_rng(3).standard_normal(48_000).astype(np.float32)
    assert len(frames(wave)) == 5


def test_gaps_shorter_than_the_hangover_close() -> None:
    wave = burst_clip(1.0, 1.4, 4.0) + burst_clip(1.5, 1.9, 4.0)
    assert len(segment(wave)) == 1


def test_short_clip_is_zero_padded() -> None:
    got = frames(np.full(3_000, 0.1, dtype=np.float32))
    assert got.shape == (1, 16_000)
    assert got.dtype == np.float32
    assert got[0, 2_999] == np.float32(0.1)
    assert not got[0, 3_000:].any()


def test_last_frame_reaches_the_end() -> None:
    assert frame_starts(np.ones(16_000 + 4_000, dtype=np.float32)).tolist() == [0, 4_000]
    assert frame_starts(np.ones(16_000 + 1_000, dtype=np.float32)).tolist() == [0]


def test_silence_gives_one_frame() -> None:
    assert frames(np.zeros(80_000, dtype=np.float32)).shape == (1, 16_000)
    assert segment(np.zeros(80_000, dtype=np.float32)) == []


def test_nothing_active_enough_keeps_the_most_active() -> None:
    wave = burst_clip(2.1, 2.2, 6.0)
    starts = frame_starts(wave, VadConfig(min_active=0.9))
    assert len(starts) == 1
    assert 0 <= 2.1 * 16_000 - starts[0] < 16_000


@pytest.mark.parametrize("wave", [np.zeros(0, dtype=np.float32), np.zeros((2, 16_000), dtype=np.float32)])
def test_empty_or_stereo_is_refused(wave: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="non-empty mono wave"):
        frames(wave)


@settings(max_examples=40, deadline=None)
@given(
    samples=st.integers(1, 70_000),
    gain_db=st.sampled_from([-40, -20, 0]),
    seed=st.integers(0, 1000),
)
def test_properties(samples: int, gain_db: int, seed: int) -> None:
    """At least one frame, every frame cut from the wave, deterministic, and the gain decides nothing."""
    rng = np.random.default_rng(seed)
    envelope = np.repeat(rng.random(samples // 800 + 1), 800)[:samples]
    wave = (envelope * rng.standard_normal(samples)).astype(np.float32)
    starts = frame_starts(wave)
    assert len(starts) >= 1
    assert (np.diff(starts) > 0).all()
    assert starts[-1] == 0 or starts[-1] + 16_000 <= samples
    np.testing.assert_array_equal(starts, frame_starts(wave * np.float32(10 ** (gain_db / 20))))
