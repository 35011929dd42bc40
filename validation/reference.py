"""What the training part looked like, as counts: the reference that new data is held against.

    {"schema": 1, "clips": 412, "groups": 231, "manifest": "…",
     "features": [{"kind": "measured", "name": "rms_db", "edges": […], "counts": […], "effective": 305.2},
                  {"kind": "named", "name": "platform", "names": ["android", "ios"], "counts": […], "effective": 178.0}]}

It may leave a site: it holds counts and the edges of bins, no path, group, digest of a recording or value of one. Bins of fewer
than `LEAST` clips are merged into a neighbour, categories into "other", and whatever is still fewer is left out; an edge is
rounded to three digits unless at least `LEAST` clips share its value. `LEAST` counts clips, not infants.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from models.errors import DataError
from validation.divergence import effective_size

FILE: Final = "drift_reference.json"
LEAST: Final = 5  # clips in a bin, at least
QUANTILES: Final = 10  # bins that a measured feature is cut into
MAX_CELLS: Final = 64
MAX_BYTES: Final = 256 * 1024
OTHER: Final = "other"
MISSING: Final = "not measured"

MEASURED: Final = {
    "duration_s": ("Duration", "s"),
    "sample_rate": ("Sample rate", "Hz"),
    "channels": ("Channels", ""),
    "rms_db": ("Level", "dBFS"),
    "peak": ("Peak", "of full scale"),
    "clipping_fraction": ("Clipped samples", "share"),
    "silence_ratio": ("Silent frames", "share"),
    "snr_db": ("SNR, estimated", "dB"),
    "dc_offset": ("DC offset", "of full scale"),
    "bandwidth_hz": ("Bandwidth, 99 %", "Hz"),
}
"""Title and unit of what `validation.measure` measures of a clip."""

NAMED: Final = {"reason": "Reason of the cries", "role": "Role", "platform": "Platform"}
"""Title of what the manifest says of a clip; a clip that is no cry has no reason."""

_AGAIN: Final = (
    "name the folder of a run, or make a reference again with `cryfed drift CLIPS --reference-out FILE`"
)

Count = Annotated[int, Field(ge=0, le=10**9)]
Name = Annotated[str, Field(max_length=100)]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class _Feature(_Document):
    counts: tuple[Count, ...] = Field(min_length=2, max_length=MAX_CELLS)
    effective: float = Field(ge=1)  # see validation.divergence.effective_size

    @model_validator(mode="after")
    def _counted(self) -> _Feature:
        if any(0 < c < LEAST for c in self.counts):
            raise ValueError(f"a bin of fewer than {LEAST} clips should have been merged")
        if not sum(self.counts) or self.effective > sum(self.counts):
            raise ValueError("counts must hold clips, and effective at most as many")
        return self


class MeasuredFeature(_Feature):
    """Bins (−∞, e₁], (e₁, e₂], …, (eₙ, ∞), and last the clips without a value."""

    kind: Literal["measured"] = "measured"
    name: Literal[tuple(MEASURED)]  # type: ignore[valid-type]
    edges: tuple[FiniteFloat, ...] = Field(max_length=MAX_CELLS)

    @model_validator(mode="after")
    def _sorted(self) -> MeasuredFeature:
        if any(b <= a for a, b in pairwise(self.edges)):
            raise ValueError("edges must rise")
        if len(self.counts) != len(self.edges) + 2:
            raise ValueError(
                f"{len(self.edges)} edges make {len(self.edges) + 2} counts, there are {len(self.counts)}"
            )
        return self

    def place(self, column: pd.Series) -> npt.NDArray[np.int64]:
        """Cell of each value (n,)."""
        values = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
        cell = np.searchsorted(np.array(self.edges), values, side="left")
        return np.where(np.isfinite(values), cell, len(self.edges) + 1).astype(np.int64)

    def labels(self) -> list[str]:
        """What each cell is called, `MISSING` last."""
        ends = [_plain(e) for e in self.edges]
        if not ends:
            return ["any", MISSING]
        between = [
            # a bin that holds a single value is called by it
            _plain(b) if np.nextafter(a, np.inf) == b else f"{_plain(a)} to {_plain(b)}"
            for a, b in pairwise(self.edges)
        ]
        return [f"to {ends[0]}", *between, f"above {ends[-1]}", MISSING]


class NamedFeature(_Feature):
    """A count by name, and last that of all other names."""

    kind: Literal["named"] = "named"
    name: Literal[tuple(NAMED)]  # type: ignore[valid-type]
    names: tuple[Name, ...]

    @model_validator(mode="after")
    def _distinct(self) -> NamedFeature:
        if len(set(self.names)) != len(self.names):
            raise ValueError("a name occurs twice")
        if len(self.counts) != len(self.names) + 1:
            raise ValueError(
                f"{len(self.names)} names make {len(self.names) + 1} counts, there are {len(self.counts)}"
            )
        return self

    def place(self, column: pd.Series) -> npt.NDArray[np.int64]:
        """Cell of each name (n,); −1 where the clip has none to have (NaN or None)."""
        index = {name: k for k, name in enumerate(self.names)}
        other = len(self.names)
        return np.array([-1 if pd.isna(v) else index.get(str(v), other) for v in column], np.int64)

    def labels(self) -> list[str]:
        """What each cell is called, `OTHER` last."""
        return [*(name or "(none)" for name in self.names), OTHER]


class Reference(_Document):
    """The whole of it; see the module."""

    schema_version: Literal[1] = Field(1, alias="schema")
    clips: Count
    groups: Count
    manifest: str = Field(
        "", pattern=r"^([0-9a-f]{64})?$"
    )  # digest of the rows' table, where one was declared
    features: tuple[
        Annotated[MeasuredFeature | NamedFeature, Field(discriminator="kind")], ...
    ] = Field(min_length=1, max_length=len(MEASURED) + len(NAMED))  # fmt: skip

    @model_validator(mode="after")
    def _once(self) -> Reference:
        if len({f.name for f in self.features}) != len(self.features):
            raise ValueError("a feature occurs twice")
        return self

    def to_json(self) -> str:
        """One line; equal references give equal bytes."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), sort_keys=True, allow_nan=False) + "\n"


