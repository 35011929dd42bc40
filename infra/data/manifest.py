"""The table of clips: read once, checked once, the same for everyone after.

    path,label,role,corpus,group,sha256[,site,age,sex,platform,fold,duration_s,licence,author]

`group` is the infant or the recording device: the unit that must not cross a split. `role` is one of `ROLES`. An empty `site` is
public audio. Paths are relative to the manifest's folder and stay inside it. Further columns are ignored.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, Protocol

import pandas as pd

from infra.digest import digest_file, digest_json
from models.errors import ManifestError

ROLES: Final = ("cry", "ood_noncry", "noise", "unlabelled")
REQUIRED: Final = ("path", "label", "role", "corpus", "group", "sha256")
OPTIONAL: Final = ("site", "age", "sex", "platform", "fold", "duration_s", "licence", "author")
COLUMNS: Final = REQUIRED + OPTIONAL
NO_FOLD: Final = -1

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHOWN = 5


class Limits(Protocol):
    """What bounds a manifest; `infra.settings.LimitSettings` is one."""

    @property
    def max_manifest_rows(self) -> int:
        """Rows beyond which a manifest is refused."""
        ...


@dataclass(frozen=True)
class Manifest:
    """A checked table.

    `table` has exactly `COLUMNS` and a plain index, in the order of the file; all text, but `fold` int64 (-1: none) and
    `duration_s` float64 (NaN: none).
    """

    path: Path
    root: Path  # folder that the table's paths are relative to
    table: pd.DataFrame
    digest: str  # of the normalised rows in the order of their paths: not of the file's place, format or row order

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites, sorted; public audio is none of them."""
        return tuple(sorted(set(self.table["site"]) - {""}))

    @property
    def reasons(self) -> tuple[str, ...]:
        """Labels of the cries, sorted: the label set of the reason head."""
        return tuple(sorted(set(self.table.loc[self.table["role"] == "cry", "label"])))


def columns_of(table: pd.DataFrame, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """clip_id → value by column, of those columns that a manifest's table has; clips without a value are left out."""
    return {
        name: {str(sha)[:16]: str(v) for sha, v in zip(table["sha256"], table[name], strict=True) if v}
        for name in names
        if name in table
    }


def load_manifest(path: Path, *, limits: Limits | None = None) -> Manifest:
    """Read a CSV or Parquet manifest and check every row; files are looked for but not opened.

    Raises:
        ManifestError: the file is missing, empty or no table; a column is missing; a role is unknown; a label or group is empty;
            a path is absolute, leaves the folder, is missing or occurs twice; a hash is no SHA-256; a fold is no whole number;
            a group belongs to two sites. The message names file, rows and the way out.
    """
    raw = _read(path)
    if limits is not None and len(raw) > limits.max_manifest_rows:
        raise ManifestError(
            f"{path}: {len(raw)} rows, the limit is {limits.max_manifest_rows}; raise limits.max_manifest_rows"
        )
    raw.columns = [str(c).strip() for c in raw.columns]
    if missing := [c for c in REQUIRED if c not in raw.columns]:
        raise ManifestError(
            f"{path}: no column {_names(missing)}; there is {_names(list(raw.columns))}; needed are {_names(list(REQUIRED))}"
        )
    if raw.empty:
        raise ManifestError(f"{path}: the manifest has a header but no row; add one row a clip")
    table = _normalise(path, raw)
    _check_rows(path, table)
    root = path.parent.resolve()
    _check_files(path, root, table)
    _check_groups(path, table)
    return Manifest(path=path, root=root, table=table, digest=_digest(table))


def verify_hashes(manifest: Manifest) -> None:
    """Read every file and compare it with the hash that the manifest declares.

    Raises:
        ManifestError: files differ from their rows; the first are named.
    """
    changed = [
        f"{p} (declared {sha[:12]}…, is {found[:12]}…)"
        for p, sha in zip(manifest.table["path"], manifest.table["sha256"], strict=True)
        if (found := digest_file(manifest.root / p)) != sha
    ]
    if changed:
        raise ManifestError(
            f"{manifest.path}: {len(changed)} files are not what their sha256 says: {_some(changed)}; "
            "restore the files, or write their new hashes if the change was meant"
        )


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        what = "is a folder; name the manifest in it" if path.is_dir() else "does not exist; check the path"
        raise ManifestError(f"manifest {path} {what}")
    if path.stat().st_size == 0:
        raise ManifestError(f"manifest {path} is empty; it needs a header and one row a clip")
    try:
        if path.suffix.lower() in {".parquet", ".pq"}:
            return pd.read_parquet(path)
        with warnings.catch_warnings():
            # a row longer than the header only warns, and would shift or drop fields
            warnings.simplefilter("error", pd.errors.ParserWarning)
            # text as it stands: "NA" may be a name, "04" is not 4
            return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False)
    except pd.errors.EmptyDataError:
        raise ManifestError(f"manifest {path} is empty; it needs a header and one row a clip") from None
    except (
        ValueError,
        OSError,
        pd.errors.ParserWarning,
    ) as err:  # parser, decoder and arrow errors are ValueError or OSError
        first = str(err).strip().splitlines()[0] if str(err).strip() else type(err).__name__
        raise ManifestError(f"manifest {path} cannot be read as {path.suffix or 'CSV'}: {first}") from None


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA or value is pd.NaT:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # Parquet turns a column of whole numbers with gaps into floats
    return str(value).strip()


