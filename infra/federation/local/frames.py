"""A site's frames: what it trains, is calibrated and is tested on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from infra.data.audio import ClipLimits
from infra.data.features import FeatureConfig, extract_site, load_noise_bank, save_frames
from infra.digest import digest_file
from models.config import LogMelConfig
from models.segmentation import VadConfig

FRAMES: Final = "frames.safetensors"
_DECIDING: Final = ["path", "role", "label", "group", "sha256"]
Parts = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Rendering:
    """How recordings become frames: the same at every site of a federation."""

    reasons: tuple[str, ...]
    log_mel: LogMelConfig
    vad: VadConfig
    features: FeatureConfig

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "reasons": list(self.reasons),
            "log_mel": asdict(self.log_mel),
            "vad": asdict(self.vad),
            "features": self.features.to_dict(),
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Rendering:
        """Inverse of `to_dict`."""
        return cls(
            tuple(raw["reasons"]),
            LogMelConfig(**raw["log_mel"]),
            VadConfig(**raw["vad"]),
            feature_config(raw["features"]),
        )


@dataclass(frozen=True)
class Clips:
    """Rows of a manifest with their parts, and the folder that their paths are relative to."""

    rows: pd.DataFrame
    parts: Parts
    root: Path

    def facts(self) -> list[list[str]]:
        """What of a row decides its frames, with the digest of the bytes that lie there now."""
        said = self.rows[_DECIDING].to_numpy().tolist()
        return [
            [*row, str(part), digest_file(self.root / row[0])]
            for row, part in zip(said, self.parts, strict=True)
        ]


def config(rendering: Rendering, facts: list[list[str]], noise: list[list[str]]) -> dict[str, Any]:
    """What decides the frames: `Clips.facts` of the clips and of the public noise that is mixed in."""
    return {**rendering.to_dict(), "clips": facts, "noise": noise}


def compute(
    out: Path, clips: Clips, noise: Clips, rendering: Rendering, limits: ClipLimits
) -> dict[str, Any]:
    """Write `frames.safetensors`; returns the numbers of frames and clips.

    Raises:
        AudioError: a clip, or a clip of noise, cannot be used.
        ManifestError: no row has a gate label.
    """
    bank = load_noise_bank(noise.rows, noise.root, noise.parts, limits)
    frames = extract_site(
        clips.rows,
        clips.root,
        bank,
        clips.parts,
        rendering.reasons,
        rendering.log_mel,
        rendering.vad,
        rendering.features,
        limits,
    )
    save_frames(frames, out / FRAMES)
    return {"frames": len(frames.clip), "clips": len(frames.gate)}


def feature_config(raw: Mapping[str, Any]) -> FeatureConfig:
    """`FeatureConfig` from its JSON form."""
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
    return FeatureConfig(**fields)
