"""Files of the federation: named arrays as safetensors, written so that a reader never sees half of one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from models.errors import IntegrityError, OutputError

Arrays = dict[str, npt.NDArray[Any]]


def encode_arrays(arrays: Arrays) -> bytes:
    """Arrays as safetensors bytes; equal arrays give equal bytes."""
    return save({name: np.ascontiguousarray(value) for name, value in sorted(arrays.items())})


def decode_arrays(data: bytes, where: str) -> Arrays:
    """Inverse of `encode_arrays`.

    Raises:
        IntegrityError: not safetensors.
    """
    try:
        return dict(load(data))
    except (SafetensorError, ValueError, KeyError) as err:
        raise IntegrityError(f"{where} is not a readable safetensors file ({err})") from None


def write_atomic(path: Path, data: bytes, *, private: bool = False) -> None:
    """Write beside, sync, rename: readers see the old file or the new one, also after a power cut.

    `private` files can be read by their owner alone.

    Raises:
        OutputError: the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(temporary, flags, 0o600 if private else 0o666), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as err:
        temporary.unlink(missing_ok=True)
        raise OutputError(
            f"cannot write {path}: {err.strerror}; choose another folder or free some space"
        ) from None
