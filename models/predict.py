"""Scores: the network over a site's frames, and frames into clips.

A clip is scored per view (rendering); its reason logits are the means over its frames, its gate logit their soft maximum and its
energy likewise the soft minimum (`models.pooling`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
import torch

from models.errors import DataError
from models.frames import SiteFrames
from models.network import CryNet


@dataclass(frozen=True)
class FrameScores:
    """Per frame: `gate_logit` (N,), `reason_logits` (N, C), `energy` (N,), float32."""

    gate_logit: npt.NDArray[np.float32]
    reason_logits: npt.NDArray[np.float32]
    energy: npt.NDArray[np.float32]


@dataclass(frozen=True)
class ClipScores:
    """One row per (clip, view), in order of site, clip and view; R rows, C reasons.

    Scores: `gate_logit` (R,), `reason_logits` (R, C), `energy` (R,), float64, over `n_frames` (R,) frames.
    Rendering: `view` (R,) with 0 the clip as recorded, `snr_db` (R,) NaN where no noise was added.
    Clip: `site`, `clip` (index at its site), `clip_id`, `group`, `label`, `part`, `gate`, `reason`, as in `SiteFrames`.
    """

    reasons: tuple[str, ...]
    gate_logit: npt.NDArray[np.float64]
    reason_logits: npt.NDArray[np.float64]
    energy: npt.NDArray[np.float64]
    n_frames: npt.NDArray[np.int32]
    view: npt.NDArray[np.int16]
    snr_db: npt.NDArray[np.float32]
    site: npt.NDArray[np.str_]
    clip: npt.NDArray[np.int32]
    clip_id: npt.NDArray[np.str_]
    group: npt.NDArray[np.str_]
    label: npt.NDArray[np.str_]
    part: npt.NDArray[np.int8]
    gate: npt.NDArray[np.int8]
    reason: npt.NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.gate_logit)

    def select(self, rows: npt.NDArray) -> ClipScores:
        """The rows of a boolean mask (R,) or of indices."""
        return replace(
            self, **{f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name != "reasons"}
        )

    def of_part(self, part: int) -> ClipScores:
        """The rows of TRAIN, VAL or TEST."""
        return self.select(self.part == part)


def frame_tokens(net: CryNet, log_mel: npt.NDArray[np.floating], batch: int = 256) -> npt.NDArray[np.float16]:
    """Log-mel (N, M, F) → tokens (N, L, D) float16: the frozen part of the network, to be cached."""
    cfg = net.cfg
    expected = (cfg.log_mel.n_mels, cfg.log_mel.n_frames)
    if log_mel.ndim != 3 or log_mel.shape[1:] != expected:
        raise DataError(
            f"log-mel frames are {log_mel.shape}, the network takes (N, {expected[0]}, {expected[1]})"
        )
    out = np.empty((len(log_mel), cfg.n_tokens, cfg.d_model), dtype=np.float16)
    net.eval()
    with torch.inference_mode():
        for i in range(0, len(log_mel), batch):
            x = torch.from_numpy(log_mel[i : i + batch].astype(np.float32))
            out[i : i + batch] = net.tokens(x).numpy().astype(np.float16)
    return out


def frame_scores(net: CryNet, tokens: npt.NDArray[np.floating], batch: int = 256) -> FrameScores:
    """Tokens (N, L, D) → scores per frame."""
    gate, reason, energy = [], [], []
    net.eval()
    with torch.inference_mode():
        for i in range(0, len(tokens), batch):
            out = net.classify(torch.from_numpy(tokens[i : i + batch].astype(np.float32)))
            gate.append(out.gate_logit.numpy())
            reason.append(out.reason_logits.numpy())
            energy.append(out.energy.numpy())
    if not gate:
        empty = np.zeros(0, dtype=np.float32)
        return FrameScores(empty, np.zeros((0, len(net.reasons)), dtype=np.float32), empty)
    return FrameScores(np.concatenate(gate), np.concatenate(reason), np.concatenate(energy))


@dataclass(frozen=True)
class ClipRows:
    """The (clip, view) pairs of a site, in order: `clip` (R,), `view` (R,), `first` (R,) a frame of each, `count` (R,) frames.

    `row` (N,) is the pair of every frame.
    """

    clip: npt.NDArray[np.int32]
    view: npt.NDArray[np.int16]
    first: npt.NDArray[np.intp]
    count: npt.NDArray[np.int32]
    row: npt.NDArray[np.intp]

    def mean(self, values: npt.NDArray) -> npt.NDArray[np.float64]:
        """Per frame (N, …) → mean over the frames of each pair (R, …)."""
        total = np.zeros((len(self.count), *values.shape[1:]))
        np.add.at(total, self.row, values.astype(np.float64))
        return total / self.count.reshape(-1, *[1] * (values.ndim - 1))

    def soft_maximum(self, values: npt.NDArray) -> npt.NDArray[np.float64]:
        """Per frame (N,) → log mean exp over the frames of each pair (R,)."""
        top = np.full(len(self.count), -np.inf)
        np.maximum.at(top, self.row, values.astype(np.float64))
        return np.log(self.mean(np.exp(values - top[self.row]))) + top


def clip_rows(clip: npt.NDArray[np.integer], view: npt.NDArray[np.integer]) -> ClipRows:
    """The rows that scores of frames come in, by the clip and view (N,) of each."""
    key = np.stack([clip.astype(np.int64), view.astype(np.int64)])
    unique, first, row, count = np.unique(
        key, axis=1, return_index=True, return_inverse=True, return_counts=True
    )
    return ClipRows(
        unique[0].astype(np.int32),
        unique[1].astype(np.int16),
        first,
        count.astype(np.int32),
        row.reshape(-1),
    )


def clip_scores(frames: SiteFrames, scores: FrameScores) -> ClipScores:
    """One row for each (clip, view), from its frames.

    Raises:
        DataError: scores and frames have different lengths.
    """
    if len(scores.gate_logit) != len(frames.clip):
        raise DataError(
            f"site {frames.site!r}: {len(scores.gate_logit)} scores for {len(frames.clip)} frames"
        )
    rows = clip_rows(frames.clip, frames.view)
    clip = rows.clip
    return ClipScores(
        reasons=frames.reasons,
        gate_logit=rows.soft_maximum(scores.gate_logit),
        reason_logits=rows.mean(scores.reason_logits),
        energy=-rows.soft_maximum(-scores.energy),
        n_frames=rows.count,
        view=rows.view,
        snr_db=frames.snr_db[rows.first],
        site=np.full(len(clip), frames.site),
        clip=clip,
        clip_id=frames.clip_id[clip],
        group=frames.group[clip],
        label=frames.label[clip],
        part=frames.part[clip],
        gate=frames.gate[clip],
        reason=frames.reason[clip],
    )


def predict(
    net: CryNet,
    frames: SiteFrames,
    tokens: npt.NDArray[np.floating] | None = None,
) -> ClipScores:
    """Score every (clip, view) of a site, with the adapters and heads that the network holds.

    Args:
        net: the network.
        frames: the site's frames.
        tokens: their cached tokens (N, L, D), if there are any: the front of the network is then skipped.
    """
    if net.reasons != frames.reasons:
        raise DataError(f"site {frames.site!r} has reasons {frames.reasons}, the network {net.reasons}")
    rows = frame_tokens(net, frames.log_mel) if tokens is None else tokens
    return clip_scores(frames, frame_scores(net, rows))


def concat_scores(parts: Sequence[ClipScores]) -> ClipScores:
    """Rows of several sites, one after the other.

    Raises:
        DataError: none given, or their reasons differ.
    """
    if not parts or any(p.reasons != parts[0].reasons for p in parts):
        raise DataError("scores can only be joined when there are some and their reasons agree")
    joined = {
        f.name: np.concatenate([getattr(p, f.name) for p in parts])
        for f in fields(ClipScores)
        if f.name != "reasons"
    }
    return ClipScores(reasons=parts[0].reasons, **joined)
