"""Engines by everything that they depend on: bounded, whole or absent."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from infra.edge.tensorrt.cache import EngineCache, EngineKey
from infra.edge.tensorrt.errors import BuildFailed

KEY = EngineKey("a" * 64, "t210", "4.6.1", "8.2.1", ("--fp16",))


def engine(tmp_path: Path, data: bytes, name: str = "built") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


def test_there_and_back(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "cache")
    assert cache.get(KEY) is None
    kept = cache.put(KEY, engine(tmp_path, b"one"))
    assert kept.read_bytes() == b"one"
    assert EngineCache(tmp_path / "cache").get(KEY) == kept
    assert (tmp_path / "built").exists()
    assert oct((tmp_path / "cache").stat().st_mode & 0o777) == "0o700"


@pytest.mark.parametrize(
    "other",
    [
        KEY._replace(onnx_sha256="b" * 64),
        KEY._replace(soc="t234"),
        KEY._replace(jetpack="4.6.4"),
        KEY._replace(tensorrt="8.2.3"),
        KEY._replace(flags=()),
        KEY._replace(flags=("--fp16", "--x")),
        KEY._replace(soc="t2104.6.1", jetpack=""),
    ],
)
def test_nothing_else_is_mistaken_for_it(tmp_path: Path, other: EngineKey) -> None:
    cache = EngineCache(tmp_path / "cache")
    cache.put(KEY, engine(tmp_path, b"one"))
    assert cache.get(other) is None


def test_a_newer_engine_replaces_the_older(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "cache")
    cache.put(KEY, engine(tmp_path, b"one"))
    kept = cache.put(KEY, engine(tmp_path, b"two, longer"))
    assert cache.get(KEY) == kept
    assert kept.read_bytes() == b"two, longer"
    assert cache.size() == (1, 11)


def test_a_damaged_engine_is_removed(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "cache")
    kept = cache.put(KEY, engine(tmp_path, b"whole"))
    kept.write_bytes(b"whola")
    assert cache.get(KEY) is None
    assert not kept.exists()
    assert cache.size() == (0, 0)


def test_least_recently_used_goes_first(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "cache", max_engines=2)
    keys = [KEY._replace(soc=name) for name in ("a", "b", "c")]
    for age, key in enumerate(keys[:2]):
        path = cache.put(key, engine(tmp_path, b"x"))
        os.utime(path, (1000 + age, 1000 + age))
    assert cache.get(keys[0]) is not None  # now the newest
    cache.put(keys[2], engine(tmp_path, b"y"))
    assert [cache.get(key) is not None for key in keys] == [True, False, True]


def test_bytes_are_bounded(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "cache", max_bytes=100)
    first = cache.put(KEY._replace(soc="a"), engine(tmp_path, b"x" * 60))
    os.utime(first, (1, 1))
    cache.put(KEY._replace(soc="b"), engine(tmp_path, b"y" * 60))
    assert cache.size() == (1, 60)
    for data in (b"", b"z" * 101):
        with pytest.raises(BuildFailed, match="not an engine that fits"):
            cache.put(KEY, engine(tmp_path, data))
    assert cache.size() == (1, 60)


def test_links_are_neither_taken_nor_given(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "cache")
    source = engine(tmp_path, b"elsewhere")
    link = tmp_path / "link"
    link.symlink_to(source)
    with pytest.raises(BuildFailed, match="not an engine"):
        cache.put(KEY, link)
    kept = cache.put(KEY, source)
    source.write_bytes(b"elsewhere")
    kept.unlink()
    kept.symlink_to(source)
    assert cache.get(KEY) is None


def test_an_interrupted_put_leaves_nothing_that_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = EngineCache(tmp_path / "cache")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        cache.put(KEY, engine(tmp_path, b"one"))
    assert list((tmp_path / "cache").iterdir()) == []
    monkeypatch.undo()
    # what a power cut leaves is not an engine, and can be swept
    (tmp_path / "cache/.new-abc").write_bytes(b"half")
    assert cache.get(KEY) is None
    cache.clear_leftovers()
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_engine_appears_by_one_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = EngineCache(tmp_path / "cache")

    def cut_off(self: Path, target: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "replace", cut_off)
    with pytest.raises(OSError, match="Input/output error"):
        cache.put(KEY, engine(tmp_path, b"one"))
    assert list((tmp_path / "cache").iterdir()) == []


def test_readers_see_whole_engines_while_others_write(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "cache")
    versions = [bytes([k]) * 200_000 for k in range(6)]
    cache.put(KEY, engine(tmp_path, versions[0]))
    torn: list[int] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            found = cache.get(KEY)
            try:
                data = found.read_bytes() if found else versions[0]
            except FileNotFoundError:  # replaced between the two calls
                continue
            if data not in versions:
                torn.append(len(data))

    reader = threading.Thread(target=read)
    reader.start()
    for k, data in enumerate(versions * 3):
        cache.put(KEY, engine(tmp_path, data, f"built{k}"))
    done.set()
    reader.join()
    assert torn == []
    assert cache.size() == (1, 200_000)


def test_bounds_make_sense(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds nothing"):
        EngineCache(tmp_path, max_engines=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        EngineCache(tmp_path / "file/cache")
