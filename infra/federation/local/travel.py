"""What of a site's own stages may leave it: one small type each, which can hold nothing else.

No count, no name of a file, group or label, no path, no note in words. Everything further stays in the site's folder. The reader
of a reply trusts none of it: a field too many is refused like a missing one, so that a site which says more is noticed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Self

from models.calibration import SiteCalibration
from models.errors import UpdateRejected

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_RULE: Final = re.compile(r"[a-z0-9-]{1,64}")
_MAX_RULES: Final = 200


@dataclass(frozen=True)
class _Travels:
    site: str

    def to_body(self) -> dict[str, Any]:
        """JSON types, for a message."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_body(cls, body: Mapping[str, Any], site: str) -> Self:
        """Read what `site` answered.

        Raises:
            UpdateRejected: fields are missing or too many, or one is not of its type and range.
        """
        names = {f.name for f in fields(cls)}
        if set(body) != names:
            raise UpdateRejected(
                f"site {site!r} answers with the fields {sorted(body)}, expected are {sorted(names)}"
            )
        if body["site"] != site:
            raise UpdateRejected(f"site {site!r} answers as {body['site']!r}")
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in body.items()}
        return cls(**given)


@dataclass(frozen=True)
class GateReply(_Travels):
    """The verdict: which of the gate's rules are broken, by their ids; not how often, and not by what."""

    passed: bool
    overridden: bool  # the site's own decision; its reason is recorded there
    criticals: tuple[str, ...]
    warnings: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse what is no verdict.

        Raises:
            UpdateRejected: a flag is none, a rule's id is none, or passing contradicts broken critical rules.
        """
        flags = type(self.passed) is bool and type(self.overridden) is bool
        if not flags or not _rule_ids(self.criticals) or not _rule_ids(self.warnings):
            raise UpdateRejected(f"site {self.site!r}: the gate's answer is not a verdict of rule ids")
        if self.passed == bool(self.criticals) or (self.passed and self.overridden):
            raise UpdateRejected(f"site {self.site!r}: the gate's answer contradicts itself")

    @property
    def released(self) -> bool:
        """Whether the site lets its recordings be trained on."""
        return self.passed or self.overridden


@dataclass(frozen=True)
class FeaturesReply(_Travels):
    """The frames by digest: what the job's own digest is made of, and nothing that can be turned back."""

    features: str

    def __post_init__(self) -> None:
        """Refuse what is no digest.

        Raises:
            UpdateRejected: it is none.
        """
        if not isinstance(self.features, str) or not _DIGEST.fullmatch(self.features):
            raise UpdateRejected(f"site {self.site!r}: the features are not named by a SHA-256")


@dataclass(frozen=True)
class CalibrationReply(_Travels):
    """Temperatures and thresholds; None where the site has none of its own (why, and of how many clips, stays there)."""

    gate_temperature: float | None
    gate_threshold: float | None
    reason_temperature: float | None
    energy_threshold: float | None
    gate_bias: float | None

    def __post_init__(self) -> None:
        """Refuse what cannot be used.

        Raises:
            UpdateRejected: a value is no finite number, or out of its range.
        """
        for name, low, high in (
            ("gate_temperature", 1e-3, 1e3),
            ("gate_threshold", 0.0, 1.0),
            ("reason_temperature", 1e-3, 1e3),
            ("energy_threshold", -1e6, 1e6),
            ("gate_bias", -100.0, 100.0),
        ):
            value = getattr(self, name)
            if value is None:
                continue
            if type(value) is not float or not math.isfinite(value) or not low <= value <= high:
                raise UpdateRejected(
                    f"site {self.site!r}: {name} is {value!r}, not a number in [{low:g}, {high:g}]"
                )
        if len({x is None for x in (self.gate_temperature, self.gate_bias, self.gate_threshold)}) > 1:
            raise UpdateRejected(
                f"site {self.site!r}: the gate's temperature, bias and threshold belong together"
            )

    @classmethod
    def of(cls, own: SiteCalibration) -> CalibrationReply:
        """What may leave of a site's own calibration."""
        return cls(
            own.site,
            gate_temperature=own.gate_temperature if own.gate_fitted else None,
            gate_threshold=own.gate_threshold if own.gate_fitted else None,
            reason_temperature=own.reason_temperature if own.reason_fitted else None,
            energy_threshold=own.energy_threshold if own.energy_fitted else None,
            gate_bias=own.gate_bias if own.gate_fitted else None,
        )

    def calibration(self) -> SiteCalibration:
        """The same as the calibration that pooling and bundles take: its counts are 0, for they are not known here."""
        blank = SiteCalibration(self.site)
        return SiteCalibration(
            self.site,
            gate_temperature=_or(self.gate_temperature, blank.gate_temperature),
            reason_temperature=_or(self.reason_temperature, blank.reason_temperature),
            gate_threshold=_or(self.gate_threshold, blank.gate_threshold),
            energy_threshold=self.energy_threshold,
            gate_fitted=self.gate_temperature is not None,
            reason_fitted=self.reason_temperature is not None,
            energy_fitted=self.energy_threshold is not None,
            gate_bias=_or(self.gate_bias, blank.gate_bias),
        )


def _rule_ids(ids: Iterable[object]) -> bool:
    return (
        isinstance(ids, tuple)
        and len(ids) <= _MAX_RULES
        and all(isinstance(i, str) and _RULE.fullmatch(i) for i in ids)
    )


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
