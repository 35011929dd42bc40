"""Networks to ask about sounds: each clip is put to the one that never met it, and answered as a release would.

frames, half a second apart → logits and energies → pooled over the clip → p(cry), is it a cry, abstain?
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.calibration import SiteCalibration
from models.config import FRAME_SAMPLES
from models.errors import DataError
from models.predict import ClipRows

Wave = npt.NDArray[np.float32]
_Floats = npt.NDArray[np.float64]
_Mask = npt.NDArray[np.bool_]

Answers = Callable[[Wave], tuple[npt.NDArray, npt.NDArray]]
"""One-second frames (N, 16000) float32 → gate logits (N,) and energies (N,)."""

_BATCH = 128


@dataclass(frozen=True)
class Judge:
    """A network with the calibration that turns its logits into decisions.

    Attributes:
        answers: `of_network`, or an exported graph's.
        calibration: fitted on clips that were pooled as in `models.predict`.
    """

    answers: Answers
    calibration: SiteCalibration


@dataclass(frozen=True)
class Verdicts:
    """Of clips: calibrated p(cry) (n,), whether that is called a cry, and whether energy abstains."""

    confidence: _Floats
    cry: _Mask
    abstains: _Mask


def of_network(net: Any) -> Answers:
    """A `models.network.CryNet` as answers."""
    import torch

    net.eval()

    def answer(frames: Wave) -> tuple[npt.NDArray, npt.NDArray]:
        with torch.inference_mode():
            out = net(torch.from_numpy(np.ascontiguousarray(frames)))
        return out.gate_logit.numpy(), out.energy.numpy()

    return answer


class Panel:
    """Judges, and which of them is asked about each of the clips that are shown again and again.

    Raises:
        DataError: there is no judge, or a clip's judge is none of them.
    """

    def __init__(self, judges: Sequence[Judge], of: Sequence[int]) -> None:
        self._judges, self._of = list(judges), np.asarray(of, np.int64)
        if not self._judges or (self._of < 0).any() or (self._of >= len(self._judges)).any():
            raise DataError(f"clips are put to judges {sorted(set(of))}, there are {len(self._judges)}")

    def ask(self, waves: Sequence[Wave]) -> Verdicts:
        """About one wave for each of the clips, each by the clip's own judge."""
        return self._ask(waves, self._of)

    def in_turn(self, waves: Sequence[Wave]) -> Verdicts:
        """About waves that no judge has met: dealt to them in turn."""
        return self._ask(waves, np.arange(len(waves)) % len(self._judges))

    def confidence(self, waves: Sequence[Wave]) -> _Floats:
        """p(cry) of each clip."""
        return self.ask(waves).confidence

    def summary(self) -> dict[str, Any]:
        """The calibrations in one: the median of each number; no energy threshold unless every judge has one."""
        all_of = [j.calibration for j in self._judges]
        energies = [c.energy_threshold for c in all_of if c.energy_threshold is not None]
        return {
            "networks": len(all_of),
            "site": all_of[0].site,
            "gate_threshold": float(np.median([c.gate_threshold for c in all_of])),
            "gate_temperature": float(np.median([c.gate_temperature for c in all_of])),
            "gate_bias": float(np.median([c.gate_bias for c in all_of])),
            "energy_threshold": float(np.median(energies)) if len(energies) == len(all_of) else None,
        }

    def _ask(self, waves: Sequence[Wave], of: npt.NDArray[np.int64]) -> Verdicts:
        p, cry, abstains = np.zeros(len(waves)), np.zeros(len(waves), bool), np.zeros(len(waves), bool)
        for k, judge in enumerate(self._judges):
            here = np.flatnonzero(of == k)
            if not len(here):
                continue
            logit, energy = _scores(judge, [waves[int(i)] for i in here])
            p[here] = judge.calibration.gate_probability(logit)
            cry[here] = p[here] >= judge.calibration.gate_threshold
            abstains[here] = judge.calibration.abstains(energy)
        return Verdicts(p, cry, abstains)


def _scores(judge: Judge, waves: Sequence[Wave]) -> tuple[_Floats, _Floats]:
    """Gate logit and energy of each clip."""
    cut = [_frames(w) for w in waves]
    count = np.array([len(f) for f in cut], np.int32)
    every = np.concatenate(cut)
    parts = [judge.answers(every[i : i + _BATCH]) for i in range(0, len(every), _BATCH)]
    logit, energy = (np.concatenate([np.asarray(p[k], np.float64) for p in parts]) for k in (0, 1))
    if not (np.isfinite(logit).all() and np.isfinite(energy).all()):
        raise DataError("the network's answers are not finite: behaviour cannot be checked")
    clips = np.arange(len(cut), dtype=np.int32)
    rows = ClipRows(
        clips, np.zeros(len(cut), np.int16), np.cumsum(count) - count, count, np.repeat(clips, count)
    )
    return rows.soft_maximum(logit), -rows.soft_maximum(-energy)


def _frames(wave: Wave) -> Wave:
    starts = range(0, len(wave) - FRAME_SAMPLES + 1, FRAME_SAMPLES // 2)
    return np.stack([wave[s : s + FRAME_SAMPLES] for s in starts])
