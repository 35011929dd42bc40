"""One file from the store: resumed where it broke off, never past its announced size, not below the lowest rate."""

import contextlib
from pathlib import Path

from .disk import Disk, copy
from .errors import MixAndMatch, StoreUnreachable, TooLarge
from .manifest import File
from .slots import Slots, digest_file
from .store import CHUNK, Pace, Store

_ATTEMPTS = (
    5  # in a row without a single new byte; a broken line is resumed, a dead one left to the next poll
)


def blob_key(entry: File) -> str:
    """Where a file's bytes lie in the store."""
    return f"blobs/sha256/{entry.sha256}"


def fetch(store: Store, slots: Slots, slot: str, name: str, entry: File) -> None:
    """Put a file of a bundle into a slot.

    Raises:
        TooLarge: the store sends more than was announced.
        MixAndMatch: it sends other bytes.
        TooSlow, StoreUnreachable: they do not come.
        NoSpace: the disk is full.
    """
    part = slots.downloads / f"{entry.sha256}.part"
    twin = slots.twin(entry)
    if twin is not None:
        slots.disk.remove(part)
        with twin.open("rb") as source, part.open("wb") as file:
            copy(source, slots.disk, file, part)
    resumed = part.exists() and part.stat().st_size > 0
    if not _complete(store, slots.disk, part, entry) and resumed:
        # what lay there from before may have suffered from a power cut: once more, from the first byte
        slots.disk.remove(part)
        resumed = False
        _complete(store, slots.disk, part, entry)
    if not part.exists():
        raise MixAndMatch(f"{name}: the store's bytes do not have the announced SHA-256 {entry.sha256[:12]}…")
    slots.adopt(part, slot, name)


def _complete(store: Store, disk: Disk, part: Path, entry: File) -> bool:
    """Fill a partial download; False, and it is gone, where the bytes are not the announced ones."""
    have = part.stat().st_size if part.exists() else 0
    if have > entry.size:
        disk.remove(part)
        return False
    failures, pace = 0, store.pace()
    with disk.errors(str(part)):
        part.touch()
    while have < entry.size:
        try:
            now = _receive(store, disk, part, entry, have, pace)
            pace.add(0, blob_key(entry))
            failures = 0 if now > have else failures + 1
            have = now
            if failures >= _ATTEMPTS:
                raise StoreUnreachable(f"{blob_key(entry)}: it broke off {failures} times without a new byte")
        except TooLarge:
            disk.remove(part)
            raise
    disk.finish(part)
    if digest_file(part) != entry.sha256:
        disk.remove(part)
        return False
    return True


def _receive(store: Store, disk: Disk, part: Path, entry: File, have: int, pace: Pace) -> int:
    """Read on until the end or a break; returns how many bytes are there now."""
    key = blob_key(entry)
    stream = store.open(key, have)
    if stream is None:
        raise StoreUnreachable(f"{key}: the store does not have it")
    with contextlib.closing(stream):
        if stream.total is not None and stream.total > entry.size:
            raise TooLarge(f"{key}: {stream.total} bytes where {entry.size} were announced")
        have = stream.offset  # a store that cannot begin in the middle begins anew
        with disk.errors(str(part)), part.open("rb+") as file:
            file.truncate(have)
            file.seek(have)
            while have <= entry.size:
                try:
                    # one byte more than is wanted, to see whether it ends there
                    chunk = stream.read(min(CHUNK, entry.size + 1 - have))
                except StoreUnreachable:
                    break
                if not chunk:
                    break
                have += len(chunk)
                if have > entry.size:
                    raise TooLarge(f"{key}: it goes on after the announced {entry.size} bytes")
                disk.append(file, part, chunk)
                pace.add(len(chunk), key)
    return have
