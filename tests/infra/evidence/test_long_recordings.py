"""Long recordings from end to end: listening once, tuning on some hours, reporting on others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from infra.evidence import long_recordings as lr
from infra.evidence.alarm_tuning import Limits, matches, point, thresholds_for, tune
from infra.evidence.alarms import Replay, Rule
from infra.evidence.long_recordings import long_recordings_document
from infra.evidence.long_track import Track, listen, load_track, save_track
from infra.evidence.sound_material import synthetic_infants, synthetic_ward
from infra.evidence.soundscape import Soundscape, SoundscapeConfig, TrueBout
from models.errors import ConfigError, DataError

RULES = (
    Rule("frame"),
    Rule("mean", window_s=3.0),
    Rule("hysteresis", window_s=3.0, off_margin=1.0, least_s=1.5),
)

LIMITS = Limits(per_hour=6.0)


def made_up(track_of, name: str, seed: int, hours: float = 0.5, signal: float = 3.0) -> Track:
    """A bout of 20 s every two minutes; half the seconds of a bout are loud, and one background group errs now and then."""
    rng = np.random.default_rng(seed)
    n = round(7200 * hours)
    logit = rng.normal(-2.0, 1.2, n)
    bouts = []
    for k, begin in enumerate(np.arange(60.0, 3600 * hours - 60, 120.0)):
        bouts.append(
            TrueBout(
                begin,
                begin + 20.0,
                f"{name} infant {k % 5}",
                "real" if k % 2 else "synthetic",
                float(rng.uniform(0, 20)),
            )
        )
        here = slice(int(2 * begin), int(2 * begin) + 40)
        logit[here] += signal * (rng.random(40) < 0.6)
    background = (np.arange(n + 1) // 150) % 4
    logit[(background[:n] == 1) & (rng.random(n) < 0.01)] += 5.0
    return track_of(logit, bouts, background, name, {b.group for b in bouts})


@pytest.fixture(scope="module")
def hours(track_of) -> tuple[list[Track], list[Track]]:
    return [made_up(track_of, "tune", 1)], [made_up(track_of, "test", 2)]


@pytest.fixture(scope="module")
def document(hours):
    return long_recordings_document(*hours, limits=LIMITS, rules=RULES, resamples=200)


def test_the_chosen_points_keep_the_limits_and_no_other_misses_less(hours) -> None:
    replays, limits = [Replay(t) for t in hours[0]], Limits(per_hour=6.0, share=0.02)
    for name, best in tune(replays, limits, RULES).items():
        assert best.feasible
        assert best.tuned.false_per_hour <= 6.0
        rule = next(r for r in RULES if r.name == name)
        for threshold in thresholds_for(replays, rule):
            p = point(replays, threshold, matches(replays, rule, threshold))
            if p.false_per_hour <= 6.0 and p.false_share <= 0.02:
                assert p.missed >= best.tuned.missed


def test_out_of_reach_is_said(hours) -> None:
    noisy = [replace(t, logit=np.where(np.arange(len(t.logit)) % 8 < 2, 9.0, t.logit)) for t in hours[0]]
    best = tune([Replay(t) for t in noisy], Limits(per_hour=0.1, share=1e-4), RULES[:1])
    assert not best["frame"].feasible


def test_tuning_never_sees_the_test_hours(hours, document, track_of) -> None:
    other = long_recordings_document(
        hours[0], [made_up(track_of, "elsewhere", 9, signal=0.0)], limits=LIMITS, rules=RULES, resamples=50
    )
    for name, one in document["rules"].items():
        assert other["rules"][name]["tuned"] == one["tuned"]
        assert other["rules"][name]["rule"] == one["rule"]
        assert [p["threshold"] for p in other["rules"][name]["curve"]] == [
            p["threshold"] for p in one["curve"]
        ]
        assert other["rules"][name]["test"] != one["test"]
    with pytest.raises(DataError, match="tuning hours and in the test hours"):
        long_recordings_document(hours[0], hours[0], rules=RULES)
    shared = replace(hours[1][0], materials=hours[1][0].materials | {"tune infant 3"})
    with pytest.raises(DataError, match="tune infant 3"):
        long_recordings_document(hours[0], [shared], rules=RULES)


def test_every_rate_is_the_counts_ratio_inside_its_interval(document) -> None:
    quiet = document["test"]["quiet_hours"]
    for one in document["rules"].values():
        t = one["test"]
        assert t["false_per_hour"]["value"] == pytest.approx(t["false_alarms"] / quiet)
        assert t["missed"]["value"] == pytest.approx(t["bouts_missed"] / t["bouts"])
        for e in (t["false_per_hour"], t["missed"], t["latency_s"], *(p["missed"] for p in one["curve"])):
            assert e["low"] <= e["value"] <= e["high"]
        assert all(p["false_per_hour"]["high"] > 0 for p in one["curve"])
        missed = [p["missed"]["value"] for p in one["curve"]]
        assert missed[-1] > missed[0]
    assert sum(s["bouts"] for s in document["chosen"]["by_snr"]) == document["test"]["bouts"]
    assert (
        sum(k["alarms"] for k in document["chosen"]["by_kind"])
        == document["rules"]["hysteresis"]["test"]["false_alarms"]
    )


def test_no_false_alarm_has_the_poisson_bound(track_of, hours) -> None:
    silent = made_up(track_of, "silent", 3, signal=0.0)
    silent = replace(silent, logit=np.minimum(silent.logit, -3.0))
    one = long_recordings_document(hours[0], [silent], rules=RULES, resamples=50)["rules"]["hysteresis"][
        "test"
    ]
    assert one["false_per_hour"]["value"] == 0
    # −ln(0.025) events in the hours heard
    assert one["false_per_hour"]["high"] == pytest.approx(3.6889 / silent.quiet_hours, rel=1e-4)
    assert one["latency_s"]["value"] is None


def test_context_helps_where_single_frames_err(document) -> None:
    gain = document["rules"]["mean"]["against_frame"]
    assert gain["missed"]["value"] < 0 or gain["false_per_hour"]["value"] < 0


def test_the_device_is_told_its_own_settings(document) -> None:
    device, rule = document["chosen"]["device"], document["rules"]["hysteresis"]
    odds = np.log(device["gate_threshold"] / (1 - device["gate_threshold"]))
    assert odds == pytest.approx(rule["tuned"]["threshold"])
    assert (device["smooth_s"], device["off_margin"], device["least_s"]) == (3.0, 1.0, 1.5)


def test_the_timeline_is_ten_minutes_with_bouts(document) -> None:
    t = document["timeline"]
    assert t["end_s"] - t["begin_s"] == lr.TIMELINE_S
    assert len(t["bouts"]) >= 4
    assert len(t["seconds"]) == len(t["own"]) == len(t["smoothed"])
    assert min(t["seconds"]) >= t["begin_s"]


def test_listening_scores_what_the_device_would_and_the_track_survives_a_file(tmp_path: Path) -> None:
    materials = synthetic_infants(1, "test", infants=2, clips=2) + synthetic_ward(1, "test", each=1)
    cfg = SoundscapeConfig(hours=60 / 3600, rest_s=(8.0, 12.0), cries=(2, 3), snr_db=(20.0, 20.0))
    sound = Soundscape(materials, cfg, 7)
    batches: list[int] = []

    def loudness(frames: np.ndarray) -> np.ndarray:
        batches.append(len(frames))
        level = 10 * np.log10(np.mean(np.square(frames), axis=1))
        frames[:] = 0.0  # what a scorer does to its frames must not matter
        return level

    track = listen(sound, loudness, "a minute", materials.groups)
    assert len(track.logit) == 119
    assert sum(batches) == int((~np.isnan(track.logit)).sum()) > 20
    wave = np.concatenate(list(sound.blocks()))
    for k in np.flatnonzero(~np.isnan(track.logit))[[0, 10, -1]]:
        frame = wave[k * 8000 : k * 8000 + 16000]
        assert track.logit[k] == pytest.approx(10 * np.log10(np.mean(np.square(frame))), abs=1e-4)
    again = listen(
        Soundscape(materials, replace(cfg, block_s=3.3), 7), loudness, "a minute", materials.groups
    )
    np.testing.assert_array_equal(track.logit, again.logit)

    save_track(track, tmp_path / "a.safetensors")
    back = load_track(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(track.logit, back.logit)
    assert (back.bouts, back.groups, back.kinds, back.materials) == (
        track.bouts,
        track.groups,
        track.kinds,
        track.materials,
    )
    (tmp_path / "a.safetensors").write_bytes(b"torn")
    with pytest.raises(DataError, match="listen again"):
        load_track(tmp_path / "a.safetensors")
    with pytest.raises(DataError, match="finite"):
        listen(sound, lambda x: np.full(len(x), np.nan), "a minute", materials.groups)


def test_limits_and_silence_are_refused(track_of, hours) -> None:
    with pytest.raises(ConfigError, match="positive"):
        Limits(per_hour=0.0)
    with pytest.raises(DataError, match="no bout"):
        long_recordings_document([track_of([0.0] * 99, name="mute")], hours[1], rules=RULES)
    with pytest.raises(DataError, match="no bout"):
        long_recordings_document(hours[0], [track_of([0.0] * 99, name="mute")], rules=RULES)
    best = tune([Replay(t) for t in hours[0]], Limits(), RULES[:1])["frame"]
    with pytest.raises(ConfigError, match="hysteresis"):
        best.to_listen()
