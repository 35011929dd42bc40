"""The document a release is described by: `manifest.json`, checked field by field.

Everything in it but `info` (run id and times) makes up the digest: the same inputs give the same digest.
"""

from __future__ import annotations

import json
import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    field_validator,
    model_validator,
)

from infra.digest import canonical_json, digest_json
from models.calibration import SiteCalibration

BUNDLE_FORMAT = "cryfed-bundle/1"
MANIFEST_NAME = "manifest.json"
MODEL_NAME = "model.onnx"

MAX_FILE_BYTES = 512 * 2**20
MAX_FILES = 64

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Temperature = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1)]


def _plain(value: Any) -> Any:
    """Tuples to lists, so that what is digested is what will be read back."""
    try:
        return json.loads(canonical_json(value))
    except TypeError as err:
        raise ValueError(f"not JSON: {err}") from None


JsonObject = Annotated[dict[str, JsonValue], BeforeValidator(_plain)]


class _Document(BaseModel):
    # an unknown key is refused: it would be a rule that this version silently does not follow
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CalibrationDocument(_Document):
    """`models.calibration.SiteCalibration` as stored, every number bounded; site "" is the pooled default."""

    site: str = ""
    gate_temperature: Temperature = 1.0
    gate_bias: float = Field(default=0.0, ge=-100.0, le=100.0)
    reason_temperature: Temperature = 1.0
    gate_threshold: Probability = 0.5
    energy_threshold: float | None = None
    n_cries: int = Field(default=0, ge=0)
    n_noncries: int = Field(default=0, ge=0)
    gate_fitted: bool = False
    reason_fitted: bool = False
    energy_fitted: bool = False
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, calibration: SiteCalibration) -> CalibrationDocument:
        """The document of a calibration."""
        return cls(**calibration.to_dict())

    def calibration(self) -> SiteCalibration:
        """The calibration itself."""
        return SiteCalibration(**self.model_dump())


class DataProvenance(_Document):
    """The data a release learned from, and its split: a later evaluation keeps to unseen groups."""

    manifest_digest: Sha256
    synthetic: bool = Field(description="made by the synthesiser; every number from it has to say so")
    corpora: tuple[str, ...] = ()
    n_folds: int = Field(5, ge=2)
    fold_seed: int = Field(0, ge=0)
    test_fold: int = Field(0, ge=0)
    val_fold: int = Field(1, ge=0)


class BundledFile(_Document):
    """One file of the bundle."""

    sha256: Sha256
    size: int = Field(ge=0, le=MAX_FILE_BYTES)


class BundleManifest(_Document):
    """`manifest.json`. Everything but `info` is part of the bundle's digest."""

    format: Literal["cryfed-bundle/1"] = "cryfed-bundle/1"
    heads: tuple[Literal["gate", "reason"], ...] = Field(
        description="a head that is not here is not in the graph either"
    )
    reasons: tuple[str, ...] = Field(
        description="columns of the reason outputs; empty without the reason head"
    )
    model: JsonObject = Field(description="models.config.ModelConfig")
    vad: JsonObject = Field(description="models.segmentation.VadConfig: the same frames as in training")
    default_calibration: CalibrationDocument = CalibrationDocument()
    calibrations: dict[str, CalibrationDocument] = Field(default_factory=dict, description="by site")
    data: DataProvenance
    provenance: JsonObject = Field(
        default_factory=dict, description="digests of parents, code and configuration; seeds"
    )
    evidence: JsonObject = Field(
        default_factory=dict, description="the release decision and the numbers it rests on"
    )
    notes: tuple[str, ...] = ()
    files: dict[str, BundledFile]
    info: JsonObject = Field(default_factory=dict, description="run id, times: outside the digest")

    @field_validator("files")
    @classmethod
    def _confined(cls, files: dict[str, BundledFile]) -> dict[str, BundledFile]:
        if MODEL_NAME not in files:
            raise ValueError(f"{MODEL_NAME} is missing")
        if len(files) > MAX_FILES:
            raise ValueError(f"{len(files)} files; at most {MAX_FILES} are accepted")
        for name in files:
            check_file_name(name)
        return files

    @model_validator(mode="after")
    def _consistent(self) -> BundleManifest:
        if "gate" not in self.heads or len(set(self.heads)) != len(self.heads):
            raise ValueError(f"heads {self.heads} must be the gate, alone or with the reason head")
        if ("reason" in self.heads) != bool(self.reasons):
            raise ValueError("reasons must be named exactly when the reason head is shipped")
        if len(set(self.reasons)) != len(self.reasons):
            raise ValueError("a reason is named twice")
        for site, calibration in self.calibrations.items():
            if not site or calibration.site != site:
                raise ValueError(f"calibration filed under site {site!r} is that of {calibration.site!r}")
        if self.default_calibration.site:
            raise ValueError(f"default calibration is that of site {self.default_calibration.site!r}")
        return self

    def digest(self) -> str:
        """Identity of the release: SHA-256 of the canonical JSON without `info`."""
        return digest_json(self.model_dump(mode="json", exclude={"info"}))

    def to_json(self) -> bytes:
        """The bytes of `manifest.json`: indented for people, sorted for reproducibility."""
        raw = self.model_dump(mode="json")
        return (
            json.dumps(raw, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
        ).encode()


def check_file_name(name: str) -> None:
    """Raises:
    ValueError: `name` is not a plain relative path below the bundle's folder.
    """
    pure = PurePosixPath(name)
    if (
        not re.fullmatch(r"[A-Za-z0-9._/-]{1,200}", name)
        or pure.is_absolute()
        or name != str(pure)
        or ".." in pure.parts
    ):
        raise ValueError(f"file name {name!r} is not a plain relative path")
    if name == MANIFEST_NAME:
        raise ValueError(f"{MANIFEST_NAME} cannot name itself")
