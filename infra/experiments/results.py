"""Finished cells as lines of a file: each is written at once and found again after a kill.

A line that was cut short by a kill is dropped when the file is opened, so that its cell is computed again. One process writes
at a time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from infra.digest import canonical_json
from models.errors import ConflictError, IntegrityError, OutputError

Record = dict[str, Any]


class Results:
    """The results of one file, by key."""

    def __init__(self, path: Path, found: dict[str, Record]) -> None:
        self._path, self._found = path, found

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def __getitem__(self, key: str) -> Record:
        return self._found[key]

    def add(self, key: str, result: Mapping[str, Any]) -> None:
        """File one result; on return it is on disk.

        Raises:
            OutputError: it cannot be written.
        """
        try:
            with self._path.open("ab") as file:
                file.write(canonical_json({"key": key, **result}) + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as err:
            raise OutputError(f"cannot write {self._path}: {err.strerror}; free some space") from None
        self._found[key] = dict(result)


@contextmanager
def open_results(path: Path) -> Iterator[Results]:
    """The results that are there, to read and to add to.

    Raises:
        ConflictError: another process writes them.
        IntegrityError: a line other than a last, cut one is not a result.
        OutputError: the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as err:
        raise OutputError(f"cannot write {path}: {err.strerror}; choose another folder") from None
    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConflictError(f"another run writes {path}: wait for it, or choose another folder") from None
    try:
        yield Results(path, _read(path))
    finally:
        lock.release()


def _read(path: Path) -> dict[str, Record]:
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.truncate(path, len(whole))
    found: dict[str, Record] = {}
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            record = json.loads(line)
            found[str(record.pop("key"))] = record
        except (ValueError, KeyError, AttributeError, TypeError):
            raise IntegrityError(
                f"{path}, line {number} is no result: delete that line, its cell is computed again"
            ) from None
    return found
