"""Public corpora in their published layouts, as manifests. Nothing is copied or converted.

Donate-a-Cry (https://github.com/gveres/donateacry-corpus): folders per reason, or the raw upload buckets. File names tell all:

    0D1AD73E-4C5E-45F3-85C4-9A3CB71E8856-1430742197-1.0-m-04-hu.wav
    device                               time       app sex age reason

ESC-50 (https://github.com/karolpiczak/ESC-50): `meta/esc50.csv` and `audio/`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pandas as pd

from infra.data.audio import probe, write_bytes
from infra.data.manifest import COLUMNS, NO_FOLD
from infra.digest import digest_file
from models.errors import AudioError, DataError, ManifestError, OutputError
from models.seeds import derive_seed

DONATEACRY: Final = "donateacry"
ESC50: Final = "esc50"

REASON_CODES: Final = {
    "hu": "hungry", "bu": "burping", "bp": "belly_pain", "dc": "discomfort", "ti": "tired",
    "lo": "lonely", "ch": "cold_hot", "sc": "scared", "dk": "unknown",
}  # fmt: skip
REASONS: Final = ("belly_pain", "burping", "discomfort", "hungry", "tired")
NEWBORN_AGES: Final = (
    "04",
    "48",
)  # codes: 0–4 weeks and 4–8 weeks; older: 26 (2–6 months), 72 (7 months – 2 years), 22

_SUFFIXES: Final = {".wav", ".flac", ".caf", ".ogg", ".mp3", ".aiff", ".3gp"}
_DONATED = re.compile(
    r"(?P<device>[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})-(?P<time>\d{10,13})-(?P<app>[\d.]+)"
    r"-(?P<sex>[mf])-(?P<age>\d{2})-(?P<reason>[a-z]{2})"
)
_ESC_COLUMNS: Final = ("filename", "category", "esc10", "src_file")

Row = dict[str, str | int | float]


@dataclass(frozen=True)
class Import:
    """What an importer found."""

    rows: list[Row]
    skipped: dict[str, str]  # path → why
    note: str


def import_donateacry(folder: Path, sites: int = 0) -> Import:
    """Rows of a Donate-a-Cry checkout.

    A file in a folder named after a reason is a cry for that reason. A raw upload counts for the reason in its name, or as
    unlabelled where that is none of the five; uploads are what phones sent in, and many are no cries. The group is the device,
    the platform shows in the case of its identifier (iOS writes capitals). Copies of a recording are taken once, labelled first.

    Args:
        folder: the checkout, or any folder below it.
        sites: deal devices out to that many sites; 0 makes a site of each platform and age band.

    Raises:
        DataError: no such folder, or no file in it is named as the corpus names them.
    """
    files = _audio_files(folder, DONATEACRY)
    # curated folders before the upload buckets: the first of two copies is kept
    files.sort(key=lambda p: (p.parent.name not in REASONS, p.relative_to(folder).as_posix()))
    rows: list[Row] = []
    skipped: dict[str, str] = {}
    seen: set[str] = set()
    for path in files:
        name = path.relative_to(folder).as_posix()
        match = _DONATED.fullmatch(path.stem)
        if match is None:
            skipped[name] = "not named as the corpus names its files"
            continue
        facts, why = _facts(path)
        if why:
            skipped[name] = why
            continue
        if facts["sha256"] in seen:
            skipped[name] = "a copy of another file"
            continue
        seen.add(str(facts["sha256"]))
        code = match["reason"]
        label = path.parent.name if path.parent.name in REASONS else REASON_CODES.get(code, "unknown")
        device = match["device"]
        rows.append({
            "path": name, "label": label, "role": "cry" if label in REASONS else "unlabelled", "corpus": DONATEACRY,
            "group": f"dac-{device.lower()}", "age": match["age"], "sex": match["sex"],
            "platform": "ios" if device == device.upper() else "android", "fold": NO_FOLD,
            "licence": "ODbL-1.0/DbCL-1.0", "author": "Donate-a-cry campaign", **facts,
        })  # fmt: skip
    if not rows:
        raise DataError(
            f"{folder}: {len(files)} audio files, none usable and named like Donate-a-Cry's "
            "(DEVICE-TIME-APP-SEX-AGE-REASON.wav); point at the checkout of gveres/donateacry-corpus"
        )
    _assign_sites(rows, sites)
    return Import(
        rows, skipped, f"{len({r['group'] for r in rows})} devices at {len({r['site'] for r in rows})} sites"
    )


def import_esc50(folder: Path, esc10: bool = False) -> Import:
    """Rows of an ESC-50 checkout: public noise, without a site; its crying babies are left unlabelled, as cries without a reason.

    Args:
        folder: the checkout.
        esc10: only the ESC-10 subset, which may be used commercially (CC BY).

    Raises:
        DataError: `meta/esc50.csv` is missing or has other columns, or no clip is there.
    """
    meta = folder / "meta" / "esc50.csv"
    try:
        table = pd.read_csv(meta, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as err:
        raise DataError(
            f"{meta} cannot be read ({err}); point at the checkout of karolpiczak/ESC-50"
        ) from None
    if missing := [c for c in _ESC_COLUMNS if c not in table.columns]:
        raise DataError(f"{meta}: no column {', '.join(missing)}; is this ESC-50's own meta/esc50.csv?")
    if esc10:
        table = table[table["esc10"] == "True"]
    rows: list[Row] = []
    skipped: dict[str, str] = {}
    for name, category, in_esc10, source in table[list(_ESC_COLUMNS)].itertuples(index=False):
        path = folder / "audio" / Path(name).name
        facts, why = _facts(path)
        if why:
            skipped[f"audio/{Path(name).name}"] = why
            continue
        crying = category == "crying_baby"
        rows.append({
            "path": f"audio/{path.name}", "label": category, "role": "unlabelled" if crying else "noise", "corpus": ESC50,
            "group": f"freesound-{source}", "site": "", "fold": NO_FOLD,
            "licence": "CC-BY-3.0" if in_esc10 == "True" else "CC-BY-NC-3.0", "author": "freesound.org, see ESC-50", **facts,
        })  # fmt: skip
    if not rows:
        raise DataError(f"{folder}: none of the {len(table)} clips of meta/esc50.csv is in audio/")
    return Import(rows, skipped, f"{len({r['label'] for r in rows})} classes, public")


def write_manifest(found: Import, corpus: str, folder: Path, out: Path | None = None) -> tuple[Path, int]:
    """Write an import as a manifest, and return its path and how many rows of other corpora it keeps.

    A manifest that is there already keeps the rows of its other corpora, so that one file can hold cries and noise.

    Args:
        found: the import.
        corpus: rows of this name are replaced.
        folder: the corpus.
        out: CSV to write; default `manifest.csv` in the corpus. Manifests name paths below their own folder, so it must lie in
            the corpus or in a folder above it.

    Raises:
        OutputError: it lies elsewhere, or cannot be written.
        ManifestError: the file that is there is no manifest.
    """
    folder = folder.resolve()
    target = (out or folder / "manifest.csv").resolve()
    if not folder.is_relative_to(target.parent):
        raise OutputError(
            f"{target} is not above the corpus {folder}: a manifest names files below its own folder; choose a path there"
        )
    prefix = folder.relative_to(target.parent)
    rows = [{**row, "path": (prefix / str(row["path"])).as_posix()} for row in found.rows]
    table = pd.DataFrame(rows).reindex(columns=list(COLUMNS)).astype(object)
    kept = _others(target, corpus)
    table = pd.concat([kept, table]).sort_values("path", kind="stable").fillna("")
    write_bytes(target, table.to_csv(index=False, lineterminator="\n").encode())
    return target, len(kept)


def _others(target: Path, corpus: str) -> pd.DataFrame:
    if not target.is_file():
        return pd.DataFrame(columns=list(COLUMNS), dtype=object)
    there = pd.read_csv(target, dtype=str, keep_default_na=False)
    if "corpus" not in there.columns:
        raise ManifestError(f"{target} exists and is no manifest (no column 'corpus'); choose another --out")
    return there[there["corpus"] != corpus].reindex(columns=list(COLUMNS)).astype(object)


def _audio_files(folder: Path, corpus: str) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; point at the {corpus} corpus")
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file())


def _facts(path: Path) -> tuple[Row, str]:
    """Hash and duration, or why the file cannot be used."""
    try:
        info = probe(path)
    except AudioError as err:
        return {}, str(err).removeprefix(f"{path}: ")
    return {"sha256": digest_file(path), "duration_s": round(info.seconds, 3)}, ""


def _assign_sites(rows: list[Row], sites: int) -> None:
    """Give every device one site, in place."""
    name_of: Callable[[str, Iterable[Row]], str]
    if sites > 0:

        def name_of(device: str, _rows: Iterable[Row]) -> str:
            return f"site{derive_seed('site', device) % sites + 1:02d}"

    else:

        def name_of(_device: str, rows: Iterable[Row]) -> str:
            own = list(rows)
            newborn = sum(row["age"] in NEWBORN_AGES for row in own)
            return f"{own[0]['platform']}-{'newborn' if 2 * newborn >= len(own) else 'older'}"

    by_device: dict[str, list[Row]] = {}
    for row in rows:
        by_device.setdefault(str(row["group"]), []).append(row)
    for device, own in by_device.items():
        site = name_of(device, own)
        for row in own:
            row["site"] = site
