"""Where documents and files come from, behind one small interface: a folder, or a bucket over S3.

| to …                                   | call                    |
|----------------------------------------|-------------------------|
| read a document                        | `get(key, max_bytes)`   |
| read a file, from where it broke off   | `open(key, offset)`     |
| leave a report                         | `put(key, data)`        |

The store is not trusted: it is bounded in bytes here and in rate by `Pace`; what it says is checked by `trusted`.
"""

import abc
import os
import time
from pathlib import Path
from typing import Callable, Optional

from .errors import Extraneous, StoreUnreachable, TooLarge, TooSlow

CHUNK = 2**16


class Pace:
    """Lowest rate and patience: the bytes of any `patience` seconds have to reach `rate` bytes a second.

    One pace goes with one object, however many connections it takes: a store that breaks off is not faster for it.

    Raises (from `add`):
        TooSlow: they do not.
    """

    def __init__(self, rate: int, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._patience, self._clock = rate, patience, clock
        self._since, self._bytes = clock(), 0

    def add(self, count: int, key: str) -> None:
        """So many bytes came just now."""
        now = self._clock()
        self._bytes += count
        passed = now - self._since
        if passed >= self._patience:
            if self._bytes < self._rate * passed:
                raise TooSlow(
                    f"{key}: {self._bytes} bytes in {passed:.0f} s; at least {self._rate} a second are wanted"
                )
            self._since, self._bytes = now, 0


class Stream(abc.ABC):
    """An object being read."""

    offset = 0  # where it begins; 0 also where the store cannot begin elsewhere
    total = None  # type: Optional[int]  # bytes of the whole object, as far as the store says

    @abc.abstractmethod
    def read(self, count: int) -> bytes:
        """Up to `count` bytes, what has come; empty at the end.

        Raises:
            StoreUnreachable: it broke off.
            TooSlow: nothing came for longer than the patience.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of the connection."""


class Store(abc.ABC):
    """One place of one fleet."""

    @abc.abstractmethod
    def open(self, key: str, offset: int = 0) -> Optional[Stream]:
        """Read an object from `offset` bytes on, None where there is none.

        Raises:
            StoreUnreachable, TooSlow: it does not answer.
        """

    @abc.abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Write an object.

        Raises:
            StoreUnreachable, TooSlow: it does not take it.
        """

    def pace(self) -> Pace:
        """The lowest rate at which this store is read."""
        return Pace(0, 3600.0)

    def get(self, key: str, max_bytes: int) -> Optional[bytes]:
        """A whole object, None where there is none.

        Raises:
            TooLarge: more than `max_bytes`.
            StoreUnreachable, TooSlow: it does not come.
        """
        stream = self.open(key)
        if stream is None:
            return None
        pace, parts, count = self.pace(), [], 0
        try:
            if stream.total is not None and stream.total > max_bytes:
                raise TooLarge(f"{key}: {stream.total} bytes are announced; at most {max_bytes} belong there")
            while True:
                chunk = stream.read(CHUNK)
                if not chunk:
                    break
                count += len(chunk)
                if count > max_bytes:
                    raise TooLarge(f"{key}: it goes on after {max_bytes} bytes, the most that belong there")
                pace.add(len(chunk), key)
                parts.append(chunk)
        finally:
            stream.close()
        if stream.total is not None and count != stream.total:
            raise StoreUnreachable(f"{key}: broke off after {count} of {stream.total} bytes")
        return b"".join(parts)


class DirectoryStore(Store):
    """A folder with the layout of the bucket: a USB stick, a mounted share, a simulation."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, key: str, offset: int = 0) -> Optional[Stream]:
        """See `Store`."""
        try:
            return _FileStream(self._path(key), offset)
        except (FileNotFoundError, NotADirectoryError):
            if not self.folder.is_dir():
                raise StoreUnreachable(f"{self.folder}: no such folder; is it mounted?") from None
            return None
        except OSError as err:
            raise StoreUnreachable(f"{key}: cannot be read ({err.strerror})") from None

    def put(self, key: str, data: bytes) -> None:
        """See `Store`."""
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            temporary.write_bytes(data)
            temporary.replace(path)
        except OSError as err:
            raise StoreUnreachable(f"{key}: cannot be written ({err.strerror})") from None

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        if any(part in ("", ".", "..") for part in parts):
            raise Extraneous(f"{key!r} is not a key of the store")
        return self.folder.joinpath(*parts)


class _FileStream(Stream):
    def __init__(self, path: Path, offset: int) -> None:
        self._file = path.open("rb")
        self.offset = self._file.seek(offset)
        self.total = os.fstat(self._file.fileno()).st_size

    def read(self, count: int) -> bytes:
        try:
            return self._file.read(count)
        except OSError as err:
            raise StoreUnreachable(f"{self._file.name}: cannot be read ({err.strerror})") from None

    def close(self) -> None:
        self._file.close()
