"""Alarms from logits: four rules, replayed over a whole recording at once.

| rule | a frame supports an alarm when |
|---|---|
| `frame` | its own logit reaches the threshold |
| `mean` | the mean logit of the kept frames of the last `window_s` does |
| `ema` | their exponentially weighted mean does, of time constant `window_s` |
| `hysteresis` | the mean does, or did and has not fallen `off_margin` below; and its own logit is not below that |

`hysteresis` is the device's rule (`infra.edge.listen.bouts.Bouts` without abstention), event for event, so that what is tuned
here can be set there. In all rules an alarm is a run of supporting frames that begins with its first frame, is told when it
has lasted `least_s`, and ends with its last frame, once `pause_s` have passed without another.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from infra.edge.listen.config import ListenConfig, samples
from infra.evidence.long_track import Track
from models.config import FRAME_SAMPLES, SAMPLE_RATE
from models.errors import ConfigError

Name = Literal["frame", "mean", "ema", "hysteresis"]
RULES: Final[tuple[Name, ...]] = ("frame", "mean", "ema", "hysteresis")

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rule:
    """How logits become alarms, but for the threshold. Times in seconds, the margin in log-odds.

    Raises:
        ConfigError: a value that the device would refuse, or one that the rule does not use.
    """

    name: Name
    window_s: float = 1.0
    off_margin: float = 0.0
    least_s: float = 1.0
    pause_s: float = 3.0

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.name not in RULES:
            raise ConfigError(f"unknown alarm rule {self.name!r}: choose one of {', '.join(RULES)}")
        if self.off_margin and self.name != "hysteresis":
            raise ConfigError(f"the rule {self.name!r} has no hysteresis: leave off_margin at 0")
        ListenConfig(
            smooth_s=self.window_s, off_margin=self.off_margin, least_s=self.least_s, pause_s=self.pause_s
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class Alarms:
    """A alarms in order: `begin`, `end` of the sound and `at`, when it was told; (A,) seconds."""

    begin: _Floats
    end: _Floats
    at: _Floats

    def __len__(self) -> int:
        return len(self.at)


class Replay:
    """A track with the smoothed logits of every rule that was asked for, which many thresholds share.

    Args:
        track: the recording.
        temperature: divides the logits, so that thresholds and margins are calibrated log-odds.
    """

    def __init__(self, track: Track, temperature: float = 1.0) -> None:
        kept = np.flatnonzero(~np.isnan(track.logit))
        self.track = track
        self.kept = kept
        self.own = track.logit[kept] / temperature
        self._end = kept * track.hop + FRAME_SAMPLES  # samples
        self._smooth: dict[tuple[str, float], _Floats] = {}

    def smoothed(self, rule: Rule) -> _Floats:
        """(kept,) what the rule holds against its threshold."""
        kind = "mean" if rule.name == "hysteresis" else rule.name
        key = (kind, 0.0 if kind == "frame" else rule.window_s)
        if key not in self._smooth:
            self._smooth[key] = {"frame": lambda _: self.own, "mean": self._mean, "ema": self._ema}[kind](
                rule.window_s
            )
        return self._smooth[key]

    def alarms(self, rule: Rule, threshold: float) -> Alarms:
        """The alarms of a rule at a threshold in log-odds."""
        smooth, own, end = self.smoothed(rule), self.own, self._end
        window = samples(rule.window_s)
        off = threshold - rule.off_margin
        if rule.name == "hysteresis":
            passing = self._passing(smooth, threshold, off, window)
            support = np.flatnonzero(passing & (own >= off))
        else:
            support = np.flatnonzero(smooth >= threshold)
        if not len(support):
            return Alarms(np.zeros(0), np.zeros(0), np.zeros(0))
        # silence is noticed at the next frame's end, so a pause is over one hop after `pause_s`
        apart = np.diff(end[support]) >= samples(rule.pause_s) + self.track.hop
        first = np.concatenate([[0], np.flatnonzero(apart) + 1])
        last = np.concatenate([first[1:], [len(support)]]) - 1
        begins, ends, told = [], [], []
        for a, b in zip(first, last, strict=True):
            begin = self._reach_back(support[a], threshold, window) if rule.name == "hysteresis" else None
            begin = end[support[a]] - FRAME_SAMPLES if begin is None else begin
            within = support[a : b + 1]
            long_enough = np.flatnonzero(end[within] - begin >= samples(rule.least_s))
            if len(long_enough):
                begins.append(begin)
                ends.append(end[within[-1]])
                told.append(end[within[long_enough[0]]])
        return Alarms(*(np.array(x, np.float64) / SAMPLE_RATE for x in (begins, ends, told)))

    def _mean(self, window_s: float) -> _Floats:
        window = samples(window_s)
        first = np.searchsorted(self._end, self._end - window, side="right")
        count = np.arange(1, len(self._end) + 1) - first
        # a window at a time, not one running sum: the device sums afresh, and a threshold can lie on a tie
        total = np.zeros(len(self.own))
        for back in range(int(count.max(initial=0))):
            inside = count > back
            total[inside] += self.own[np.flatnonzero(inside) - back]
        return total / count

    def _ema(self, time_constant_s: float) -> _Floats:
        out = np.zeros(len(self.own))
        total = weight = 0.0
        before = 0
        for k, (end, own) in enumerate(zip(self._end.tolist(), self.own.tolist(), strict=True)):
            decay = math.exp(-(end - before) / SAMPLE_RATE / time_constant_s)
            total, weight, before = total * decay + own, weight * decay + 1.0, end
            out[k] = total / weight
        return out

    def _passing(self, smooth: _Floats, on: float, off: float, window: int) -> npt.NDArray[np.bool_]:
        """Whether each kept frame passes: the last frame that settled it, by reaching `on` or by letting go, says so."""
        reached = smooth >= on
        fresh = np.concatenate(
            [[True], np.diff(self._end) >= window]
        )  # all that was heard before has expired
        settled = np.where(reached | (smooth < off) | fresh, np.arange(len(smooth)), 0)
        return reached[np.maximum.accumulate(settled)] if len(smooth) else reached

    def _reach_back(self, k: int, threshold: float, window: int) -> int | None:
        """The device's bout begins with the frames just before that say so themselves."""
        begin = self._end[k] - FRAME_SAMPLES
        j = k - 1
        while j >= 0 and self._end[j] > self._end[k] - window:
            if self._end[j] < begin or self.own[j] < threshold:
                break
            begin = min(begin, self._end[j] - FRAME_SAMPLES)
            j -= 1
        return int(begin)
