"""Writing so that power loss leaves the old or the new, never half of either.

A file appears under its name by a rename, after its bytes are on the disk and before its folder is; a file that is
written in place (a download) counts for nothing until it was synced and renamed. `on_step` is called before and after
every such act with what happened to which path: tests end the process there.
"""

import contextlib
import errno
import json
import os
import shutil
from pathlib import Path
from typing import IO, Any, Callable, Iterator, Optional

from .documents import canonical_json, strict_json
from .errors import ConfigError, NoSpace

TEMPORARY = ".tmp"
_CHUNK = 2**18
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG)

OnStep = Callable[[str, Path], None]


def _nothing(step: str, path: Path) -> None:
    """No test looks on."""


class Disk:
    """All writing of an agent.

    `sync=False` is for simulations of many devices in one process, which have no power to lose.
    """

    def __init__(self, sync: bool = True, on_step: OnStep = _nothing) -> None:
        self.sync = sync
        self.step = on_step

    @contextlib.contextmanager
    def errors(self, what: str) -> Iterator[None]:
        """Disk errors as refusals.

        Raises:
            NoSpace: the disk is full or refuses.
        """
        try:
            yield
        except OSError as err:
            if err.errno in _DISK_ERRORS:
                raise NoSpace(f"cannot write {what}: {err.strerror}; make room, or check the disk") from None
            raise

    def write(self, path: Path, data: bytes) -> None:
        """Put a whole file in place, at once."""
        temporary = path.with_name(path.name + TEMPORARY)
        with self.errors(str(path)):
            with temporary.open("wb") as file:
                self.step("write", temporary)
                file.write(data)
                self._flush(file, temporary)
            self.rename(temporary, path)

    def write_json(self, path: Path, value: Any) -> None:
        """`write` of a JSON value."""
        self.write(path, canonical_json(value) + b"\n")

    def append(self, file: IO[bytes], path: Path, data: bytes) -> None:
        """Add to a file that is open; `finish` makes it count."""
        with self.errors(str(path)):
            self.step("write", path)
            file.write(data)

    def finish(self, path: Path) -> None:
        """Bring a file that this or another program wrote to the disk."""
        with self.errors(str(path)), path.open("rb+") as file:
            self._flush(file, path)

    def rename(self, source: Path, target: Path) -> None:
        """Rename, and bring the folders to the disk."""
        with self.errors(str(target)):
            self.step("rename", target)
            source.replace(target)
            self.step("renamed", target)
            self.sync_folder(target.parent)
            if source.parent != target.parent:
                self.sync_folder(source.parent)

    def point(self, link: Path, target: str) -> None:
        """Make a symbolic link point elsewhere, at once."""
        temporary = link.with_name(link.name + TEMPORARY)
        with self.errors(str(link)):
            self.remove(temporary)
            temporary.symlink_to(target)
            self.rename(temporary, link)

    def make_folder(self, path: Path) -> None:
        """Make a folder and those above it."""
        if path.is_dir():
            return
        with self.errors(str(path)):
            self.make_folder(path.parent)
            path.mkdir()
            self.step("mkdir", path)
            self.sync_folder(path.parent)

    def remove(self, path: Path) -> None:
        """Remove a file, link or folder, whatever is there."""
        if path.is_dir() and not path.is_symlink():
            self.step("remove", path)
            shutil.rmtree(str(path))
        elif path.exists() or path.is_symlink():
            self.step("remove", path)
            path.unlink()
        else:
            return
        self.sync_folder(path.parent)
        self.step("removed", path)

    def sync_folder(self, path: Path) -> None:
        """Bring a folder's entries to the disk."""
        if not self.sync:
            return
        handle = os.open(str(path), os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        self.step("synced", path)

    def _flush(self, file: IO[bytes], path: Path) -> None:
        self.step("flush", path)
        file.flush()
        if self.sync:
            os.fsync(file.fileno())
        self.step("flushed", path)


def copy(source: IO[bytes], disk: Disk, file: IO[bytes], path: Path) -> None:
    """Append what is left of one file to another."""
    while True:
        chunk = source.read(_CHUNK)
        if not chunk:
            return
        disk.append(file, path, chunk)


def read_json(path: Path, limit: int) -> Optional[Any]:
    """A JSON file of the agent's own, None where there is none.

    Raises:
        ConfigError: larger than `limit` bytes, or not JSON.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        return None
    try:
        if len(data) > limit:
            raise ValueError("too large")
        return strict_json(data)
    except ValueError as err:
        raise ConfigError(
            f"{path}: damaged ({err}); remove it if the device may forget what it knew"
        ) from None


def dump(value: Any) -> str:
    """A JSON value for people."""
    return json.dumps(value, indent=2, sort_keys=True)
