"""A file of frames, opened: its labels in memory, its log-mel on disk, read a few rows at a time.

`infra.data.features` writes these files and reads them whole; that module would bring pandas into every actor of a federation,
and a whole file into its memory.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from models.config import LogMelConfig
from models.errors import DataError
from models.frames import CALL, UNKNOWN

_META: Final = "cryfed.frames"
_LABELS: Final = ("clip", "view", "gate", "reason", "part")
_BATCH: Final = 256


@dataclass(frozen=True)
class FramesFile:
    """Labels by name as in `models.frames.SiteFrames`, `infant`: the group of each clip, numbered within the file, and `call`.

    Attributes:
        path: the file.
        reasons: its label set.
        labels: `clip` and `view` (N,) by frame; `gate`, `reason`, `part`, `infant` and `call` (is it a synthetic call?) by clip.
    """

    path: Path
    reasons: tuple[str, ...]
    labels: dict[str, npt.NDArray]

    @classmethod
    def open(cls, path: Path, reasons: tuple[str, ...], mel: LogMelConfig) -> FramesFile:
        """Read and check the labels.

        Raises:
            DataError: not such a file, or of other reasons or another front end than the network's.
        """
        try:
            with safe_open(path, framework="numpy") as file:
                labels = {name: file.get_tensor(name) for name in _LABELS}
                described = json.loads((file.metadata() or {}).get(_META, "{}"))
                shape = tuple(file.get_slice("log_mel").get_shape())
        except (OSError, SafetensorError, ValueError) as err:
            raise DataError(f"cannot read the site's features {path}: {err}; extract them again") from None
        if described.get("reasons") != list(reasons):
            raise DataError(
                f"{path} numbers its reasons as {described.get('reasons')}, the network as {list(reasons)}: extract them again"
            )
        n_clips = len(labels["gate"])
        clip, groups = labels["clip"], described.get("group")
        if not isinstance(groups, list) or len(groups) != n_clips:
            raise DataError(
                f"{path} does not name the group of each of its {n_clips} clips; extract them again"
            )
        names = described.get("label", [""] * n_clips)
        if not isinstance(names, list) or len(names) != n_clips:
            raise DataError(
                f"{path} does not name the label of each of its {n_clips} clips; extract them again"
            )
        labels["call"] = np.array(names, dtype=str) == CALL
        labels["infant"] = np.unique(np.array(groups, dtype=str), return_inverse=True)[1].astype(np.int32)
        if (
            len(shape) != 3
            or clip.shape != (shape[0],)
            or (len(clip) and not 0 <= clip.min() <= clip.max() < n_clips)
        ):
            raise DataError(
                f"{path}: its frames {shape} and clips ({n_clips}) do not fit together; extract them again"
            )
        if shape[1:] != (mel.n_mels, mel.n_frames):
            raise DataError(
                f"{path} holds frames of {shape[1:]}, the network takes {(mel.n_mels, mel.n_frames)} (mel bins, frames): "
                "extract the features with the network's own front end"
            )
        return cls(path, reasons, labels)

    @property
    def part(self) -> npt.NDArray[np.int8]:
        """TRAIN, VAL or TEST by frame."""
        part: npt.NDArray[np.int8] = self.labels["part"][self.labels["clip"]]
        return part

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """By frame, whether its clip has a gate label."""
        known: npt.NDArray[np.bool_] = (self.labels["gate"] != UNKNOWN)[self.labels["clip"]]
        return known

    def blocks(self, rows: npt.NDArray[np.intp], size: int = _BATCH) -> list[npt.NDArray[np.intp]]:
        """The rows (ascending) in pieces to be read one after the other."""
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def read(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float16]:
        """Log-mel float16 (len(rows), M, F) of ascending rows.

        Raises:
            DataError: the file can no longer be read.
        """
        try:
            with safe_open(self.path, framework="numpy") as file:
                frames = file.get_slice("log_mel")
                shape = frames.get_shape()
                out = np.empty((len(rows), *shape[1:]), np.float16)
                at = 0
                for some in self.blocks(rows):
                    first = int(some[0])
                    # one contiguous read, then the rows wanted of it: the whole file is never in memory
                    out[at : at + len(some)] = frames[first : int(some[-1]) + 1][some - first]
                    at += len(some)
                return out
        except (OSError, SafetensorError) as err:
            raise DataError(
                f"cannot read the site's features {self.path}: {err}; extract them again"
            ) from None
