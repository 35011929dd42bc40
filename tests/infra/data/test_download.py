"""Downloads against a real server on loopback, and archives that want to write where they must not."""

from __future__ import annotations

import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from infra.data.download import download, unpack
from infra.digest import digest_bytes
from models.errors import ConfigError, DataError, IntegrityError, OutputError


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_only_the_expected_bytes_appear(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = served
    data = bytes(range(256)) * 10_000
    (folder / "a.bin").write_bytes(data)
    dest = tmp_path / "got" / "a.bin"
    with pytest.raises(IntegrityError, match="nothing was kept"):
        download(f"{url}/a.bin", "0" * 64, dest)
    with pytest.raises(DataError, match="more than 1000 bytes"):
        download(f"{url}/a.bin", digest_bytes(data), dest, max_bytes=1000)
    with pytest.raises(DataError, match="404"):
        download(f"{url}/b.bin", "0" * 64, dest)
    assert list(dest.parent.iterdir()) == []
    seen: list[int] = []
    assert (
        download(f"{url}/a.bin", digest_bytes(data).upper(), dest, on_bytes=seen.append).read_bytes() == data
    )
    assert seen[-1] == len(data)
    (folder / "a.bin").unlink()
    assert download(f"{url}/a.bin", digest_bytes(data), dest) == dest, "what is there is not fetched again"


@pytest.mark.parametrize("url", ["http://example.org/a.zip", "file:///etc/passwd", "ftp://127.0.0.1/a"])
def test_only_https_is_fetched(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="only https"):
        download(url, "0" * 64, tmp_path / "a")


def test_a_hash_is_required(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs its SHA-256"):
        download("https://example.org/a.zip", "", tmp_path / "a")


def make_zip(path: Path, names: dict[str, bytes], link: str | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as z:
        for name, data in names.items():
            z.writestr(name, data)
        if link:
            info = zipfile.ZipInfo(link)
            info.external_attr = 0xA1FF << 16
            z.writestr(info, "/etc")
    return path


def make_tar(path: Path, names: dict[str, bytes], link: str | None = None) -> Path:
    with tarfile.open(path, "w:gz") as t:
        for name, data in names.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            t.addfile(info, io.BytesIO(data))
        if link:
            info = tarfile.TarInfo(link)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc"
            t.addfile(info)
    return path


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_archives_unpack_without_their_wrapping_folder(make, tmp_path: Path) -> None:
    archive = make(tmp_path / "a", {"corpus-main/audio/1.wav": b"x", "corpus-main/meta/t.csv": b"y"})
    folder = unpack(archive, tmp_path / "corpus")
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.*")) == [
        "audio/1.wav",
        "meta/t.csv",
    ]
    with pytest.raises(OutputError, match="exists already"):
        unpack(archive, folder)


@pytest.mark.parametrize(
    ("make", "names", "link"),
    [
        (make_zip, {"ok": b"", "../out.txt": b"x"}, None), (make_tar, {"ok": b"", "../out.txt": b"x"}, None),
        (make_zip, {"ok": b"", "/tmp/out.txt": b"x"}, None),  # tar's own filter writes this one inside
        (make_zip, {"ok": b""}, "link"), (make_tar, {"ok": b""}, "link"),
    ],
)  # fmt: skip
def test_archives_cannot_write_outside(
    make, names: dict[str, bytes], link: str | None, tmp_path: Path
) -> None:
    archive = make(tmp_path / "a", names, link)
    with pytest.raises(DataError):
        unpack(archive, tmp_path / "x" / "corpus")
    assert not (tmp_path / "out.txt").exists()
    assert list((tmp_path / "x").iterdir()) == []


def test_bombs_and_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unpacks to 1000000 bytes"):
        unpack(make_zip(tmp_path / "z", {"a": bytes(10**6)}), tmp_path / "c", max_bytes=1000)
    (tmp_path / "t").write_text("hello")
    with pytest.raises(DataError, match="neither zip nor tar"):
        unpack(tmp_path / "t", tmp_path / "c")
    assert not (tmp_path / "c").exists()
