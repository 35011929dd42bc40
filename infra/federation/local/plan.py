"""What all sites of a federation agree on before anything is extracted: folds, segmentation, views.

It is part of the job and travels to every site. A site takes it only whole and within bounds: it decides how much work is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from infra.data.features import FeatureConfig
from infra.digest import canonical_json
from models.errors import ConfigError
from models.segmentation import VadConfig

_MAX_VIEWS: Final = 64
_MAX_FRAMES: Final = 1000


@dataclass(frozen=True)
class Split:
    """Folds by group; one for test, one for validation, the others for training."""

    folds: int = 5
    test_fold: int = 0
    val_fold: int = 1


@dataclass(frozen=True)
class DataPlan:
    """`split`, `vad` and `features`, as the pipeline's configuration has them; the front end is the network's own."""

    split: Split = field(default_factory=Split)
    vad: VadConfig = field(default_factory=VadConfig)
    features: FeatureConfig = field(default_factory=FeatureConfig)

    def __post_init__(self) -> None:
        """Refuse what no site should have to do.

        Raises:
            ConfigError: a value is out of its bounds.
        """
        split, vad, views = self.split, self.vad, self.features
        checks = {
            "split: 3 to 20 folds, test_fold and val_fold two of them": 3 <= split.folds <= 20
            and 0 <= split.test_fold < split.folds
            and 0 <= split.val_fold < split.folds
            and split.test_fold != split.val_fold,
            f"features: at most {_MAX_VIEWS} views a clip": views.train_views <= _MAX_VIEWS
            and len(views.test_snrs) <= _MAX_VIEWS,
            "features: test_snrs within ±100 dB": all(-100.0 <= snr <= 100.0 for snr in views.test_snrs),
            f"features: at most {_MAX_FRAMES} frames a clip": views.max_frames_per_clip <= _MAX_FRAMES,
            "vad: hop_s between 0.05 and 1 s": 0.05 <= vad.hop_s <= 1.0,
            "vad: floor_window_s and hangover_s up to 60 s": 0.0 <= vad.floor_window_s <= 60.0
            and 0.0 <= vad.hangover_s <= 60.0,
            "vad: min_active between 0 and 1": 0.0 <= vad.min_active <= 1.0,
            "vad: dB values within 0 to 200": all(
                0.0 <= db <= 200.0 for db in (vad.margin_db, vad.below_peak_db, vad.range_db)
            ),
        }
        if broken := [what for what, holds in checks.items() if not holds]:
            raise ConfigError("the federation's data plan is out of bounds: " + "; ".join(broken))

    def to_dict(self) -> dict[str, Any]:
        """JSON types; every value is named, defaults too."""
        return {
            "split": asdict(self.split),
            "vad": asdict(self.vad),
            "features": self.features.to_dict(),
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> DataPlan:
        """Inverse of `to_dict`; absent values are the defaults.

        Raises:
            ConfigError: a field is unknown, of another type, or out of its bounds.
        """
        try:
            plan = _ADAPTER.validate_json(canonical_json(dict(raw)), strict=True)
        except (ValidationError, ValueError, TypeError) as err:
            raise ConfigError(f"the federation's data plan is not one: {err}") from None
        known = plan.to_dict()
        unknown = [k for k in raw if k not in known]
        unknown += [f"{k}.{n}" for k in raw if k in known for n in raw[k] if n not in known[k]]
        if unknown:
            raise ConfigError(f"the federation's data plan has unknown fields: {', '.join(unknown)}")
        return plan


_ADAPTER: Final = TypeAdapter(DataPlan)
