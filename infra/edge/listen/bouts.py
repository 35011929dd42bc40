"""From scores a frame to bouts of crying: mean logits over a few seconds, hysteresis, least duration, abstention.

A frame *supports* a decision when the mean over the last `smooth_s` seconds of kept frames gives it and its own score does not
contradict. A bout is a run of supporting frames, at least `least_s` long, that ends when `pause_s` have passed without another;
it begins with the first frame and ends with the last. Crying and abstention are told apart in the same way; one ends the other.
Once a sound has passed the gate at the site's threshold, it passes down to `ListenConfig.off_threshold`.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from infra.edge.listen.config import ListenConfig, samples
from infra.edge.listen.events import Bout, Event, Kind
from infra.edge.scorer import ClipDecision, RawScore, decide
from models.calibration import SiteCalibration
from models.config import SAMPLE_RATE

_KINDS: dict[str, Kind] = {"cry": "bout", "abstain": "abstain"}


@dataclass(frozen=True)
class Scores:
    """One frame through the graph; `reason_logits` (C,) or (0,). `begin` and `end` in samples."""

    begin: int
    end: int
    gate_logit: float
    energy: float
    reason_logits: npt.NDArray[np.float64]


@dataclass
class _Span:
    """A run of supporting frames, and the sums over them."""

    begin: int
    end: int
    open: bool = False
    n: int = 0
    gate_logit: float = -math.inf  # log Σ exp
    energy: float = math.inf  # −log Σ exp −
    reason_logits: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def add(self, scores: Scores) -> None:
        self.reason_logits = scores.reason_logits + (self.reason_logits if self.n else 0.0)
        self.gate_logit = float(np.logaddexp(self.gate_logit, scores.gate_logit))
        self.energy = float(-np.logaddexp(-self.energy, -scores.energy))
        self.n += 1
        self.begin, self.end = min(self.begin, scores.begin), max(self.end, scores.end)

    def pooled(self) -> RawScore:
        """As a clip: see `models.pooling`."""
        return RawScore(
            gate_logit=self.gate_logit - math.log(self.n),
            energy=self.energy + math.log(self.n),
            reason_logits=self.reason_logits / self.n,
            n_frames=self.n,
            seconds=(self.end - self.begin) / SAMPLE_RATE,
        )


class Bouts:
    """What a stream of frames amounts to at one site. At most one bout is open at any time."""

    def __init__(self, calibration: SiteCalibration, reasons: tuple[str, ...], cfg: ListenConfig) -> None:
        self._reasons = reasons
        self._on = calibration
        self._off = replace(calibration, gate_threshold=cfg.off_threshold(calibration.gate_threshold))
        self._smooth, self._least, self._pause = (
            samples(s) for s in (cfg.smooth_s, cfg.least_s, cfg.pause_s)
        )
        self._recent: deque[Scores] = deque()
        self._passing = False
        self._spans: dict[Kind, _Span] = {}

    def own(self, scores: Scores) -> float:
        """Calibrated p(cry) of a frame alone."""
        return float(self._on.gate_probability(scores.gate_logit))

    def heard(self, scores: Scores) -> tuple[ClipDecision, list[Event]]:
        """A kept frame: the decision over the last seconds, and what it begins or ends."""
        self._expire(scores.end)
        self._recent.append(scores)
        decision = decide(self._mean(), self._off if self._passing else self._on, self._reasons)
        self._passing = decision.decision != "no cry"
        kind = _KINDS.get(decision.decision)
        if kind is None or self.own(scores) < self._off.gate_threshold:
            return decision, self.quiet(scores.end)
        events = self._close_paused(scores.begin, scores.end)
        self._support(kind, scores)
        span = self._spans[kind]
        if not span.open and span.end - span.begin >= self._least:
            for other in [k for k in self._spans if k != kind]:
                events += self._close(other, scores.end, "other decision", until=span.begin)
            span.open = True
            events.append(self._begin(kind, span, decision, scores.end))
        return decision, events

    def quiet(self, now: int) -> list[Event]:
        """Time has come to sample `now` without a supporting frame."""
        self._expire(now)
        return self._close_paused(now, now)

    def gap(self, begin: int, end: int) -> list[Event]:
        """Nothing is known from sample `begin` to `end`. What ends in it does so at the sample where the pause is over, however
        the gap was told: in one piece or in many."""
        self._expire(end)
        over = [kind for kind, span in self._spans.items() if end - span.end >= self._pause]
        return [
            e
            for kind in over
            for e in self._close(kind, max(begin, self._spans[kind].end + self._pause), "gap")
        ]

    def finish(self, now: int) -> list[Event]:
        """The stream ends: so does what is open."""
        return [e for kind in list(self._spans) for e in self._close(kind, now, "end of stream")]

    def _expire(self, now: int) -> None:
        while self._recent and self._recent[0].end <= now - self._smooth:
            self._recent.popleft()
        if not self._recent:
            self._passing = False

    def _mean(self) -> RawScore:
        # whether it cries is asked of all that was heard; what the cry is like, of the frames that hold it: else every
        # onset, half noise and half cry, would be unlike any cry
        like = [s for s in self._recent if self.own(s) >= self._off.gate_threshold] or list(self._recent)
        return RawScore(
            gate_logit=math.fsum(s.gate_logit for s in self._recent) / len(self._recent),
            energy=math.fsum(s.energy for s in like) / len(like),
            reason_logits=np.mean([s.reason_logits for s in like], axis=0),
            n_frames=len(self._recent),
            seconds=(self._recent[-1].end - self._recent[0].begin) / SAMPLE_RATE,
        )

    def _support(self, kind: Kind, scores: Scores) -> None:
        # what has not become a bout by now is contradicted
        for other in [k for k, s in self._spans.items() if k != kind and not s.open]:
            del self._spans[other]
        if kind in self._spans:
            self._spans[kind].add(scores)
            return
        # the mean is late: the frames just before that say so themselves belong to it
        run = [scores]
        if not self._spans:
            for earlier in reversed(list(self._recent)[:-1]):
                if earlier.end < run[-1].begin or self.own(earlier) < self._on.gate_threshold:
                    break
                run.append(earlier)
        span = self._spans[kind] = _Span(scores.begin, scores.end)
        for frame in reversed(run):
            span.add(frame)

    def _close_paused(self, until: int, now: int) -> list[Event]:
        over = [kind for kind, span in self._spans.items() if until - span.end >= self._pause]
        return [e for kind in over for e in self._close(kind, now, "pause")]

    def _begin(self, kind: Kind, span: _Span, decision: ClipDecision, now: int) -> Bout:
        return Bout(
            at=now / SAMPLE_RATE,
            kind=kind,
            phase="begin",
            begin=span.begin / SAMPLE_RATE,
            confidence=decision.gate_probability,
            energy=decision.energy,
            frames=span.n,
            why=decision.why,
            reason=decision.reason,
            reasons=decision.reason_probabilities if kind == "bout" else {},
        )

    def _close(self, kind: Kind, now: int, ended_by: str, until: int | None = None) -> list[Event]:
        span = self._spans.pop(kind)
        if not span.open:
            return []
        # kept at what it was opened as: the frames of a bout are not asked again whether it was one
        opened = replace(self._on, gate_threshold=0.0, energy_threshold=None if kind == "bout" else -math.inf)
        whole = decide(span.pooled(), opened, self._reasons)
        end = span.end if until is None else max(min(span.end, until), span.begin)
        return [
            Bout(
                at=now / SAMPLE_RATE,
                kind=kind,
                phase="end",
                begin=span.begin / SAMPLE_RATE,
                confidence=whole.gate_probability,
                energy=whole.energy,
                frames=span.n,
                why=f"over {span.n} frames",
                reason=whole.reason,
                reasons=whole.reason_probabilities if kind == "bout" else {},
                end=end / SAMPLE_RATE,
                seconds=(end - span.begin) / SAMPLE_RATE,
                ended_by=ended_by,
            )
        ]
