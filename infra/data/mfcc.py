"""MFCC statistics: a clip as 80 numbers, which is what baselines and the data gate's probe hear of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from models.audio_ops import torchaudio
from models.config import SAMPLE_RATE, LogMelConfig

N_MFCC = 20
N_STATISTICS = 4 * N_MFCC


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
