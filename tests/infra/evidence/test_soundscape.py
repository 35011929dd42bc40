"""Synthesised hours: the same from the same seed, in any blocks, at the levels asked for, out of little memory, from held-out
groups."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from infra.data.manifest import load_manifest
from infra.evidence.folds import evidence_folds, fold_parts, judged
from infra.evidence.sound_material import (
    Materials,
    Source,
    halves_of,
    held_out,
    synthetic_infants,
    synthetic_ward,
)
from infra.evidence.soundscape import SLOT_S, Soundscape, SoundscapeConfig
from models.config import SAMPLE_RATE
from models.errors import ConfigError, DataError
from models.frames import TRAIN

SHORT = SoundscapeConfig(hours=240 / 3600, rest_s=(10.0, 30.0), event_every_s=(10.0, 20.0))


def materials(half: str = "tune") -> Materials:
    return synthetic_infants(5, half, infants=3, clips=3) + synthetic_ward(5, half, each=1)


def noise(seed: int, seconds: float, scale: float = 0.1) -> np.ndarray:
    return (scale * np.random.default_rng(seed).normal(size=round(seconds * SAMPLE_RATE))).astype(np.float32)


def plain(cry_seconds: float = 2.0) -> Materials:
    """White noise only, so that levels can be measured."""
    cry = Source("infant", "cry", "real", cry_seconds, lambda: noise(1, cry_seconds))
    beds = tuple(Source(f"bed{k}", "fan", "real", 5.0, lambda k=k: noise(2 + k, 5.0)) for k in range(3))
    return Materials({"infant": (cry,)}, beds, ())


def dbfs(wave: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(wave, dtype=np.float64))))


def test_the_same_seed_gives_the_same_samples_in_any_blocks() -> None:
    whole = np.concatenate(list(Soundscape(materials(), SHORT, 3).blocks()))
    other = np.concatenate(list(Soundscape(materials(), replace(SHORT, block_s=1.7), 3).blocks()))
    assert len(whole) == 240 * SAMPLE_RATE
    np.testing.assert_array_equal(whole, other)
    assert not np.array_equal(whole, np.concatenate(list(Soundscape(materials(), SHORT, 4).blocks())))


def test_cries_stand_at_their_snr_and_beds_at_their_level_without_a_step() -> None:
    cfg = SoundscapeConfig(
        hours=0.1, rest_s=(40.0, 60.0), cries=(1, 1), snr_db=(10.0, 10.0), bed_dbfs=(-40.0, -40.0), bed_s=(20.0, 30.0),
        crossfade_s=3.0,
    )  # fmt: skip
    sound = Soundscape(plain(), cfg, 0)
    wave = np.concatenate(list(sound.blocks()))
    quiet = np.ones(len(wave), bool)
    assert sound.bouts
    for b in sound.bouts:
        a, e = round(b.begin * SAMPLE_RATE), round(b.end * SAMPLE_RATE)
        quiet[a:e] = False
        # the bed is under the cry: 10 dB and the bed's own power; levels of a bout's cries vary by 1.5 dB
        assert dbfs(wave[a + 1600 : e - 1600]) == pytest.approx(-30 + 10 * np.log10(1.1), abs=4.0)
    seconds = wave[: len(wave) // SAMPLE_RATE * SAMPLE_RATE].reshape(-1, SAMPLE_RATE)
    level = [
        dbfs(s)
        for s, q in zip(seconds, quiet[: seconds.size].reshape(seconds.shape).all(1), strict=True)
        if q
    ]
    # crossfades keep the power: every second is at the bed's level, in one recording's loop and from one to the next
    assert max(level) < -39.0
    assert min(level) > -41.0


def test_the_truth_says_where_bouts_are_and_what_else_is_heard() -> None:
    sound = Soundscape(materials(), SHORT, 3)
    assert len(sound.background) == 240 / SLOT_S
    assert {sound.groups[k] for k in np.unique(sound.background)} <= {
        s.group for s in (*materials().beds, *materials().events)
    }
    assert len(sound.kinds) == len(sound.groups)
    assert len(sound.bouts) >= 3
    for a, b in zip(sound.bouts, sound.bouts[1:], strict=False):
        assert SHORT.rest_s[0] <= b.begin - a.end <= SHORT.rest_s[1] + 1e-4
    assert all(b.begin < b.end <= sound.seconds and b.group in materials().cries for b in sound.bouts)


def test_hours_are_never_in_memory() -> None:
    """Half an hour would be 115 MB; what is held are a block, one bed at a time and what sounds over it."""
    cfg = replace(SHORT, hours=0.5, rest_s=(60.0, 120.0))
    sound = Soundscape(plain(), cfg, 0)
    tracemalloc.start()
    peaks = []
    for _ in sound.blocks():
        peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    assert peaks[-1] < 60e6
    assert peaks[-1] < 1.2 * max(peaks[: len(peaks) // 3])


@pytest.mark.parametrize(
    "change",
    [
        {"snr_db": (20.0, 0.0)},
        {"hours": 0.0},
        {"cries": (0, 3)},
        {"crossfade_s": 20.0},
        {"rest_s": (0.0, 1.0)},
    ],
)
def test_ranges_that_are_none_are_refused(change: dict) -> None:
    with pytest.raises(ConfigError, match="soundscape"):
        SoundscapeConfig(**change)


def test_silence_without_cries_or_beds_is_refused() -> None:
    with pytest.raises(DataError, match="infants"):
        Soundscape(synthetic_infants(1, "tune"), SHORT, 0)
    with pytest.raises(DataError, match="infants"):
        Soundscape(synthetic_ward(1, "tune"), SHORT, 0)


def test_synthetic_infants_of_the_halves_are_others() -> None:
    tune, test = (synthetic_infants(5, half, infants=2, clips=2) for half in ("tune", "test"))
    assert not tune.groups & test.groups
    a, b = (next(iter(m.cries.values()))[0].load() for m in (tune, test))
    assert len(a) != len(b) or not np.array_equal(a, b)
    np.testing.assert_array_equal(a, next(iter(tune.cries.values()))[0].load())
    with pytest.raises(DataError, match="both"):
        tune + tune


def test_a_phones_cries_and_uploads_stay_in_one_half() -> None:
    rows = pd.DataFrame(
        {
            "group": list("aabbcdef"),
            "role": ["cry", "ood_noncry", "cry", "ood_noncry", "noise", "noise", "cry", "cry"],
        }
    )  # fmt: skip
    halves = halves_of(rows, 0)
    assert not halves["tune"] & halves["test"]
    assert halves["tune"] | halves["test"] == set("abcdef")
    for kind in ({"a", "b", "e", "f"}, {"c", "d"}):
        assert len(halves["tune"] & kind) == len(halves["test"] & kind)


@pytest.mark.real
def test_nothing_of_the_real_clips_was_trained_on(real_data) -> None:
    manifest = load_manifest(real_data / "manifest.csv")
    rows = judged(manifest.table)
    folds = evidence_folds(rows)
    trained = set(rows["group"][fold_parts(rows, folds, 2) == TRAIN])
    heard = {half: held_out(rows, manifest.root, folds, 2, half) for half in ("tune", "test")}
    for m in heard.values():
        assert not m.groups & trained
        assert len(m.cries) >= 10
        assert len(m.beds) >= 3
        assert len(m.events) >= 15
        source = m.events[0]
        assert len(source.load()) == round(source.seconds * SAMPLE_RATE)
    assert not heard["tune"].groups & heard["test"].groups
