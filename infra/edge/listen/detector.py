"""Samples in, events out: the whole of listening, without any I/O.

- The same samples give the same events, whatever the size of the blocks that they arrive in.
- Memory is bounded, whatever the length of the stream.
- Stream time is samples, heard or lost, over rate; no frame touches a lost sample.
- Every event that begins something is followed by the one that ends it, at the latest by `finish`; `at` never decreases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from infra.edge.listen.bouts import Bouts, Scores
from infra.edge.listen.config import ListenConfig
from infra.edge.listen.events import Event, Frame, Gap
from infra.edge.listen.framer import Cut, Framer
from infra.edge.listen.intake import Hole, Intake, Piece
from infra.edge.listen.quality import Meter
from infra.edge.scorer import Scorer
from models.calibration import SiteCalibration
from models.config import FRAME_SAMPLES, SAMPLE_RATE
from models.segmentation import VadConfig

Score = Callable[[npt.NDArray[np.float32]], Mapping[str, npt.NDArray[np.float32]]]


class Detector:
    """One stream at one site.

    Args:
        score: one-second frames (1, 16000) → `gate_logit` (1,), `energy` (1,) and, with reasons, `reason_logits` (1, C):
            `infra.edge.runtime.Graph.run`.
        calibration: the site's.
        reasons: the release's label set, () without a reason head.
        vad: the release's segmentation.
        cfg: how long to listen before deciding.
    """

    def __init__(
        self,
        score: Score,
        calibration: SiteCalibration,
        reasons: tuple[str, ...],
        vad: VadConfig | None = None,
        cfg: ListenConfig | None = None,
    ) -> None:
        cfg = cfg or ListenConfig()
        self._score, self._reasons = score, reasons
        self._intake = Intake()
        self._framer = Framer(vad or VadConfig(), cfg)
        self._bouts = Bouts(calibration, reasons, cfg)
        self._meter = Meter(cfg)
        self._gap: Gap | None = None
        self._gap_end = 0  # sample up to which nothing is known
        self._lost = 0  # samples of the open gap
        self.frames_scored = 0

    @classmethod
    def of(cls, scorer: Scorer, cfg: ListenConfig | None = None) -> Detector:
        """For a loaded release."""
        return cls(scorer.graph.run, scorer.calibration, scorer.reasons, scorer.vad, cfg)

    @property
    def seconds(self) -> float:
        """Stream time so far."""
        return self._framer.now / SAMPLE_RATE

    def feed(self, block: npt.NDArray[np.float32], rate: int = SAMPLE_RATE) -> list[Event]:
        """A block (n,) or (n, channels), full scale ±1, at `rate` Hz. Samples that are not finite count as lost.

        Raises:
            AudioError: more than two channels, or a rate outside 4–96 kHz; nothing of the block was taken.
        """
        return self._take(self._intake.feed(block, rate))

    def lost(self, seconds: float, why: str) -> list[Event]:
        """Time that passed without samples."""
        return self._take(self._intake.lost(seconds, why))

    def finish(self) -> list[Event]:
        """The stream ends here, mid-frame or not: everything open ends too."""
        events = self._take(self._intake.finish())
        for cut in self._framer.finish():
            events += self._frame(cut)
        now = self._framer.now
        return [
            *events,
            *self._end_gap(now),
            *self._bouts.finish(now),
            *self._meter.finish(now / SAMPLE_RATE),
        ]

    def _take(self, arrived: Iterable[Piece | Hole]) -> list[Event]:
        events: list[Event] = []
        for part in arrived:
            events += self._hole(part) if isinstance(part, Hole) else self._piece(part)
        return events

    def _piece(self, piece: Piece) -> list[Event]:
        # in the steps of the meter, so that events come in the order of time
        events: list[Event] = []
        at = 0
        while at < len(piece.wave):
            n = min(self._meter.room, len(piece.wave) - at)
            wave, clipped = piece.wave[at : at + n], piece.clipped[at : at + n]
            for cut in self._framer.feed(wave, clipped):
                events += self._frame(cut)
            events += self._meter.feed(wave, clipped, self._framer.now)
            at += n
        return events

    def _hole(self, hole: Hole) -> list[Event]:
        events: list[Event] = []
        begin = self._framer.now
        for cut in self._framer.skip(hole.n):
            events += self._frame(cut)
        self._meter.skip()
        if self._gap is None:
            at = begin / SAMPLE_RATE
            self._gap = Gap(at, "begin", hole.why, at)
            self._lost = 0
            events.append(self._gap)
        self._lost += hole.n
        self._gap_end = self._framer.now
        return [*events, *self._bouts.gap(begin, self._framer.now)]

    def _end_gap(self, now: int) -> list[Event]:
        if self._gap is None:
            return []
        gap, self._gap = self._gap, None
        end = self._gap_end / SAMPLE_RATE
        return [Gap(now / SAMPLE_RATE, "end", gap.why, gap.begin, end, self._lost / SAMPLE_RATE)]

    def _frame(self, cut: Cut) -> list[Event]:
        # a gap is over when a whole frame was heard behind it: a stream that stutters is one gap, not a thousand
        whole = cut.end - cut.begin == FRAME_SAMPLES
        if self._gap is not None and not whole:
            return self._bouts.gap(cut.end, cut.end)
        events = self._end_gap(cut.end)
        scores = self._scores(cut) if cut.kept else None
        frame = Frame(
            at=cut.end / SAMPLE_RATE,
            begin=cut.begin / SAMPLE_RATE,
            end=cut.end / SAMPLE_RATE,
            rms_dbfs=cut.rms_dbfs,
            active=cut.active,
            clipped=cut.clipped,
            why="nothing stands out",
        )
        if scores is None:
            events.append(frame)
            return [*events, *self._bouts.quiet(cut.end)]
        finite = bool(np.isfinite([scores.gate_logit, scores.energy, *scores.reason_logits]).all())
        events += self._meter.score(cut.end / SAMPLE_RATE, finite=finite)
        if not finite:
            events.append(replace(frame, why="the model gives no finite score"))
            return [*events, *self._bouts.quiet(cut.end)]
        decision, changes = self._bouts.heard(scores)
        frame = replace(
            frame,
            why=decision.why,
            decision=decision.decision,
            confidence=decision.gate_probability,
            own=self._bouts.own(scores),
            energy=decision.energy,
            reasons=decision.reason_probabilities if decision.decision == "cry" else {},
        )
        return [*events, frame, *changes]

    def _scores(self, cut: Cut) -> Scores:
        out = self._score(cut.wave)
        self.frames_scored += 1
        reasons = out["reason_logits"][0].astype(np.float64) if self._reasons else np.zeros(0)
        return Scores(cut.begin, cut.end, float(out["gate_logit"][0]), float(out["energy"][0]), reasons)
