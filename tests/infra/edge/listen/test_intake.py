"""Any source's blocks, on one clock."""

from __future__ import annotations

import numpy as np
import pytest

from infra.edge.listen.intake import Hole, Intake, Piece
from models.errors import AudioError
from tests.infra.edge.listen.sounds import noise, silence, tone


def _take(*blocks: tuple[np.ndarray, int]) -> list[Piece | Hole]:
    intake = Intake()
    return [p for b, rate in blocks for p in intake.feed(b, rate)] + list(intake.finish())


def _length(parts: list[Piece | Hole]) -> int:
    return sum(p.n if isinstance(p, Hole) else len(p.wave) for p in parts)


def test_stereo_is_averaged() -> None:
    left, right = noise(1, seed=1), noise(1, seed=2)
    (piece,) = _take((np.stack([left, right], 1), 16_000))
    assert isinstance(piece, Piece)
    assert np.array_equal(piece.wave, 0.5 * (left + right))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_what_is_no_number_is_lost_not_silent(value: float) -> None:
    wave = noise(1)
    wave[4_000:5_000] = value
    before, hole, after = _take((wave, 16_000))
    assert (len(before.wave), hole, len(after.wave)) == (  # type: ignore[union-attr]
        4_000,
        Hole(1_000, "samples that are not finite"),
        11_000,
    )


def test_one_bad_channel_is_enough() -> None:
    stereo = np.zeros((100, 2), np.float32)
    stereo[50, 1] = np.nan
    assert [type(p) for p in _take((stereo, 16_000))] == [Piece, Hole, Piece]


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 48_000])
def test_the_clock_loses_no_time(rate: int) -> None:
    """100 holes of uneven length: their rounding does not add up."""
    wave = noise(10, rate=rate)
    for i in range(100):
        at = 37 + i * (len(wave) // 101)
        wave[at : at + 1 + 7 * (i % 5)] = np.nan
    assert _length(_take((wave, rate))) == pytest.approx(160_000, abs=2)


def test_a_source_may_change_its_rate() -> None:
    parts = _take((tone(1, rate=44_100), 44_100), (tone(1, rate=8_000), 8_000), (tone(1), 16_000))
    assert _length(parts) == 48_000
    wave = np.concatenate([p.wave for p in parts])  # type: ignore[union-attr]
    crossings = [np.count_nonzero(np.diff(np.signbit(s))) for s in np.split(wave, 3)]
    assert crossings == pytest.approx([900, 900, 900], abs=3)


def test_lost_time() -> None:
    intake = Intake()
    parts = [
        *intake.feed(tone(0.5, rate=48_000), 48_000),
        *intake.lost(2.5, "overrun"),
        *intake.feed(tone(0.5, rate=48_000), 48_000),
        *intake.finish(),
    ]
    assert [p.n for p in parts if isinstance(p, Hole)] == [40_000]
    assert _length(parts) == 56_000


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_clipping_is_marked_where_the_source_clipped(rate: int) -> None:
    wave = tone(1, level=0.5, rate=rate)
    wave[rate // 2 : rate // 2 + rate // 10] = 1.0
    parts = _take((np.stack([silence(1, rate), wave], 1), rate))
    clipped = np.concatenate([p.clipped for p in parts])  # type: ignore[union-attr]
    assert np.count_nonzero(clipped) == pytest.approx(1_600, abs=2)
    assert clipped[8_010:9_590].all()


def test_arrays_and_rates_that_are_refused() -> None:
    intake = Intake()
    for block, rate in ((np.zeros((10, 3), np.float32), 16_000), (np.zeros((2, 2, 2), np.float32), 16_000)):
        with pytest.raises(AudioError, match="channels"):
            list(intake.feed(block, rate))
    with pytest.raises(AudioError, match="16000 at best"):
        list(intake.feed(np.zeros(10, np.float32), 1_000))
