"""Choosing an operating point from the curve of false alarms against missed bouts, on tuning hours alone.

Every rule of a grid is replayed at thresholds that are quantiles of what it hears in the tuning hours. Of the points within
the limits the one with the fewest missed bouts is taken; of equals the one that tells of bouts soonest, then the one with the
fewest false alarms. Nothing here ever sees the hours that the result is reported on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from infra.edge.listen.config import ListenConfig
from infra.evidence.alarm_matching import TOLERANCE_S, Matched, exposure_hours, match
from infra.evidence.alarms import Name, Replay, Rule
from infra.evidence.soundscape import SLOT_S
from models.errors import ConfigError, DataError
from models.metrics import sigmoid

Json = dict[str, Any]

GRID: Final[tuple[Rule, ...]] = (
    Rule("frame"),
    *(Rule("mean", window_s=w) for w in (2.0, 3.0, 4.0, 6.0, 8.0)),
    *(Rule("ema", window_s=w) for w in (1.0, 2.0, 4.0)),
    *(
        Rule("hysteresis", window_s=w, off_margin=m, least_s=least)
        for w in (2.0, 4.0, 6.0)
        for m in (0.0, 1.0, 2.0)
        for least in (1.5, 2.5)
    ),
)
THRESHOLDS: Final = 40


@dataclass(frozen=True)
class Limits:
    """What a ward puts up with, in hours without crying.

    Attributes:
        per_hour: false alarms.
        share: of the time in alarm though nobody cries: one endless alarm is a single false one.

    Raises:
        ConfigError: not positive.
    """

    per_hour: float = 2.0
    share: float = 0.02

    def __post_init__(self) -> None:
        """Refuse limits that nothing can meet."""
        if not (self.per_hour > 0 and 0 < self.share <= 1):
            raise ConfigError("limits on false alarms must be positive, the share at most 1")


@dataclass(frozen=True)
class Point:
    """One rule at one threshold over several recordings."""

    threshold: float  # log-odds
    false_per_hour: float
    false_share: float
    missed: float
    latency_s: float  # median over the bouts that were found; NaN where none was


@dataclass(frozen=True)
class OperatingPoint:
    """What was chosen, how it did in the tuning hours, and whether it is within the limits there."""

    rule: Rule
    tuned: Point
    feasible: bool

    def to_listen(self) -> tuple[float, ListenConfig]:
        """The site's gate threshold (probability) and the device's settings that give these alarms.

        Raises:
            ConfigError: the device knows no such rule.
        """
        if self.rule.name != "hysteresis":
            raise ConfigError(f"a device listens with hysteresis, not by the rule {self.rule.name!r}")
        rule = self.rule
        cfg = ListenConfig(
            smooth_s=rule.window_s, off_margin=rule.off_margin, least_s=rule.least_s, pause_s=rule.pause_s
        )
        return float(sigmoid(self.tuned.threshold)), cfg

    def to_dict(self) -> Json:
        """Plain JSON types; what is undefined is None."""
        tuned = {k: None if np.isnan(v) else float(v) for k, v in asdict(self.tuned).items()}
        return {"rule": self.rule.to_dict(), "tuned": tuned, "feasible": self.feasible}


def thresholds_for(replays: Sequence[Replay], rule: Rule, count: int = THRESHOLDS) -> npt.NDArray[np.float64]:
    """Quantiles of the smoothed logits from the median up, denser towards the top, ascending.

    Raises:
        DataError: no frame was worth scoring.
    """
    values = np.concatenate([r.smoothed(rule) for r in replays])
    if not len(values):
        raise DataError("no frame of these hours was worth scoring: is the recording silent?")
    above = np.geomspace(0.5, max(1.0 / len(values), 1e-4), count)
    return np.unique(np.quantile(values, 1.0 - above))


def matches(
    replays: Sequence[Replay], rule: Rule, threshold: float, tolerance_s: float = TOLERANCE_S
) -> list[Matched]:
    """A rule at a threshold, recording by recording."""
    return [match(r.alarms(rule, threshold), r.track, tolerance_s) for r in replays]


def point(replays: Sequence[Replay], threshold: float, found: Sequence[Matched]) -> Point:
    """Pool recordings: events over hours, bouts over bouts."""
    hours = sum(float(exposure_hours(r.track).sum()) for r in replays)
    bouts = np.concatenate([m.found for m in found])
    latency = np.concatenate([m.latency for m in found])
    return Point(
        threshold=float(threshold),
        false_per_hour=float(sum(m.false_by_group.sum() for m in found)) / max(hours, SLOT_S / 3600),
        false_share=float(sum(m.false_seconds_by_group.sum() for m in found)) / max(3600 * hours, SLOT_S),
        missed=float(1.0 - bouts.mean()) if len(bouts) else float("nan"),
        latency_s=float(np.nanmedian(latency)) if bouts.any() else float("nan"),
    )


def tune(
    replays: Sequence[Replay],
    limits: Limits,
    rules: Sequence[Rule] = GRID,
    tolerance_s: float = TOLERANCE_S,
) -> dict[Name, OperatingPoint]:
    """The best operating point of every kind of rule.

    Args:
        replays: of the tuning hours.
        limits: on false alarms.
        rules: the grid.
        tolerance_s: of the matching.

    Returns:
        By rule name. Where no point of a kind is within the limits, the one with the fewest false alarms, marked as not feasible.

    Raises:
        DataError: the tuning hours hold no crying.
    """
    if not any(r.track.bouts for r in replays):
        raise DataError("the tuning hours hold no bout of crying: make them longer")
    best: dict[Name, tuple[tuple[float, ...], OperatingPoint]] = {}
    for rule in rules:
        for threshold in thresholds_for(replays, rule):
            p = point(replays, threshold, matches(replays, rule, threshold, tolerance_s))
            feasible = p.false_per_hour <= limits.per_hour and p.false_share <= limits.share
            excess = (
                0.0 if feasible else max(p.false_per_hour / limits.per_hour, p.false_share / limits.share)
            )
            late = np.inf if np.isnan(p.latency_s) else p.latency_s
            rank = (excess, p.missed, late, p.false_per_hour)
            if rule.name not in best or rank < best[rule.name][0]:
                best[rule.name] = (rank, OperatingPoint(rule, p, feasible))
    return {name: chosen for name, (_, chosen) in best.items()}
