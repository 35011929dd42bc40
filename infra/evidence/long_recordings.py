"""Long recordings: false alarms an hour against missed bouts, and an operating point that was tuned on other hours.

Recordings are synthesised from clips, infants and noises that the network did not meet in training, half of the groups in the
tuning hours, the other half in the hours that are reported. Thresholds and alarm rules are chosen on the tuning hours alone.
Shares of missed bouts have percentile intervals over resampled infants; false alarms an hour over the groups of the
background, an alarm belonging to the sound that began it. Where nothing was missed, or no alarm was false, the bootstrap has
no width: the upper end is then the exact binomial's over infants, or the exact Poisson's over hours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from infra.digest import digest_json
from infra.evidence.alarm_matching import TOLERANCE_S, Matched, exposure_hours
from infra.evidence.alarm_tuning import GRID, Limits, OperatingPoint, matches, point, thresholds_for, tune
from infra.evidence.alarms import Replay, Rule
from infra.evidence.folds import Folds
from infra.evidence.long_track import Scorer, Track, listen, load_track, save_track
from infra.evidence.sound_material import HALVES, Half, held_out, synthetic_infants
from infra.evidence.soundscape import Soundscape, SoundscapeConfig
from models.bootstrap import group_bootstrap, group_bootstrap_many, mean_interval
from models.errors import DataError
from models.seeds import derive_seed

Json = dict[str, Any]
_Floats = npt.NDArray[np.float64]

SNR_BINS: Final = ((0.0, 5.0), (5.0, 10.0), (10.0, 15.0), (15.0, 20.0))
TIMELINE_S: Final = 600.0
SEED: Final = 0


def fold_tracks(
    rows: pd.DataFrame,
    root: Path,
    folds: Folds,
    fold: int,
    scorer: Scorer,
    scorer_id: str,
    cache: Path,
    *,
    cfg: SoundscapeConfig | None = None,
    seed: int = SEED,
    on_seconds: Callable[[float, float], None] = lambda _done, _of: None,
) -> dict[Half, Track]:
    """One network's tuning hours and test hours, heard once and kept in `cache`.

    Args:
        rows: as `folds.judged` gives them.
        root: the manifest's folder.
        folds: their folds.
        fold: the one that the scorer did not train on.
        scorer: of one-second frames.
        scorer_id: what tells it from others, e.g. the digest of its weights.
        cache: a folder for the logits.
        cfg: of the recordings.
        seed: of the halves and the recordings.
        on_seconds: told how many seconds of a recording are done, of how many.

    Raises:
        DataError: the fold is too small for two halves.
        OutputError: the cache cannot be written.
    """
    cfg = cfg or SoundscapeConfig()
    out: dict[Half, Track] = {}
    clips = rows[np.asarray(folds) == fold]
    data = sorted(
        f"{sha} {group} {role}"
        for sha, group, role in zip(clips["sha256"], clips["group"], clips["role"], strict=True)
    )
    for half in HALVES:
        what = {"data": data, "scorer": scorer_id, "half": half, "seed": seed, "cfg": cfg.to_dict()}
        path = cache / f"track-fold{fold}-{half}-{digest_json(what)[:12]}.safetensors"
        if not path.is_file():
            real = held_out(rows, root, folds, fold, half, seed=seed)
            materials = real + synthetic_infants(derive_seed("infants of a fold", seed, fold), half)
            sound = Soundscape(materials, cfg, derive_seed("recording", seed, fold, half))
            name = f"fold {fold}, {half}"
            save_track(listen(sound, scorer, name, materials.groups, on_seconds=on_seconds), path)
        out[half] = load_track(path)
    return out


def long_recordings_document(
    tuning: Sequence[Track],
    test: Sequence[Track],
    *,
    limits: Limits | None = None,
    rules: Sequence[Rule] = GRID,
    temperature: float = 1.0,
    tolerance_s: float = TOLERANCE_S,
    resamples: int = 1000,
    command: str = "",
) -> Json:
    """Tune on some hours, report on others.

    Args:
        tuning, test: recordings; each network's pair shares no group.
        limits: on false alarms, in the tuning hours.
        rules: the grid.
        temperature: of the gate; thresholds and margins are calibrated log-odds.
        tolerance_s: of the matching.
        resamples: of the bootstrap.
        command: what makes these numbers.

    Raises:
        DataError: a group is in both, or one of them holds no crying.
    """
    limits = limits or Limits()
    shared = sorted(_groups(tuning) & _groups(test))
    if shared:
        raise DataError(
            f"group {shared[0]} is in the tuning hours and in the test hours: deal the groups apart"
        )
    if not any(t.bouts for t in test):
        raise DataError("the test hours hold no bout of crying: make them longer")
    learned = [Replay(t, temperature) for t in tuning]
    chosen = tune(learned, limits, rules, tolerance_s)
    grids = {name: thresholds_for(learned, best.rule) for name, best in chosen.items()}
    judged = [Replay(t, temperature) for t in test]
    evaluation = _Evaluation(judged, tolerance_s, resamples)
    best = chosen.get("hysteresis") or next(iter(chosen.values()))
    reference = chosen.get("frame")
    out: Json = {
        "protocol": (__doc__ or "").split("\n\n", 1)[1].replace("\n", " ").strip(),
        "command": command,
        "settings": {
            "limits": {"per_hour": limits.per_hour, "share": limits.share}, "tolerance_s": tolerance_s,
            "temperature": temperature, "resamples": resamples, "rules": len(rules),
        },
        "tuning": _material(tuning),
        "test": _material(test),
        "rules": {
            name: {
                **one.to_dict(),
                "test": evaluation.at(one),
                "curve": evaluation.curve(one.rule, grids[name]),
                "against_frame": evaluation.difference(one, reference) if reference and name != "frame" else None,
            }
            for name, one in chosen.items()
        },
        "chosen": {"name": best.rule.name, **evaluation.slices(best)},
        "timeline": _timeline(judged, best, evaluation.matched(best)),
    }  # fmt: skip
    if best.rule.name == "hysteresis":
        threshold, cfg = best.to_listen()
        keys = ("smooth_s", "least_s", "pause_s", "off_margin")
        out["chosen"]["device"] = {"gate_threshold": threshold, **{k: getattr(cfg, k) for k in keys}}
    return out


class _Evaluation:
    """Numbers with intervals over the test hours."""

    def __init__(self, replays: Sequence[Replay], tolerance_s: float, resamples: int) -> None:
        self._replays, self._tolerance, self._resamples = replays, tolerance_s, resamples
        tracks = [r.track for r in replays]
        self._bouts = [b for t in tracks for b in t.bouts]
        self._infant = np.array([b.group for b in self._bouts])
        self._group = np.array([g for t in tracks for g in t.groups])
        self._kind = np.array([k for t in tracks for k in t.kinds])
        self._hours = np.concatenate([exposure_hours(t) for t in tracks])
        self._cache: dict[tuple[Rule, float], list[Matched]] = {}

    def matched(self, one: OperatingPoint) -> list[Matched]:
        return self._at(one.rule, one.tuned.threshold)

    def _at(self, rule: Rule, threshold: float) -> list[Matched]:
        key = (rule, threshold)
        if key not in self._cache:
            self._cache[key] = matches(self._replays, rule, threshold, self._tolerance)
        return self._cache[key]

    def at(self, one: OperatingPoint) -> Json:
        """An operating point: its rates, the latency, and how long it was in alarm for nothing."""
        found = self.matched(one)
        p = point(self._replays, one.tuned.threshold, found)
        latency = np.concatenate([m.latency for m in found])
        seconds = np.concatenate([m.false_seconds_by_group for m in found])
        counts = np.concatenate([m.false_by_group for m in found])
        return {
            "missed": self._missed([found])[0],
            "false_per_hour": self._false([found])[0],
            "false_share": self._ratio(seconds, 3600.0 * self._hours),
            "latency_s": self._latency(latency),
            "latency_p90_s": None if np.isnan(p.latency_s) else float(np.nanquantile(latency, 0.9)),
            "bouts": len(self._bouts),
            "bouts_missed": int((~np.concatenate([m.found for m in found])).sum()),
            "false_alarms": int(counts.sum()),
        }

    def curve(self, rule: Rule, thresholds: _Floats) -> list[Json]:
        """Both rates over thresholds."""
        found = [self._at(rule, float(t)) for t in thresholds]
        rows = zip(thresholds, self._missed(found), self._false(found), strict=True)
        return [
            {"threshold": float(t), "missed": missed, "false_per_hour": false} for t, missed, false in rows
        ]

    def difference(self, one: OperatingPoint, reference: OperatingPoint) -> Json:
        """Paired: the same resamples of infants, or of background groups, for both."""
        a, b = self.matched(one), self.matched(reference)
        lost = _found(b).astype(np.float64) - _found(a)
        more = _false_counts(a) - _false_counts(b)
        return {"missed": self._mean(lost, self._infant), "false_per_hour": self._ratio(more, self._hours)}

    def slices(self, one: OperatingPoint) -> Json:
        """Missed bouts by SNR and by origin; false alarms by kind of sound."""
        found = self.matched(one)
        lost = 1.0 - _found(found)
        snr = np.array([b.snr_db for b in self._bouts])
        origin = np.array([b.origin for b in self._bouts])
        counts = _false_counts(found)

        def missed(here: npt.NDArray[np.bool_]) -> Json:
            return {
                "bouts": int(here.sum()),
                "missed": self._mean(lost[here], self._infant[here], share=True),
            }

        kinds = [
            {"kind": str(k), "alarms": int(counts[here].sum()), "hours": float(self._hours[here].sum())}
            for k in np.unique(self._kind)
            for here in [self._kind == k]
        ]
        return {
            "by_snr": [
                {"snr_db": [low, high], **missed(here)}
                for low, high in SNR_BINS
                for here in [(snr >= low) & ((snr < high) | (high == SNR_BINS[-1][1]))]
            ],
            "by_origin": [
                {"origin": str(o), **missed(origin == o)} for o in np.unique(origin)
            ],
            "by_kind": sorted(kinds, key=lambda k: (-k["alarms"], k["kind"])),
        }  # fmt: skip

    def _missed(self, found: Sequence[Sequence[Matched]]) -> list[Json]:
        lost = 1.0 - np.stack([_found(m) for m in found], 1)

        def share(w: _Floats | None) -> _Floats:
            if w is None:
                return lost.mean(0)
            return (w @ lost) / w.sum(1, keepdims=True)

        intervals = group_bootstrap_many(share, self._infant, seed=SEED, resamples=self._resamples)
        return [_no_event(i.to_dict(), len(np.unique(self._infant))) for i in intervals]

    def _false(self, found: Sequence[Sequence[Matched]]) -> list[Json]:
        counts = np.stack([_false_counts(m) for m in found], 1)
        hours = self._hours

        def rate(w: _Floats | None) -> _Floats:
            if w is None:
                return counts.sum(0) / hours.sum()
            return (w @ counts) / (w @ hours)[:, None]

        intervals = group_bootstrap_many(rate, self._group, seed=SEED, resamples=self._resamples)
        out = [i.to_dict() for i in intervals]
        for one in out:
            if one["value"] == 0.0:
                one["high"] = float(-np.log(0.025) / hours.sum())
        return out

    def _ratio(self, counts: _Floats, hours: _Floats) -> Json:
        def rate(w: _Floats | None) -> _Floats:
            return counts.sum() / hours.sum() if w is None else (w @ counts) / (w @ hours)

        return group_bootstrap(rate, self._group, seed=SEED, resamples=self._resamples).to_dict()

    def _mean(self, values: _Floats, group: npt.NDArray[np.str_], *, share: bool = False) -> Json:
        out = mean_interval(values, group, seed=SEED, resamples=self._resamples).to_dict()
        return _no_event(out, len(np.unique(group))) if share else out

    def _latency(self, latency: _Floats) -> Json:
        def median(w: _Floats | None) -> _Floats:
            if w is None:
                return np.asarray(np.nanmedian(latency) if (~np.isnan(latency)).any() else np.nan)
            return np.array([_weighted_median(latency, row) for row in w])

        return group_bootstrap(median, self._infant, seed=SEED, resamples=self._resamples).to_dict()


def _no_event(interval: Json, groups: int) -> Json:
    """Nothing was missed, or all: the exact binomial's other end, were each infant one trial."""
    if interval["value"] == 0.0 and groups:
        return {**interval, "low": 0.0, "high": float(1.0 - 0.025 ** (1.0 / groups))}
    if interval["value"] == 1.0 and groups:
        return {**interval, "low": float(0.025 ** (1.0 / groups)), "high": 1.0}
    return interval


