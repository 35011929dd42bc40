"""Engines, each under everything that it depends on: graph, SoC, JetPack, TensorRT, flags.

    <folder>/<key>-<sha256 of the engine>.engine

An engine appears under its name by one rename, whole and synced; its digest is part of the name, so one that rotted on the disk
is found out and removed instead of loaded. The folder is bounded in number and bytes; what was used least recently goes first.

Standard library only, Python 3.6. What is in the folder runs on the device's GPU: it must belong to the agent alone (mode 0700).
"""
# ruff: noqa: UP006, UP035, UP045

import contextlib
import hashlib
import json
import os
import re
import stat
import tempfile
from pathlib import Path
from typing import List, NamedTuple, Optional, Tuple

from .errors import BuildFailed

_CHUNK = 1 << 20
_FILE = re.compile(r"^([0-9a-f]{64})-([0-9a-f]{64})\.engine$")


class EngineKey(NamedTuple):
    """Everything that an engine depends on."""

    onnx_sha256: str
    soc: str  # "t210", "orin-nano", … : engines are not portable across GPU architectures
    jetpack: str
    tensorrt: str
    flags: Tuple[str, ...]

    def digest(self) -> str:
        """64 hex digits."""
        document = [self.onnx_sha256, self.soc, self.jetpack, self.tensorrt, list(self.flags)]
        return hashlib.sha256(json.dumps(document, separators=(",", ":")).encode("utf-8")).hexdigest()


class EngineCache:
    """A folder of engines."""

    def __init__(self, folder: Path, *, max_engines: int = 4, max_bytes: int = 1 << 30) -> None:
        """Make the folder if there is none.

        Raises:
            ValueError: a bound below one.
            OSError: the folder cannot be made.
        """
        if max_engines < 1 or max_bytes < 1:
            raise ValueError(f"a cache of {max_engines} engines and {max_bytes} bytes holds nothing")
        self.folder, self.max_engines, self.max_bytes = folder, max_engines, max_bytes
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def get(self, key: EngineKey) -> Optional[Path]:
        """The engine of a key, verified; None if there is none, and a damaged one is removed."""
        for path, found in self._entries():
            if found[0] != key.digest():
                continue
            if _digest(path) == found[1]:
                # another process may replace it at any moment: then there is none
                with contextlib.suppress(OSError):
                    os.utime(str(path))
                    return path
            _remove(path)
        return None

    def put(self, key: EngineKey, engine: Path) -> Path:
        """Take a copy of an engine file, then make room; an older engine of the same key goes.

        Raises:
            BuildFailed: it is larger than the whole cache, no plain file, or empty.
            OSError: it cannot be written; that is the disk's fault and not the engine's.
        """
        temporary = None
        try:
            found = os.lstat(str(engine))
            if not stat.S_ISREG(found.st_mode) or not 0 < found.st_size <= self.max_bytes:
                raise BuildFailed(
                    f"{engine}: not an engine that fits ({found.st_size} bytes; the cache takes 1 to {self.max_bytes})"
                )
            handle, name = tempfile.mkstemp(prefix=".new-", dir=str(self.folder))
            temporary = Path(name)
            digest = hashlib.sha256()
            with os.fdopen(handle, "wb") as target, engine.open("rb") as source:
                for chunk in iter(lambda: source.read(_CHUNK), b""):
                    digest.update(chunk)
                    target.write(chunk)
                target.flush()
                os.fsync(target.fileno())
            final = self.folder / f"{key.digest()}-{digest.hexdigest()}.engine"
            temporary.replace(final)
            self._sync()
        finally:
            if temporary is not None:
                _remove(temporary)
        for path, names in self._entries():
            if names[0] == key.digest() and path != final:
                _remove(path)
        self._make_room(final)
        return final

    def size(self) -> Tuple[int, int]:
        """Engines and bytes."""
        sizes = [size for _, size, _ in self._aged()]
        return len(sizes), sum(sizes)

    def clear_leftovers(self) -> None:
        """Remove what an interrupted `put` left; only while nobody else writes here."""
        for path in self.folder.glob(".new-*"):
            _remove(path)

    def _make_room(self, keep: Path) -> None:
        entries = self._aged()
        total = sum(size for _, size, _ in entries)
        count = len(entries)
        for _, size, path in sorted(entries):
            if count <= self.max_engines and total <= self.max_bytes:
                return
            if path != keep:
                _remove(path)
                count, total = count - 1, total - size

    def _aged(self) -> List[Tuple[float, int, Path]]:
        result = []
        for path, _ in self._entries():
            with contextlib.suppress(FileNotFoundError):
                found = path.stat()
                result.append((found.st_mtime, found.st_size, path))
        return result

    def _entries(self) -> List[Tuple[Path, Tuple[str, str]]]:
        result = []
        for path in sorted(self.folder.iterdir()):
            found = _FILE.match(path.name)
            # a link is nothing that `put` made
            if found and not path.is_symlink() and path.is_file():
                result.append((path, (found.group(1), found.group(2))))
        return result

    def _sync(self) -> None:
        handle = os.open(str(self.folder), os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            for chunk in iter(lambda: file.read(_CHUNK), b""):
                digest.update(chunk)
    except OSError:
        return ""
    return digest.hexdigest()


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # gone already, or not ours to remove: it is not used in either case
        path.unlink()
