"""Public corpora: what file names and tables of the published layouts become in a manifest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from infra.data.corpora import DONATEACRY, ESC50, import_donateacry, import_esc50, write_manifest
from infra.data.manifest import load_manifest, verify_hashes
from models.errors import DataError, ManifestError, OutputError

IOS = "0D1AD73E-4C5E-45F3-85C4-9A3CB71E8856"
ANDROID = "549a46d8-9c84-430e-ade8-97eae2bef787"


def clip(path: Path, seed: int = 0, rate: int = 8000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.random.default_rng(seed).standard_normal(rate), rate)


@pytest.fixture
def donated(tmp_path: Path) -> Path:
    folder = tmp_path / "donateacry-corpus"
    clean, raw = (
        folder / "donateacry_corpus_cleaned_and_updated_data",
        folder / "donateacry-ios-upload-bucket",
    )
    clip(clean / "hungry" / f"{IOS}-1430742197-1.0-m-04-hu.wav", 1)
    clip(clean / "tired" / f"{IOS}-1430742999-1.0-m-04-hu.wav", 2)  # its curated folder corrects the name
    clip(clean / "belly_pain" / f"{ANDROID}-1430130772174-1.7-f-26-bp.wav", 3)
    clip(raw / f"{IOS}-1430742197-1.0-m-04-hu.caf", 4)
    clip(raw / f"{ANDROID}-1430130772175-1.7-f-72-dk.wav", 5)
    clip(raw / f"{ANDROID}-1430130772176-1.7-f-72-lo.wav", 6)
    copy = raw / f"{IOS}-1430742197-1.0-m-04-bu.wav"
    copy.write_bytes((clean / "hungry" / f"{IOS}-1430742197-1.0-m-04-hu.wav").read_bytes())
    (raw / f"{ANDROID}-1430130772177-1.7-f-26-hu.3gp").write_bytes(b"\0\0\0\x18ftyp3gp4")
    clip(folder / "readme-sample.wav", 7)
    return folder


def test_donateacry_file_names_tell_all(donated: Path) -> None:
    found = import_donateacry(donated)
    path, kept = write_manifest(found, DONATEACRY, donated)
    manifest = load_manifest(path)
    verify_hashes(manifest)
    table = manifest.table.set_index(manifest.table["path"].str.rsplit("/", n=1).str[-1])
    assert kept == 0
    assert len(table) == 6
    first = table.loc[f"{IOS}-1430742197-1.0-m-04-hu.wav"]
    assert (first["label"], first["role"], first["group"]) == ("hungry", "cry", f"dac-{IOS.lower()}")
    assert (first["platform"], first["age"], first["sex"], first["site"]) == ("ios", "04", "m", "ios-newborn")
    assert first["duration_s"] == 1.0
    assert table.loc[f"{IOS}-1430742999-1.0-m-04-hu.wav", "label"] == "tired", "the curated folder wins"
    assert table.loc[f"{IOS}-1430742197-1.0-m-04-hu.caf", "role"] == "cry"
    assert table.loc[f"{ANDROID}-1430130772175-1.7-f-72-dk.wav", "role"] == "unlabelled"
    assert table.loc[f"{ANDROID}-1430130772176-1.7-f-72-lo.wav"][["role", "label"]].tolist() == [
        "unlabelled",
        "lonely",
    ]
    assert set(table["site"][table["platform"] == "android"]) == {"android-older"}
    assert manifest.reasons == ("belly_pain", "hungry", "tired")


def test_what_is_left_out_is_named_with_its_reason(donated: Path) -> None:
    skipped = {Path(k).name: why for k, why in import_donateacry(donated).skipped.items()}
    assert skipped.pop("readme-sample.wav") == "not named as the corpus names its files"
    assert skipped.pop(f"{IOS}-1430742197-1.0-m-04-bu.wav") == "a copy of another file"
    (why,) = skipped.values()
    assert why.startswith("not readable as audio")


def test_devices_can_be_dealt_to_sites(donated: Path) -> None:
    found = import_donateacry(donated, sites=50)
    by_device = pd.DataFrame(found.rows).groupby("group")["site"].unique()
    assert [len(s) for s in by_device] == [1, 1]
    assert all(s[0].startswith("site") for s in by_device)


@pytest.fixture
def esc(tmp_path: Path) -> Path:
    folder = tmp_path / "ESC-50"
    names = [
        ("1-100032-A-0.wav", "dog", "True"),
        ("1-2-A-20.wav", "crying_baby", "True"),
        ("2-3-A-1.wav", "rain", "False"),
    ]
    for i, (name, _, _) in enumerate(names):
        clip(folder / "audio" / name, i, 44_100)
    names.append(("5-9-A-9.wav", "train", "False"))
    (folder / "meta").mkdir()
    lines = [f"{n},{i % 5 + 1},{i},{c},{e},{100 + i},A" for i, (n, c, e) in enumerate(names)]
    (folder / "meta" / "esc50.csv").write_text(
        "\n".join(["filename,fold,target,category,esc10,src_file,take", *lines])
    )
    return folder


def test_esc50_is_public_noise(esc: Path) -> None:
    found = import_esc50(esc)
    table = load_manifest(write_manifest(found, ESC50, esc)[0]).table
    assert table["role"].tolist() == ["noise", "unlabelled", "noise"]
    assert table["label"].tolist() == ["dog", "crying_baby", "rain"]
    assert set(table["site"]) == {""}
    assert set(table["fold"]) == {-1}, "noise is dealt by class, not by ESC's folds"
    assert table["group"].tolist() == ["freesound-100", "freesound-101", "freesound-102"]
    assert table["licence"].tolist() == ["CC-BY-3.0", "CC-BY-3.0", "CC-BY-NC-3.0"]
    assert "audio/5-9-A-9.wav" in found.skipped
    assert len(import_esc50(esc, esc10=True).rows) == 2


def test_two_corpora_share_a_manifest_above_them(donated: Path, esc: Path, tmp_path: Path) -> None:
    out = tmp_path / "all.csv"
    write_manifest(import_donateacry(donated), DONATEACRY, donated, out)
    _, kept = write_manifest(import_esc50(esc), ESC50, esc, out)
    assert kept == 6
    before = out.read_bytes()
    write_manifest(import_donateacry(donated), DONATEACRY, donated, out)
    assert out.read_bytes() == before, "importing again replaces the corpus's own rows"
    manifest = load_manifest(out)
    assert len(manifest.table) == 9
    assert manifest.table["path"].str.split("/").str[0].nunique() == 2


def test_wrong_places_are_refused(donated: Path, esc: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no folder"):
        import_donateacry(tmp_path / "gone")
    with pytest.raises(DataError, match="none usable and named like Donate-a-Cry"):
        import_donateacry(esc)
    with pytest.raises(DataError, match=r"esc50\.csv cannot be read"):
        import_esc50(donated)
    (esc / "meta" / "esc50.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="no column filename"):
        import_esc50(esc)
    found = import_donateacry(donated)
    with pytest.raises(OutputError, match="is not above the corpus"):
        write_manifest(found, DONATEACRY, donated, esc / "manifest.csv")
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ManifestError, match="is no manifest"):
        write_manifest(found, DONATEACRY, donated, tmp_path / "notes.csv")
    assert (tmp_path / "notes.csv").read_text() == "a,b\n1,2\n"