def _normalise(path: Path, raw: pd.DataFrame) -> pd.DataFrame:
    if repeated := sorted({c for c in raw.columns if list(raw.columns).count(c) > 1}):
        raise ManifestError(f"{path}: column {_names(repeated)} occurs twice; keep one")
    columns: dict[str, Any] = {}
    for name in COLUMNS:
        columns[name] = [_text(v) for v in raw[name].tolist()] if name in raw else [""] * len(raw)
    columns["fold"] = [_fold(path, i, v) for i, v in enumerate(columns["fold"])]
    columns["duration_s"] = [_seconds(path, i, v) for i, v in enumerate(columns["duration_s"])]
    columns["sha256"] = [v.lower() for v in columns["sha256"]]
    table = pd.DataFrame(columns)
    return table.astype(
        {"fold": "int64", "duration_s": "float64"}
        | dict.fromkeys(set(COLUMNS) - {"fold", "duration_s"}, object)
    )


def _fold(path: Path, i: int, text: str) -> int:
    if text == "":
        return NO_FOLD
    try:
        value = int(text)
    except ValueError:
        value = -2
    if value < NO_FOLD or value > 10_000:
        raise ManifestError(
            f"{path}: row {i + 2}: fold {text!r} is no fold; use 0, 1, 2 …, or -1 (or nothing) for 'to be dealt'"
        )
    return value


def _seconds(path: Path, i: int, text: str) -> float:
    if text == "":
        return float("nan")
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if not 0 <= value < math.inf:
        raise ManifestError(f"{path}: row {i + 2}: duration_s {text!r} is no duration in seconds")
    return value


def _check_rows(path: Path, table: pd.DataFrame) -> None:
    for column in ("path", "label", "group", "corpus"):
        if len(rows := table.index[table[column] == ""]):
            raise ManifestError(f"{path}: {len(rows)} rows have an empty {column}: {_rows(rows)}; fill it in")
    unknown = table[~table["role"].isin(ROLES)]
    if len(unknown):
        raise ManifestError(
            f"{path}: unknown role {_names(sorted(set(unknown['role'])))} in {_rows(unknown.index)}; "
            f"roles are {_names(list(ROLES))}"
        )
    bad = table[~table["sha256"].str.fullmatch(_SHA256)]
    if len(bad):
        raise ManifestError(
            f"{path}: {len(bad)} rows have a sha256 that is not 64 hex digits: {_rows(bad.index)}, e.g. {bad['sha256'].iloc[0]!r}"
        )
    # a site's name becomes a folder's
    bad = table[(table["site"] != "") & ~table["site"].str.fullmatch(_SITE)]
    if len(bad):
        raise ManifestError(
            f"{path}: site {_names(sorted(set(bad['site'])))} in {_rows(bad.index)} is no name; "
            "use letters, digits, '.', '_', '-'"
        )
    twice = table[table["path"].duplicated(keep=False)]
    if len(twice):
        raise ManifestError(
            f"{path}: path {twice['path'].iloc[0]!r} occurs more than once, in {_rows(twice.index)}; keep one row a clip"
        )


def _check_files(path: Path, root: Path, table: pd.DataFrame) -> None:
    outside, missing = [], []
    for name in table["path"]:
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or "\\" in name or "\0" in name:
            outside.append(name)
            continue
        full = root / pure
        try:
            resolved = full.resolve(strict=True)
        except (OSError, RuntimeError):
            missing.append(name)
            continue
        if not resolved.is_relative_to(root):
            outside.append(name)  # a link out of the folder
        elif not resolved.is_file():
            missing.append(name)
    if outside:
        raise ManifestError(
            f"{path}: {len(outside)} paths lead outside the manifest's folder: {_some(outside)}; use relative paths below {root}"
        )
    if missing:
        raise ManifestError(
            f"{path}: {len(missing)} of {len(table)} files are missing: {_some(missing)}; paths are relative to {root}"
        )


def _check_groups(path: Path, table: pd.DataFrame) -> None:
    sites = table[table["site"] != ""].groupby("group")["site"].unique()
    for group, names in sites.items():
        if len(names) > 1:
            raise ManifestError(
                f"{path}: group {group!r} belongs to {len(names)} sites ({_names(sorted(names))}); "
                "a group is one infant or device at one site: rename it per site if these are different ones"
            )
    public = set(table.loc[table["site"] == "", "group"]) & set(sites.index)
    if public:
        raise ManifestError(
            f"{path}: group {_names(sorted(public))} is both public and at a site; give public audio groups of its own"
        )


def _digest(table: pd.DataFrame) -> str:
    ordered = table.sort_values("path", kind="stable")
    rows = ordered.assign(duration_s=["" if math.isnan(v) else f"{v:.6g}" for v in ordered["duration_s"]])
    return digest_json({"columns": list(COLUMNS), "rows": rows[list(COLUMNS)].to_numpy(object).tolist()})


def _names(items: list[str]) -> str:
    return ", ".join(repr(i) for i in items)


def _some(items: list[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more


def _rows(index: pd.Index) -> str:
    """Row numbers as an editor shows them: the header is line 1."""
    return "rows " + _some([str(int(i) + 2) for i in index])
