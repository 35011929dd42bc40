"""A corpus by URL: bounded, checked against a SHA-256 before anything is unpacked, and unpacked inside its folder alone."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from models.errors import ConfigError, DataError, IntegrityError, OutputError

MAX_DOWNLOAD: Final = 4 * 2**30
MAX_UNPACKED: Final = 16 * 2**30
_CHUNK: Final = 1 << 20
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


def download(
    url: str,
    sha256: str,
    dest: Path,
    *,
    max_bytes: int = MAX_DOWNLOAD,
    timeout_s: float = 60.0,
    on_bytes: Callable[[int], None] | None = None,
) -> Path:
    """Fetch `url` to `dest`, which appears only once the hash is right; a file that is there with that hash is kept.

    Raises:
        ConfigError: the URL is not HTTPS, or the hash is no SHA-256.
        DataError: the server is out of reach or refuses, or sends more than `max_bytes`.
        IntegrityError: the bytes are not those of the hash.
        OutputError: `dest` cannot be written.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise ConfigError(f"{url}: only https:// addresses are fetched")
    sha256 = sha256.lower()
    if len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
        raise ConfigError(
            "a download needs its SHA-256 as 64 hex digits (--sha256), so that it is what you expect"
        )
    if dest.is_file() and _hash(dest) == sha256:
        return dest
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=dest.parent, prefix=".part-", delete=False) as part:
            temporary = Path(part.name)
    except OSError as err:
        raise OutputError(f"cannot write {dest}: {err.strerror or err}; choose another folder") from None
    try:
        found = _stream(url, temporary, max_bytes, timeout_s, on_bytes)
        if found != sha256:
            raise IntegrityError(f"{url}: its SHA-256 is {found}, expected {sha256}; nothing was kept")
        temporary.replace(dest)
    finally:
        temporary.unlink(missing_ok=True)
    return dest


def _stream(
    url: str, path: Path, max_bytes: int, timeout_s: float, on_bytes: Callable[[int], None] | None
) -> str:
    sha, total = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer, path.open("wb") as file:  # noqa: S310 (scheme checked)
            while chunk := answer.read(_CHUNK):
                total += len(chunk)
                if total > max_bytes:
                    raise DataError(f"{url}: more than {max_bytes} bytes; nothing was kept")
                sha.update(chunk)
                file.write(chunk)
                if on_bytes is not None:
                    on_bytes(total)
    except (urllib.error.URLError, OSError, ValueError) as err:
        raise DataError(f"{url} cannot be fetched: {err}") from None
    return sha.hexdigest()


def unpack(archive: Path, folder: Path, *, max_bytes: int = MAX_UNPACKED) -> Path:
    """Unpack a zip or tar archive to `folder`, which appears only when all is there and must not exist yet.

    An archive that wraps one folder gives that folder. Links, devices and names that lead outside are refused.

    Raises:
        DataError: no archive, one that is too large, or one that would write elsewhere.
        OutputError: the folder exists already or cannot be written.
    """
    if folder.exists():
        raise OutputError(f"{folder} exists already; remove it or choose another folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        room = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".unpack-"))
    except OSError as err:
        raise OutputError(f"cannot write {folder}: {err.strerror or err}; choose another folder") from None
    try:
        if zipfile.is_zipfile(archive):
            _unzip(archive, room, max_bytes)
        elif tarfile.is_tarfile(archive):
            _untar(archive, room, max_bytes)
        else:
            raise DataError(f"{archive} is neither zip nor tar")
        inside = list(room.iterdir())
        top = inside[0] if len(inside) == 1 and inside[0].is_dir() else room  # most archives wrap one folder
        top.chmod(0o755)
        top.replace(folder)
    except (OSError, tarfile.TarError, zipfile.BadZipFile) as err:
        raise DataError(f"{archive} cannot be unpacked: {err}") from None
    finally:
        shutil.rmtree(room, ignore_errors=True)
    return folder


def _unzip(archive: Path, room: Path, max_bytes: int) -> None:
    with zipfile.ZipFile(archive) as source:
        items = source.infolist()
        _check_size(archive, sum(i.file_size for i in items), max_bytes)
        for item in items:
            target = (room / item.filename).resolve()
            if not target.is_relative_to(room.resolve()) or (item.external_attr >> 28) == 0xA:
                raise DataError(
                    f"{archive}: {item.filename!r} would be written outside its folder; nothing was unpacked"
                )
        source.extractall(room)  # noqa: S202 (every name and the total size were checked above)


def _untar(archive: Path, room: Path, max_bytes: int) -> None:
    with tarfile.open(archive) as source:
        items = source.getmembers()
        _check_size(archive, sum(i.size for i in items), max_bytes)
        if odd := [i.name for i in items if not (i.isfile() or i.isdir())]:
            raise DataError(f"{archive}: {odd[0]!r} is a link or device; nothing was unpacked")
        source.extractall(room, filter="data")


def _check_size(archive: Path, total: int, max_bytes: int) -> None:
    if total > max_bytes:
        raise DataError(f"{archive} unpacks to {total} bytes, the limit is {max_bytes}; nothing was unpacked")


def _hash(path: Path) -> str:
    from infra.digest import digest_file

    return digest_file(path)
