"""The manifest: what is accepted, what its digest stands for, and one clear error for each way to get it wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from infra.data.manifest import COLUMNS, load_manifest, verify_hashes
from infra.digest import digest_bytes
from models.errors import ManifestError

ROWS = [
    ("a/1.wav", "hungry", "cry", "g1", "north", "0"), ("a/2.wav", "tired", "cry", "g1", "north", "-1"),
    ("a/3.wav", "babble", "ood_noncry", "g2", "north", ""), ("b/4.wav", "hungry", "cry", "g3", "south", "2"),
    ("5.wav", "rain", "noise", "n1", "", ""), ("6.wav", "?", "unlabelled", "g4", "south", ""),
]  # fmt: skip


@dataclass(frozen=True)
class Limits:
    max_manifest_rows: int = 100


@pytest.fixture
def table(tmp_path: Path) -> pd.DataFrame:
    frame = pd.DataFrame(ROWS, columns=["path", "label", "role", "group", "site", "fold"], dtype=str)
    frame["corpus"] = "test"
    for name in frame["path"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    frame["sha256"] = [digest_bytes(name.encode()) for name in frame["path"]]
    return frame


def save(frame: pd.DataFrame, folder: Path, name: str = "manifest.csv") -> Path:
    path = folder / name
    frame.to_csv(path, index=False) if name.endswith("csv") else frame.to_parquet(path)
    return path


def test_table_is_normalised(table: pd.DataFrame, tmp_path: Path) -> None:
    manifest = load_manifest(save(table.assign(age="04", mood="blue"), tmp_path), limits=Limits())
    assert tuple(manifest.table.columns) == COLUMNS
    assert manifest.sites == ("north", "south")
    assert manifest.reasons == ("hungry", "tired")
    assert manifest.table["fold"].tolist() == [0, -1, -1, 2, -1, -1]
    assert set(manifest.table["age"]) == {"04"}
    assert manifest.table["site"].tolist()[4] == ""
    assert manifest.root == tmp_path.resolve()
    verify_hashes(manifest)


def test_digest_is_of_the_content(table: pd.DataFrame, tmp_path: Path) -> None:
    digest = load_manifest(save(table, tmp_path)).digest
    assert load_manifest(save(table[::-1], tmp_path, "turned.csv")).digest == digest, "order of rows"
    assert load_manifest(save(table.assign(mood="blue"), tmp_path, "more.csv")).digest == digest, (
        "further columns"
    )
    typed = table.assign(fold=pd.to_numeric(table["fold"]))  # floats with NaN, as Parquet writers like them
    assert load_manifest(save(typed, tmp_path, "m.parquet")).digest == digest, "format"
    assert load_manifest(save(table.assign(label="x"), tmp_path, "other.csv")).digest != digest


def test_strings_that_look_like_missing_values_are_kept(table: pd.DataFrame, tmp_path: Path) -> None:
    table["label"] = "NA"
    assert set(load_manifest(save(table, tmp_path)).table["label"]) == {"NA"}


def test_bom_is_no_part_of_a_column(table: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "bom.csv"
    table.to_csv(path, index=False, encoding="utf-8-sig")
    assert len(load_manifest(path).table) == len(table)


Edit = Callable[[pd.DataFrame], pd.DataFrame]


def setting(row: int, column: str, value: str) -> Edit:
    def edit(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[row, column] = value
        return frame

    return edit


BAD: dict[str, tuple[Edit, str]] = {
    "no row": (lambda f: f[:0], "no row"),
    "column missing": (lambda f: f.drop(columns="group"), r"no column 'group'; there is 'path', 'label'"),
    "unknown role": (setting(2, "role", "crying"), r"unknown role 'crying' in rows 4; .*'ood_noncry'"),
    "empty label": (setting(0, "label", " "), "1 rows have an empty label: rows 2"),
    "empty group": (setting(0, "group", ""), "empty group"),
    "parent folder": (setting(1, "path", "../x.wav"), r"outside the manifest's folder: \.\./x\.wav"),
    "hidden parent": (setting(1, "path", "a/../../x.wav"), "outside"),
    "absolute": (setting(1, "path", "/etc/passwd"), "outside.*/etc/passwd"),
    "backslash": (setting(1, "path", "..\\x.wav"), "outside"),
    "link out": (setting(1, "path", "link/hostname"), "outside.*link/hostname"),
    "missing file": (setting(1, "path", "a/9.wav"), "1 of 6 files are missing: a/9.wav"),
    "a folder": (setting(1, "path", "a"), "1 of 6 files are missing: a;"),
    "twice": (setting(1, "path", "a/1.wav"), r"'a/1.wav' occurs more than once, in rows 2, 3"),
    "short hash": (setting(1, "sha256", "abc"), "not 64 hex digits: rows 3.*'abc'"),
    "fold a word": (setting(1, "fold", "train"), "row 3: fold 'train'"),
    "fold a fraction": (setting(1, "fold", "1.5"), "row 3: fold '1.5'"),
    "fold -2": (setting(1, "fold", "-2"), "row 3: fold '-2'"),
    "group at two sites": (setting(3, "group", "g1"), r"group 'g1' belongs to 2 sites \('north', 'south'\)"),
    "group public and not": (setting(4, "group", "g1"), "'g1' is both public and at a site"),
    "site a path": (setting(0, "site", "../north"), r"site '\.\./north'"),
    "duration a word": (lambda f: f.assign(duration_s="long"), "row 2: duration_s 'long'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("name", ["manifest.csv", "manifest.parquet"])
def test_one_clear_error(table: pd.DataFrame, tmp_path: Path, case: str, name: str) -> None:
    (tmp_path / "link").symlink_to("/etc")
    edit, message = BAD[case]
    path = save(edit(table), tmp_path, name)
    with pytest.raises(ManifestError, match=message) as caught:
        load_manifest(path, limits=Limits())
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"), (b"", "is empty"), (b"\n\n", "is empty"), (b"\xff\xfe\x00", "cannot be read"),
        (b"a,b\n1,2,3\n", "cannot be read"), (b"a,b\n1,2\n1,2,3\n", "cannot be read"),
    ],
)  # fmt: skip
def test_what_is_no_table(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "manifest.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ManifestError, match=message):
        load_manifest(path)


def test_a_folder_and_a_false_parquet(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="is a folder"):
        load_manifest(tmp_path)
    (tmp_path / "m.parquet").write_bytes(b"path,label")
    with pytest.raises(ManifestError, match=r"cannot be read as \.parquet"):
        load_manifest(tmp_path / "m.parquet")


def test_rows_are_bounded(table: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="6 rows, the limit is 5"):
        load_manifest(save(table, tmp_path), limits=Limits(5))


def test_changed_file_is_named(table: pd.DataFrame, tmp_path: Path) -> None:
    manifest = load_manifest(save(table, tmp_path))
    (tmp_path / "a/2.wav").write_bytes(b"tampered")
    with pytest.raises(ManifestError, match=r"1 files are not what their sha256 says: a/2\.wav"):
        verify_hashes(manifest)
