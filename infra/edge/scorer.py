"""A release on a recording: decode → VAD frames → graph → one logit a clip → calibrated decision.

The clip's score is that of `models.pooling`, as in training and calibration: the soft maximum of the gate's logits over its
VAD-kept one-second frames, the mean of the reasons'; the site's temperature comes after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from infra.edge.bundle import Bundle
from infra.edge.runtime import Graph
from infra.settings import LimitSettings
from models.calibration import SiteCalibration
from models.config import SAMPLE_RATE
from models.errors import AudioError, BundleError
from models.pooling import soft_maximum
from models.segmentation import VadConfig, frames

Decision = Literal["cry", "no cry", "abstain"]


@dataclass(frozen=True)
class RawScore:
    """Over a clip's frames, before calibration: the same at every site."""

    gate_logit: float
    energy: float
    reason_logits: npt.NDArray[np.float64]  # (C,), or (0,) without a reason head
    n_frames: int
    seconds: float


@dataclass(frozen=True)
class ClipDecision:
    """What a release says about one clip at one site.

    `abstain` is for a clip that passes the gate but is unlike the cries of training (energy above the site's threshold):
    neither its gate probability nor its reason should be relied on. `reason` is given for the decision "cry" alone.
    """

    decision: Decision
    why: str
    gate_probability: float
    gate_threshold: float
    energy: float
    energy_threshold: float | None
    reason: str | None
    reason_probabilities: dict[str, float]
    n_frames: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {**self.__dict__, "reason_probabilities": dict(self.reason_probabilities)}


def decide(raw: RawScore, calibration: SiteCalibration, reasons: tuple[str, ...]) -> ClipDecision:
    """Apply a site's calibration to a clip's logits."""
    probability = float(calibration.gate_probability(raw.gate_logit))
    is_cry = probability >= calibration.gate_threshold
    unlike = bool(calibration.abstains(raw.energy))
    share = calibration.reason_probabilities(raw.reason_logits) if reasons else np.zeros(0)
    decision: Decision = "no cry" if not is_cry else "abstain" if unlike else "cry"
    why = {
        "no cry": f"p(cry) {probability:.3f} is below the threshold {calibration.gate_threshold:.3f}",
        "cry": f"p(cry) {probability:.3f} reaches the threshold {calibration.gate_threshold:.3f}",
        "abstain": f"unlike the cries of training: energy {raw.energy:.2f} is above {calibration.energy_threshold or 0.0:.2f}",
    }[decision]
    return ClipDecision(
        decision=decision,
        why=why,
        gate_probability=probability,
        gate_threshold=calibration.gate_threshold,
        energy=raw.energy,
        energy_threshold=calibration.energy_threshold,
        reason=reasons[int(np.argmax(share))] if reasons and decision == "cry" else None,
        reason_probabilities={name: float(p) for name, p in zip(reasons, share, strict=True)},
        n_frames=raw.n_frames,
        seconds=raw.seconds,
    )


class Scorer:
    """A bundle, loaded and ready.

    Raises:
        BundleError: the graph does not fit its manifest, or the site has no calibration.
    """

    def __init__(self, bundle: Bundle, *, site: str | None = None, threads: int = 1) -> None:
        manifest = bundle.manifest
        self.bundle = bundle
        self.reasons = manifest.reasons
        self.calibration = bundle.calibration(site)
        self.graph = Graph(bundle.read(), name=str(bundle.path()), threads=threads)
        if self.graph.n_reasons != len(self.reasons):
            raise BundleError(
                f"{bundle.folder}: the graph has {self.graph.n_reasons} reasons, its manifest names {len(self.reasons)}; "
                "pull the release again"
            )
        try:
            self.vad = VadConfig(**manifest.vad)  # type: ignore[arg-type]
        except TypeError as err:
            raise BundleError(
                f"{bundle.folder}: unknown VAD setting ({err}); this release needs a newer cryfed"
            ) from None

    def raw(self, wave: npt.NDArray[np.float32]) -> RawScore:
        """Score a mono 16 kHz wave (T,)."""
        kept = frames(wave, self.vad)
        out = self.graph.run(kept)
        reasons = out["reason_logits"].mean(0, dtype=np.float64) if self.reasons else np.zeros(0)
        return RawScore(
            gate_logit=soft_maximum(out["gate_logit"]),
            energy=-soft_maximum(-out["energy"]),
            reason_logits=reasons,
            n_frames=len(kept),
            seconds=len(wave) / SAMPLE_RATE,
        )

    def raw_file(self, path: Path, limits: LimitSettings | None = None) -> RawScore:
        """Decode a file and score it.

        Raises:
            AudioError: the file cannot be used; the message says why and what to do.
        """
        from infra.data.audio import read_audio

        limits = limits or LimitSettings()
        score = self.raw(
            read_audio(path, max_seconds=limits.max_clip_seconds, max_bytes=limits.max_file_bytes)
        )
        if not np.isfinite([score.gate_logit, score.energy]).all():
            raise AudioError(f"{path}: the model gives no finite score for it; check the recording")
        return score

    def classify(self, path: Path, limits: LimitSettings | None = None) -> ClipDecision:
        """Decode a file and decide.

        Raises:
            AudioError: the file cannot be used.
        """
        return decide(self.raw_file(path, limits), self.calibration, self.reasons)
