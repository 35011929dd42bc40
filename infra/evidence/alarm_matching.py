"""Alarms against bouts of crying, as events.

A bout is found when an alarm overlaps it, widened by a tolerance on both sides; an alarm that overlaps no bout is false. One
alarm can find several bouts. An alarm that never ends would find all and never be false, so the time in alarm away from
crying counts too. A false alarm belongs to the group whose sound began it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infra.evidence.alarms import Alarms
from infra.evidence.long_track import Track
from infra.evidence.soundscape import SLOT_S

_Floats = npt.NDArray[np.float64]

TOLERANCE_S = 2.0


@dataclass(frozen=True)
class Matched:
    """Alarms and bouts of one recording.

    Attributes:
        found: (bouts,) whether an alarm overlaps.
        latency: (bouts,) seconds from the bout's begin until the first such alarm was told, at least 0; NaN where none.
        false: (alarms,) whether the alarm overlaps no bout.
        false_by_group: (groups,) false alarms by the group that was heard when they began.
        false_seconds_by_group: (groups,) seconds in alarm outside of widened bouts.
    """

    found: npt.NDArray[np.bool_]
    latency: _Floats
    false: npt.NDArray[np.bool_]
    false_by_group: _Floats
    false_seconds_by_group: _Floats


def match(alarms: Alarms, track: Track, tolerance_s: float = TOLERANCE_S) -> Matched:
    """Match by overlap; intervals that only touch do not overlap."""
    begin: _Floats = np.array([b.begin for b in track.bouts], np.float64)
    end: _Floats = np.array([b.end for b in track.bouts], np.float64)
    overlaps = (alarms.begin[None, :] < end[:, None] + tolerance_s) & (
        alarms.end[None, :] > begin[:, None] - tolerance_s
    )
    found = np.asarray(overlaps.any(1))
    at = np.where(overlaps, alarms.at[None, :], np.inf).min(1, initial=np.inf)
    latency = np.where(found, np.maximum(at - begin, 0.0), np.nan)
    false = ~np.asarray(overlaps.any(0))
    by_group = np.bincount(
        track.background[_slot(alarms.begin[false], track)], minlength=len(track.groups)
    ).astype(np.float64)
    return Matched(found, latency, false, by_group, _false_seconds(alarms, track, begin, end, tolerance_s))


def exposure_hours(track: Track) -> _Floats:
    """(groups,) hours without crying in which each group was heard."""
    slots: _Floats = np.bincount(track.background[~track.crying], minlength=len(track.groups)).astype(
        np.float64
    )
    return slots * SLOT_S / 3600.0


def _slot(begin: _Floats, track: Track) -> npt.NDArray[np.intp]:
    """The half second in the middle of an alarm's first frame."""
    return np.clip((begin + 0.5) / SLOT_S, 0, len(track.background) - 1).astype(np.intp)


def _false_seconds(alarms: Alarms, track: Track, begin: _Floats, end: _Floats, tolerance_s: float) -> _Floats:
    grid = ((np.arange(len(track.background)) + 0.5) * SLOT_S).astype(np.float64)
    alarmed = _covered(grid, alarms.begin, alarms.end)
    near = _covered(grid, begin - tolerance_s, end + tolerance_s)
    return SLOT_S * np.bincount(track.background[alarmed & ~near], minlength=len(track.groups)).astype(
        np.float64
    )


def _covered(grid: _Floats, begin: _Floats, end: _Floats) -> npt.NDArray[np.bool_]:
    """Where begin ≤ grid < end of any interval; they may overlap."""
    step = np.zeros(len(grid) + 1, np.int64)
    np.add.at(step, np.searchsorted(grid, begin), 1)
    np.add.at(step, np.searchsorted(grid, end), -1)
    return np.cumsum(step[:-1]) > 0
