"""What the network learns from at one site: log-mel frames, and the clips they come from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

TRAIN: Final = 0
VAL: Final = 1
TEST: Final = 2
PART_NAMES: Final = ("train", "val", "test")
UNKNOWN: Final = -1


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
