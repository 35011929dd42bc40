"""What the synthesiser is asked for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from infra.digest import digest_json
from models.errors import ConfigError

SYNTH_VERSION: Final = "1"
"""Raised whenever one sample of the output changes; results on different versions must not be compared."""

SAMPLE_RATE: Final = 16_000
BAND_HZ: Final = 4_000.0
"""Nothing lies above: public cry corpora are band-limited there, and a model must not learn otherwise here."""

REASONS: Final = ("belly_pain", "burping", "discomfort", "hungry", "tired")
NON_CRIES: Final = ("alarm", "babble", "door", "fan", "laughter", "silence")
PUBLIC_NOISE: Final = (
    "clicks", "crowd", "fan", "hum", "music", "rain", "traffic", "vacuum", "water", "wind",
)  # fmt: skip


@dataclass(frozen=True)
class SynthConfig:
    """Size, difficulty and seed of a corpus.

    `difficulty` scales how far infants, clips and bursts stray from their reason's melody: 0 is the caricature, 1 the
    frozen default, 2 is beyond what can be solved.
    """

    sites: int = 8
    infants_per_site: int = 24
    cries_per_infant: int = 6
    noncries_per_site: int = 48
    public_noise: int = 120
    clip_seconds: float = 3.0
    difficulty: float = 1.0
    seed: int = 20251213

    def __post_init__(self) -> None:
        """Refuse what no corpus can be made of.

        Raises:
            ConfigError: a count or a duration is out of range.
        """
        for name, low, high in (
            ("sites", 1, 1000), ("infants_per_site", 1, 10_000), ("cries_per_infant", 0, 1000),
            ("noncries_per_site", 0, 100_000), ("public_noise", 0, 100_000), ("clip_seconds", 1.0, 60.0),
            ("difficulty", 0.0, 4.0), ("seed", 0, 2**63 - 1),
        ):  # fmt: skip
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"synthesiser: {name}={value} is out of range: choose {low} to {high}")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    def digest(self, namespace: str) -> str:
        """Digest of everything the output depends on but the code, which `SYNTH_VERSION` stands for."""
        return digest_json({"version": SYNTH_VERSION, "namespace": namespace, **self.to_dict()})