def recorded(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of sites, or where no site is named those that are no noise: public audio says nothing of what sites record."""
    own = rows["role"] != "noise"
    if "site" in rows:
        named = rows["site"].fillna("") != ""
        own = named if named.any() else own
    return rows[own]


def observe(rows: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """One row a clip that a site recorded, with its group and a column for each feature; see `recorded`.

    Args:
        rows: of a manifest; columns path, role, label, group, optional site and platform.
        measured: what `validation.measure` made of them, matched by path.
    """
    table = recorded(rows).merge(measured[["path", *MEASURED]], on="path", how="left", validate="one_to_one",
                      suffixes=("_declared", ""))  # fmt: skip
    out = table[["group", "role", *MEASURED]].copy()
    reasons = [
        str(label) if role == "cry" else None
        for label, role in zip(table["label"], table["role"], strict=True)
    ]
    out["reason"] = pd.Series(reasons, index=out.index, dtype=object)
    out["platform"] = (table["platform"] if "platform" in table else pd.Series("", index=out.index)).fillna(
        ""
    )
    return out


def make_reference(clips: pd.DataFrame, manifest: str = "") -> Reference:
    """Count the clips that `observe` returned.

    A feature that fewer than `LEAST` clips have is left out.

    Raises:
        DataError: none has as many.
    """
    features: list[MeasuredFeature | NamedFeature] = []
    for name in NAMED:
        features += _named(name, clips)
    for name in MEASURED:
        features += _measured(name, clips)
    if not features:
        raise DataError(
            f"{len(clips)} clips make no reference: bins of fewer than {LEAST} clips are not kept; add recordings"
        )
    return Reference(
        schema=1, clips=len(clips), groups=clips["group"].nunique(), manifest=manifest, features=tuple(features)
    )  # fmt: skip


def _named(name: str, clips: pd.DataFrame) -> list[NamedFeature]:
    column = clips[name]
    found = column.dropna().astype(str).str.slice(0, 100).value_counts()
    by_size = sorted(found.items(), key=lambda item: (-int(item[1]), str(item[0])))[: MAX_CELLS - 1]
    other = int(found.sum()) - sum(int(n) for _, n in by_size)
    while by_size and (0 < other < LEAST or int(by_size[-1][1]) < LEAST):
        other += int(by_size.pop()[1])
    if not by_size:
        return []
    kept = sorted((str(label), int(n)) for label, n in by_size)
    names, counts = tuple(label for label, _ in kept), (*(n for _, n in kept), other)
    draft = NamedFeature(name=name, names=names, counts=counts, effective=1.0)
    return [draft.model_copy(update={"effective": _effective(draft, clips)})]


def _measured(name: str, clips: pd.DataFrame) -> list[MeasuredFeature]:
    values = pd.to_numeric(clips[name], errors="coerce").to_numpy(np.float64)
    known = values[np.isfinite(values)]
    edges = _edges(known)
    counts = np.bincount(np.searchsorted(edges, known, side="left"), minlength=len(edges) + 1)
    edges, merged = merge_bins(edges, [int(c) for c in counts])
    missing = len(values) - len(known)
    if sum(merged) < LEAST:
        return []
    counted = (*merged, missing if missing >= LEAST else 0)
    draft = MeasuredFeature(name=name, edges=tuple(edges), counts=counted, effective=1.0)
    return [draft.model_copy(update={"effective": _effective(draft, clips)})]


def _edges(values: npt.NDArray[np.float64]) -> list[float]:
    """Edges of bins of about equal shares; a value that fills a bin alone gets one of its own, however wide the rest is."""
    edges: set[float] = set()
    if not values.size:
        return []
    for q in np.unique(np.quantile(values, np.arange(1, QUANTILES) / QUANTILES, method="inverted_cdf")):
        shared = int(np.sum(values == q))
        # an order statistic is one clip's own value: told only where several share it
        edges.add(float(q) if shared >= LEAST else float(f"{q:.3g}"))
        if shared >= max(LEAST, values.size / QUANTILES):
            edges.add(float(np.nextafter(q, -np.inf)))
    return sorted(edges)


def merge_bins(edges: Sequence[float], counts: Sequence[int]) -> tuple[list[float], list[int]]:
    """Merge each bin of 1 to `LEAST` − 1 clips into its smaller neighbour, an empty one last, until there is none.

    Empty bins stay: they tell of nobody. A single bin may remain with too few.
    """
    e, c = list(edges), list(counts)
    while len(c) > 1 and any(0 < n < LEAST for n in c):
        i = min((n, k) for k, n in enumerate(c) if 0 < n < LEAST)[1]
        j = min((k for k in (i - 1, i + 1) if 0 <= k < len(c)), key=lambda k: (c[k] == 0, c[k]))
        low = min(i, j)
        c[low : low + 2] = [c[i] + c[j]]
        del e[low]
    return e, c


def _effective(feature: MeasuredFeature | NamedFeature, clips: pd.DataFrame) -> float:
    """Effective size of the clips that are counted, to four digits, which is more than it is good for."""
    cell = feature.place(clips[feature.name])
    counted = (cell >= 0) & (np.array([*feature.counts, 0])[cell] > 0)
    size = effective_size(cell[counted], clips["group"].to_numpy()[counted])
    return float(min(float(f"{size:.4g}"), sum(feature.counts)))


def parse_reference(text: str | bytes, where: str) -> Reference:
    """Inverse of `Reference.to_json`, for text from anywhere.

    Raises:
        DataError: not one of ours: too large, no JSON, NaN, a negative count, edges that do not rise, too many bins, …
    """
    if len(text) > MAX_BYTES:
        raise DataError(f"{where}: {len(text)} bytes, a drift reference has at most {MAX_BYTES}; {_AGAIN}")
    try:
        return Reference.model_validate_json(text)
    except ValidationError as err:
        raise DataError(f"{where} is no drift reference: {_first(err.errors())}; {_AGAIN}") from None


def read_reference(path: Path) -> Reference:
    """The reference in a file, or in the folder of a run.

    Raises:
        DataError: missing, unreadable, or not one of ours.
    """
    file = path / FILE if path.is_dir() else path
    try:
        with file.open("rb") as stream:
            text = stream.read(MAX_BYTES + 1)
    except OSError as err:
        raise DataError(f"no drift reference at {file} ({err.strerror or err}): {_AGAIN}") from None
    return parse_reference(text, str(file))


def _plain(edge: float) -> str:
    """An edge as a person writes it: four digits, and no exponent unless it is far from 1."""
    if abs(edge) < 1e-12:
        return "0"
    text = f"{edge:.2g}" if abs(edge) < 1e-4 else np.format_float_positional(float(f"{edge:.4g}"), trim="-")
    return text.replace("-", "−")


def _first(errors: Sequence[Any]) -> str:
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    place = ".".join(str(part) for part in errors[0]["loc"]) or "the document"
    return f"{place}: {errors[0]['msg']}{more}"
