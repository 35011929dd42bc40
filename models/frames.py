"""What the network learns from at one site: log-mel frames, and the clips they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from models.errors import DataError

TRAIN: Final = 0
VAL: Final = 1
TEST: Final = 2
PART_NAMES: Final = ("train", "val", "test")
UNKNOWN: Final = -1


CALL: Final = "call"
"""Label of the synthetic calls among public noise: sounds that are learned as non-cries, and are no background."""

CALL_SHARE: Final = 0.25
"""Of the public non-cries that are drawn: calls, however many there are."""


@dataclass(frozen=True)
class SiteFrames:
    """One site's one-second frames, VAD-kept, with their clips.

    A *view* is one rendering of a clip: view 0 is the clip as recorded; others have noise mixed in at `snr_db` and, in
    training, a gain. Frames of one (clip, view) are scored together: a clip's score comes from them (`models.predict`).

    Frame arrays, length N: `log_mel` float16 (N, M, F); `clip` int32 index into the clip arrays; `view` int16;
    `snr_db` float32, NaN where no noise was added.
    Clip arrays, length n: `gate` int8 (1 infant cry, 0 not, -1 unknown); `reason` int16 index into `reasons`, -1 none;
    `part` int8 (TRAIN, VAL, TEST); `group`, `clip_id` and `label` str (`clip_id` = first 16 hex digits of its sha256).
    """

    site: str
    reasons: tuple[str, ...]
    log_mel: npt.NDArray[np.float16]
    clip: npt.NDArray[np.int32]
    view: npt.NDArray[np.int16]
    snr_db: npt.NDArray[np.float32]
    gate: npt.NDArray[np.int8]
    reason: npt.NDArray[np.int16]
    part: npt.NDArray[np.int8]
    group: npt.NDArray[np.str_]
    clip_id: npt.NDArray[np.str_]
    label: npt.NDArray[np.str_]

    def select(self, rows: npt.NDArray) -> SiteFrames:
        """The frames of a mask (N,) or of indices; the clips stay as they are."""
        return replace(
            self,
            log_mel=self.log_mel[rows],
            clip=self.clip[rows],
            view=self.view[rows],
            snr_db=self.snr_db[rows],
        )


def concat_frames(parts: Sequence[SiteFrames]) -> SiteFrames:
    """Frames and clips of several, one after the other, under the first one's site.

    Raises:
        DataError: none given, or their reasons differ.
    """
    if not parts or any(p.reasons != parts[0].reasons for p in parts):
        raise DataError("frames can only be joined when there are some and their reasons agree")
    before = np.cumsum([0, *(len(p.gate) for p in parts[:-1])])
    joined = {
        f.name: np.concatenate([getattr(p, f.name) for p in parts])
        for f in fields(SiteFrames)
        if f.name not in ("site", "reasons", "clip")
    }
    clip = np.concatenate([p.clip + n for p, n in zip(parts, before, strict=True)]).astype(np.int32)
    return SiteFrames(site=parts[0].site, reasons=parts[0].reasons, clip=clip, **joined)
