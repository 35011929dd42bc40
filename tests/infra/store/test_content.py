"""Content-addressed artifacts in both homes: same behaviour, same layout, nothing altered is ever returned."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from infra.store.client import ObjectStore
from infra.store.content import ContentStore, DirectoryContent, S3Content
from models.errors import IntegrityError, OutputError, StoreError


@pytest.fixture(params=["directory", "s3"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> ContentStore:
    if request.param == "directory":
        return DirectoryContent(tmp_path / "content")
    store: ObjectStore = request.getfixturevalue("store")
    return S3Content(store, tmp_path / "content")


def _file(folder: Path, data: bytes, name: str = "file") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def test_a_file_comes_back_under_its_digest(home: ContentStore, tmp_path: Path) -> None:
    source = _file(tmp_path, b"some bytes")
    digest = home.put_file(source)
    assert digest == hashlib.sha256(b"some bytes").hexdigest()
    source.write_bytes(b"changed afterwards")
    assert home.fetch(digest).read_bytes() == b"some bytes"
    assert home.put_file(_file(tmp_path, b"some bytes", "again")) == digest


def test_records(home: ContentStore) -> None:
    key = "0" * 64
    assert home.get_record("gate", key) is None
    home.put_record("gate", key, {"verdict": "passed", "n": 3})
    assert home.get_record("gate", key) == {"n": 3, "verdict": "passed"}
    home.put_record("gate", key, {"verdict": "recomputed"})
    assert home.get_record("gate", key) == {"verdict": "recomputed"}


def test_unknown_blob_and_unusable_names(home: ContentStore) -> None:
    with pytest.raises(StoreError, match=r"no (blob|object)"):
        home.fetch("0" * 64)
    for digest in ("../" + "0" * 61, "0" * 63, "G" * 64, "", "0" * 64 + "\n"):
        with pytest.raises(StoreError, match="not a SHA-256 digest"):
            home.fetch(digest)
    for stage, key in (("..", "k"), ("a/b", "k"), ("a", "../k"), ("a", "")):
        with pytest.raises(StoreError, match="not a plain name"):
            home.put_record(stage, key, {})
        with pytest.raises(StoreError, match="not a plain name"):
            home.get_record(stage, key)


def test_second_put_uploads_nothing(
    content: S3Content, store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = _file(tmp_path, b"x" * 1000)
    digest = content.put_file(source)

    def refuse(key: str, path: Path) -> None:
        raise AssertionError(f"uploaded {key} again")

    monkeypatch.setattr(store, "put_file", refuse)
    assert content.put_file(source) == digest
    assert S3Content(store, tmp_path / "another machine").put_file(source) == digest


def test_altered_blob_is_never_returned(content: S3Content, store: ObjectStore, tmp_path: Path) -> None:
    digest = content.put_file(_file(tmp_path, b"genuine"))
    store.put(f"blobs/sha256/{digest}", b"forgery")
    fresh = S3Content(store, tmp_path / "another machine")
    with pytest.raises(IntegrityError, match=digest):
        fresh.fetch(digest)
    assert list((tmp_path / "another machine").rglob("*.*")) == []
    assert not (tmp_path / "another machine" / "blobs" / "sha256" / digest).exists()


def test_damaged_cache_is_fetched_again(content: S3Content, tmp_path: Path) -> None:
    digest = content.put_file(_file(tmp_path, b"genuine"))
    cached = content.fetch(digest)
    cached.chmod(0o600)
    cached.write_bytes(b"damaged")
    assert content.fetch(digest).read_bytes() == b"genuine"


def test_truncated_blob_is_put_right_by_the_next_put(
    content: S3Content, store: ObjectStore, tmp_path: Path
) -> None:
    source = _file(tmp_path, b"genuine")
    digest = content.put_file(source)
    store.put(f"blobs/sha256/{digest}", b"gen")
    content.put_file(source)
    assert store.get(f"blobs/sha256/{digest}") == b"genuine"


def test_altered_directory_blob(tmp_path: Path) -> None:
    home = DirectoryContent(tmp_path / "content")
    digest = home.put_file(_file(tmp_path, b"genuine"))
    path = home.fetch(digest)
    path.chmod(0o600)
    path.write_bytes(b"forgery")
    with pytest.raises(IntegrityError, match="delete it and run again"):
        home.fetch(digest)
    home.put_file(_file(tmp_path, b"genuine"))
    assert home.fetch(digest).read_bytes() == b"genuine"


def test_half_a_record_is_an_error_and_never_written_by_us(tmp_path: Path) -> None:
    home = DirectoryContent(tmp_path / "content")
    home.put_record("gate", "key", {"a": 1})
    path = tmp_path / "content" / "stages" / "gate" / "key.json"
    assert path.read_bytes() == b'{"a":1}'
    with pytest.raises(ValueError, match="JSON compliant"):
        home.put_record("gate", "key", {"a": float("nan")})
    assert path.read_bytes() == b'{"a":1}'
    assert [p.name for p in path.parent.iterdir()] == ["key.json"]
    path.write_bytes(b'{"a":')
    with pytest.raises(StoreError, match="not a JSON object"):
        home.get_record("gate", "key")


def test_unwritable_folder_is_named(tmp_path: Path) -> None:
    blocker = _file(tmp_path, b"", "blocker")
    home = DirectoryContent(blocker / "content")
    with pytest.raises(OutputError, match="cannot write below"):
        home.put_record("gate", "key", {})
    with pytest.raises(OutputError, match="cannot write below"):
        home.put_file(blocker)
