"""What the network has to beat: the majority class, and logistic regression on MFCC statistics of the same clips.

Both are fitted on the training part of all sites together, which a federation could not do: they are given the easier job. They
come as `ClipScores`, so that the evaluation treats every system alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from models.audio_ops import torchaudio
from models.config import SAMPLE_RATE, LogMelConfig
from models.errors import DataError
from models.frames import TRAIN, UNKNOWN, SiteFrames
from models.metrics import Floats
from models.predict import ClipScores

N_MFCC = 20
N_STATISTICS = 4 * N_MFCC
_ABSENT = -30.0  # logit of a reason that the training part doesn't have


@cache
def _mfcc() -> Any:
    mel = LogMelConfig()
    return torchaudio.transforms.MFCC(
        SAMPLE_RATE,
        n_mfcc=N_MFCC,
        melkwargs={
            "n_fft": mel.n_fft,
            "win_length": mel.win_length,
            "hop_length": mel.hop_length,
            "n_mels": 40,
            "f_min": mel.f_min,
            "f_max": mel.f_max,
        },
    )


def mfcc_statistics(wave: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A clip (T,) at 16 kHz → (80,): mean and deviation over time of 20 MFCC and of their first differences."""
    x = torch.from_numpy(np.ascontiguousarray(wave, np.float32))
    with torch.inference_mode():
        c_KF = _mfcc()(torch.nn.functional.pad(x, (0, max(0, 800 - x.numel()))))
        delta_KF = c_KF.diff(dim=1)
        parts = (c_KF.mean(1), c_KF.std(1), delta_KF.mean(1), delta_KF.std(1))
        return torch.nan_to_num(torch.cat(parts)).numpy()


def statistics_of(waves: Iterable[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """`mfcc_statistics` of every wave, (n, 80)."""
    rows = [mfcc_statistics(wave) for wave in waves]
    return np.stack(rows) if rows else np.zeros((0, N_STATISTICS), np.float32)


def read_statistics(paths: Sequence[Path], *, max_seconds: float, max_bytes: int) -> npt.NDArray[np.float32]:
    """Statistics of audio files, (n, 80), one decoded at a time.

    Raises:
        AudioError: a file cannot be used.
    """
    from infra.data.audio import read_audio

    return statistics_of(read_audio(p, max_seconds=max_seconds, max_bytes=max_bytes) for p in paths)


@dataclass(frozen=True)
class ClipTable:
    """Clips of all sites with their statistics. Arrays of length n as in `models.frames`; `x` (n, 80)."""

    reasons: tuple[str, ...]
    x: npt.NDArray[np.float32]
    site: npt.NDArray[np.str_]
    clip: npt.NDArray[np.int32]
    clip_id: npt.NDArray[np.str_]
    group: npt.NDArray[np.str_]
    label: npt.NDArray[np.str_]
    part: npt.NDArray[np.int8]
    gate: npt.NDArray[np.int8]
    reason: npt.NDArray[np.int16]


def clip_table(sites: Sequence[SiteFrames], statistics: Mapping[str, npt.NDArray[np.float32]]) -> ClipTable:
    """Join the clips of the sites' frames with statistics by `clip_id`.

    Raises:
        DataError: no site, or a clip has no statistics.
    """
    if not sites:
        raise DataError("no site's frames to compare against")
    ids = np.concatenate([s.clip_id for s in sites])
    missing = [str(i) for i in ids if str(i) not in statistics]
    if missing:
        raise DataError(f"{len(missing)} clips have no MFCC statistics, the first is {missing[0]}")
    return ClipTable(
        reasons=sites[0].reasons,
        x=np.stack([statistics[str(i)] for i in ids])
        if ids.size
        else np.zeros((0, N_STATISTICS), np.float32),
        site=np.concatenate([np.full(len(s.clip_id), s.site) for s in sites]),
        clip=np.concatenate([np.arange(len(s.clip_id), dtype=np.int32) for s in sites]),
        clip_id=ids,
        group=np.concatenate([s.group for s in sites]),
        label=np.concatenate([s.label for s in sites]),
        part=np.concatenate([s.part for s in sites]),
        gate=np.concatenate([s.gate for s in sites]),
        reason=np.concatenate([s.reason for s in sites]),
    )


def majority(table: ClipTable) -> ClipScores:
    """Always the most frequent reason of the training part; a gate that knows nothing."""
    n, c = len(table.clip_id), len(table.reasons)
    train = (table.part == TRAIN) & (table.gate == 1) & (table.reason != UNKNOWN)
    counts = np.bincount(table.reason[train].astype(int), minlength=c)
    logits = np.tile(np.log((counts + 1.0) / (counts.sum() + c)), (n, 1)) if c else np.zeros((n, 0))
    return _scores(table, np.zeros(n), logits)


def logistic_regression(table: ClipTable, seed: int = 0) -> ClipScores:
    """Standardised statistics, L2 with C = 1, classes balanced; one model for the gate, one for the reason.

    Rows of every part are scored; only the training part was fitted on.
    """
    train = table.part == TRAIN
    gate = _fit_predict(table.x, table.gate.astype(int), train & (table.gate >= 0), 2, seed)
    cries = train & (table.gate == 1) & (table.reason != UNKNOWN)
    logits = _fit_predict(table.x, table.reason.astype(int), cries, len(table.reasons), seed)
    return _scores(table, gate[:, 1] - gate[:, 0], logits)


def _fit_predict(
    x: npt.NDArray[np.float32],
    y: npt.NDArray[np.int64],
    train: npt.NDArray[np.bool_],
    n_classes: int,
    seed: int,
) -> Floats:
    """Log-probabilities (n, C) up to a constant; equal ones where the training part has fewer than two classes."""
    present = np.unique(y[train])
    if present.size < 2:
        return np.zeros((len(y), n_classes))
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(
        StandardScaler(),
        LogisticRegression(C=1.0, class_weight="balanced", max_iter=5000, random_state=seed),
    )
    model.fit(x[train].astype(np.float64), y[train])
    out = np.full((len(y), n_classes), _ABSENT)
    out[:, present] = np.maximum(model.predict_log_proba(x.astype(np.float64)), _ABSENT)
    return out


def _scores(table: ClipTable, gate_logit: Floats, reason_logits: Floats) -> ClipScores:
    n = len(table.clip_id)
    top = reason_logits.max(1) if reason_logits.shape[1] else np.zeros(n)
    return ClipScores(
        reasons=table.reasons,
        gate_logit=np.asarray(gate_logit, np.float64),
        reason_logits=np.asarray(reason_logits, np.float64),
        energy=-np.asarray(top, np.float64),
        n_frames=np.ones(n, np.int32),
        view=np.zeros(n, np.int16),
        snr_db=np.full(n, np.nan, np.float32),
        site=table.site,
        clip=table.clip,
        clip_id=table.clip_id,
        group=table.group,
        label=table.label,
        part=table.part,
        gate=table.gate,
        reason=table.reason,
    )
