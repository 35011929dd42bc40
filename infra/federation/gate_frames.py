"""What a site learns the gate from: its own training frames as recorded, and frames of public noise, altered anew in every batch.

Unlike tokens these are the network's input: in the gate's own phase the tokenizer learns too, so nothing can be computed ahead.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from infra.federation.frames_file import FramesFile
from models.errors import DataError
from models.frames import CALL, TRAIN, VAL, SiteFrames
from models.gate_batches import AugmentConfig, GateBatches
from models.local_step import TokenSet
from models.network import CryNet
from models.predict import frame_tokens


@dataclass(frozen=True)
class GateFrames:
    """A site's batches, and its labelled validation frames as recorded: log-mel float16 (N, M, F) and their labels."""

    batches: GateBatches
    val_mel: npt.NDArray[np.float16]
    val_gate: npt.NDArray[np.int8]
    val_reason: npt.NDArray[np.int16]
    val_clip: npt.NDArray[np.int32]
    nbytes: int

    def validation(self, net: CryNet) -> tuple[TokenSet, npt.NDArray[np.int32]]:
        """Validation frames as tokens of the network as it is now, and their clips."""
        weight = np.ones(len(self.val_gate), np.float32)
        tokens = frame_tokens(net, self.val_mel)
        return TokenSet(tokens, self.val_gate, self.val_reason, weight), self.val_clip


def load_gate_frames(features: Path, public: Path, net: CryNet, augment: AugmentConfig) -> GateFrames:
    """Read a site's frames and public noise.

    Args:
        features: the site's frames, safetensors.
        public: frames of public noise, safetensors.
        net: says what shape they have.
        augment: how batches alter them.

    Raises:
        DataError: a file cannot be read or is not what the network takes; or there is no cry, or no public noise, to learn from.
    """
    own, noise = (FramesFile.open(path, net.reasons, net.cfg.log_mel) for path in (features, public))
    mine, others = (_training(file) for file in (own, noise))
    if not (mine.gate[mine.clip] == 1).any():
        raise DataError(
            f"{features} has no cry in its training part: the site cannot take part in the gate's phase"
        )
    labels, clip = own.labels, own.labels["clip"]
    val = np.flatnonzero((own.part == VAL) & (labels["view"] == 0) & own.known)
    return GateFrames(
        GateBatches([mine], others, net.cfg.log_mel, augment),
        own.read(val), labels["gate"][clip[val]], labels["reason"][clip[val]], clip[val],
        nbytes=mine.log_mel.nbytes + others.log_mel.nbytes,
    )  # fmt: skip


def _training(file: FramesFile) -> SiteFrames:
    """The frames of labelled training clips as recorded; names are left behind, but which ones are synthetic calls."""
    labels = file.labels
    rows = np.flatnonzero((file.part == TRAIN) & (labels["view"] == 0) & file.known)
    clips = len(labels["gate"])
    blank = np.zeros(clips, dtype="<U1")
    return SiteFrames(
        site="", reasons=file.reasons, log_mel=file.read(rows), clip=labels["clip"][rows], view=labels["view"][rows],
        snr_db=np.full(len(rows), np.nan, np.float32), gate=labels["gate"], reason=labels["reason"], part=labels["part"],
        group=labels["infant"].astype(str) if clips else blank, clip_id=blank,
        label=np.where(labels["call"], CALL, ""),
    )  # fmt: skip
