"""How long to listen before deciding, and how hard it is to change one's mind."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from models.config import SAMPLE_RATE
from models.errors import ConfigError


@dataclass(frozen=True)
class ListenConfig:
    """Times in seconds, levels in dB re full scale.

    Raises:
        ConfigError: a value is out of range.
    """

    smooth_s: float = 4.0  # a decision rests on the mean logits of the kept frames of this long
    least_s: float = 1.5  # a bout is at least this long: two overlapping frames
    pause_s: float = 3.0  # breaths and pauses shorter than this do not end a bout
    off_margin: float = (
        1.0  # log-odds below the site's threshold at which a sound that was a cry is none any more
    )
    vad_context_s: float = (
        8.0  # noise floor and peak are those of the last seconds, about as long as a training clip
    )
    floor_dbfs: float = -70.0  # quieter frames are never scored: the graph would lift them to full level
    clipped_share: float = 0.01  # of the samples of `quality_s`: above it the recording level is too high
    quality_s: float = 5.0

    def __post_init__(self) -> None:
        bad = [f.name for f in fields(self) if not math.isfinite(getattr(self, f.name))]
        if bad:
            raise ConfigError(f"listening: {bad[0]} is not a number; give a finite one")
        for name, low, high in (
            ("smooth_s", 1.0, 60.0),
            ("least_s", 0.0, 60.0),
            ("pause_s", 0.5, 60.0),
            ("off_margin", 0.0, 20.0),
            ("vad_context_s", 1.0, 60.0),
            ("clipped_share", 0.0, 1.0),
            ("quality_s", 0.5, 60.0),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"listening: {name}={value} is out of range; choose {low:g} to {high:g}")

    def off_threshold(self, on: float) -> float:
        """Probability down to which a sound that passed the gate at `on` still passes."""
        if not 0.0 < on < 1.0:
            return on
        return 1.0 / (1.0 + math.exp(-(math.log(on / (1.0 - on)) - self.off_margin)))


def samples(seconds: float) -> int:
    """Seconds at 16 kHz, in whole samples."""
    return round(seconds * SAMPLE_RATE)