def _weighted_median(values: _Floats, weight: _Floats) -> float:
    repeated = np.repeat(values, weight.astype(np.int64))
    repeated = repeated[~np.isnan(repeated)]
    return float(np.median(repeated)) if len(repeated) else float("nan")


def _found(found: Sequence[Matched]) -> _Floats:
    return np.concatenate([m.found for m in found]).astype(np.float64)


def _false_counts(found: Sequence[Matched]) -> _Floats:
    return np.concatenate([m.false_by_group for m in found])


def _groups(tracks: Sequence[Track]) -> set[str]:
    return {g for t in tracks for g in t.materials}


def _material(tracks: Sequence[Track]) -> Json:
    bouts = [b for t in tracks for b in t.bouts]
    return {
        "recordings": [t.name for t in tracks],
        "hours": sum(t.seconds for t in tracks) / 3600.0,
        "quiet_hours": sum(t.quiet_hours for t in tracks),
        "bouts": len(bouts),
        "infants": len({b.group for b in bouts}),
        "real_bouts": sum(b.origin == "real" for b in bouts),
        "background_groups": len({g for t in tracks for g in t.groups}),
        "frames_scored": sum(int((~np.isnan(t.logit)).sum()) for t in tracks),
    }


def _timeline(replays: Sequence[Replay], one: OperatingPoint, found: Sequence[Matched]) -> Json:
    """Ten minutes of a test recording: of all that begin on a minute, those with the most bouts and errors."""
    best: tuple[int, int, float] | None = None
    for i, (replay, m) in enumerate(zip(replays, found, strict=True)):
        alarms = replay.alarms(one.rule, one.tuned.threshold)
        begins = np.array([b.begin for b in replay.track.bouts])
        notable = np.concatenate([begins, begins[~m.found], alarms.begin[m.false]])
        for start in np.arange(0.0, max(replay.track.seconds - TIMELINE_S, 0.0) + 1.0, 60.0):
            events = int(((notable >= start) & (notable < start + TIMELINE_S)).sum())
            if best is None or events > best[0]:
                best = (events, i, float(start))
    assert best is not None
    _, i, start = best
    replay, m = replays[i], found[i]
    end = min(start + TIMELINE_S, replay.track.seconds)
    when = (replay.kept * replay.track.hop) / 16_000 + 0.5
    here = (when >= start) & (when < end)
    alarms = replay.alarms(one.rule, one.tuned.threshold)
    shown = (alarms.begin < end) & (alarms.end > start)
    return {
        "recording": replay.track.name, "begin_s": start, "end_s": end, "threshold": one.tuned.threshold,
        "off_threshold": one.tuned.threshold - one.rule.off_margin,
        "seconds": when[here].round(3).tolist(), "own": replay.own[here].round(3).tolist(),
        "smoothed": replay.smoothed(one.rule)[here].round(3).tolist(),
        "bouts": [
            {"begin": b.begin, "end": b.end, "snr_db": b.snr_db, "origin": b.origin, "found": bool(f)}
            for b, f in zip(replay.track.bouts, m.found, strict=True) if b.begin < end and b.end > start
        ],
        "alarms": [
            {"begin": float(a), "end": float(b), "at": float(t), "false": bool(f)}
            for a, b, t, f in zip(alarms.begin[shown], alarms.end[shown], alarms.at[shown], m.false[shown], strict=True)
        ],
    }  # fmt: skip
