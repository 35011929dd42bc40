"""The same frames and the same activity as for clips, as far as a stream can know them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.edge.listen.config import ListenConfig
from infra.edge.listen.framer import Cut, Framer
from models.errors import ConfigError
from models.segmentation import VadConfig, activity, cut, frame_starts
from tests.infra.edge.listen.sounds import noise, silence, tone

VAD, CFG = VadConfig(), ListenConfig()


def _cuts(*waves: np.ndarray, skip: int = 0) -> list[Cut]:
    framer = Framer(VAD, CFG)
    out: list[Cut] = []

    def keep(cuts) -> None:  # type: ignore[no-untyped-def]
        out.extend(Cut(**{**c.__dict__, "wave": c.wave.copy()}) for c in cuts)

    for i, wave in enumerate(waves):
        if i:
            keep(framer.skip(skip))
        keep(framer.feed(wave, np.zeros(len(wave), bool)))
    keep(framer.finish())
    return out


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 100_000))
def test_frames_lie_where_those_of_a_clip_do(n: int) -> None:
    """A steady tone is active throughout, so a clip keeps all its frames."""
    wave = tone(7)[:n]
    found = _cuts(wave)
    starts = frame_starts(wave, VAD)
    if n < 2_000:  # less than a quarter of a hop is no frame of a stream, though it is one of a clip
        assert not found
        return
    assert [c.begin for c in found] == starts.tolist()
    assert np.array_equal(np.concatenate([c.wave for c in found]), cut(wave, starts))


@pytest.mark.parametrize("seconds", [1.0, 1.37, 4.0, 7.9])
def test_a_stream_is_judged_at_its_end_as_the_clip_would_be(seconds: float) -> None:
    wave = noise(8, level=0.003)
    for at in np.random.default_rng(1).integers(0, 120_000, 12):
        wave[at : at + 3_000] += tone(3_000 / 16_000)
    wave = wave[: round(seconds * 16_000)]
    last = _cuts(wave)[-1]
    assert last.active == activity(wave, VAD)[-100:].mean()
    assert 0.0 < last.active < 1.0


def test_nothing_after_the_frame_matters() -> None:
    wave = noise(4)
    loud = np.concatenate([wave, tone(2, level=1.0)])
    for short, long in zip(_cuts(wave), _cuts(loud), strict=False):
        assert (short.active, short.kept, short.begin) == (long.active, long.kept, long.begin)


def test_a_quiet_room_is_not_scored_but_a_quiet_sound_is() -> None:
    """Room noise is its own peak, hence active for a clip; a stream asks for a level as well."""
    room = noise(3, level=1e-4)  # −80 dB
    assert activity(room, VAD).mean() > 0.9
    assert not any(c.kept for c in _cuts(room))
    assert all(c.kept for c in _cuts(noise(3, level=1e-3)))
    assert not any(c.kept for c in _cuts(silence(3)))


def test_the_last_seconds_set_the_scale() -> None:
    """A bang longer than 2 % of the context makes what is 40 dB below it inaudible, until it is forgotten."""
    quiet = tone(12, level=0.002)
    quiet[:8_000] = tone(0.5, level=1.0)
    kept = [c.end / 16_000 for c in _cuts(quiet) if c.kept]
    assert [k for k in kept if 2.0 <= k <= 8.0] == []
    assert [k for k in kept if k > 9.0] == [9.5, 10.0, 10.5, 11.0, 11.5, 12.0]


def test_no_frame_reaches_across_a_gap() -> None:
    found = _cuts(tone(1.7), tone(2.2), skip=5_000)
    spans = [(c.begin, c.end) for c in found]
    first, second = round(1.7 * 16_000), round(1.7 * 16_000) + 5_000
    end = second + round(2.2 * 16_000)
    assert spans == [
        (0, 16_000), (8_000, 24_000), (first - 16_000, first),
        (second, second + 16_000), (second + 8_000, second + 24_000), (second + 16_000, second + 32_000), (end - 16_000, end),
    ]  # fmt: skip


def test_an_end_before_the_first_second_is_filled_with_zeros() -> None:
    (only,) = _cuts(tone(0.6))
    assert (only.begin, only.end, only.kept) == (0, 9_600, True)
    assert not only.wave[0, 9_600:].any()
    assert only.active == pytest.approx(0.6, abs=0.02)


def test_memory_does_not_grow() -> None:
    framer = Framer(VAD, CFG)
    size = len(framer._wave)
    for _ in range(200):
        for _ in framer.feed(noise(1), np.zeros(16_000, bool)):
            pass
    assert len(framer._wave) == size
    assert framer.now == 200 * 16_000


def test_hops_that_leave_sound_unheard_are_refused() -> None:
    with pytest.raises(ConfigError, match="heard whole"):
        Framer(VadConfig(hop_s=1.5), CFG)
    with pytest.raises(ConfigError, match=r"multiple of 0\.01"):
        Framer(VadConfig(hop_s=0.123), CFG)
