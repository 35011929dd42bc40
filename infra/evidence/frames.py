"""Log-mel frames for the evidence: dense ones to learn from, and the renderings that a clip is judged in.

    view 0          as recorded
    views 1 … n     public noise at each SNR, of another recording of the clip's own fold
    views n+1 … 2n  a rejected upload as noise, of another device of the clip's own fold: noise that is no ESC clip

The noise of a fold's clips is of that fold, so no network that judges them has heard it. Cries and non-cries get it alike, public
noise too (of another class). Segmentation comes after the noise, as on a device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from infra.data.audio import ClipLimits, ReadLimits, read_audio
from infra.data.features import GATE
from infra.evidence.folds import Folds
from models.augment import mix_at_snr
from models.config import LogMelConfig
from models.errors import DataError
from models.frames import TRAIN, UNKNOWN, SiteFrames
from models.log_mel import LogMel
from models.seeds import derive_seed
from models.segmentation import VadConfig, frames
from models.threads import one_thread

Wave = npt.NDArray[np.float32]

SNRS: Final = (-5.0, 0.0, 5.0, 10.0, 20.0)
"""dB, of the noisy views."""
TRAIN_HOP_S: Final = (
    0.25  # frames to learn from overlap more than those that are judged: four offsets of the same sound
)
_MOST_TRAIN, _MOST_CLEAN, _MOST_NOISY = 30, 24, 12  # frames of a clip, evenly thinned


def public_view(snr_db: float) -> int:
    """The view with public noise at this SNR."""
    return 1 + SNRS.index(snr_db)


def site_view(snr_db: float) -> int:
    """The view with another device's rejected upload at this SNR."""
    return 1 + len(SNRS) + SNRS.index(snr_db)


@dataclass(frozen=True)
class EvidenceFrames:
    """`learn`: dense frames as recorded; `judge`: all views. Both by site, "" is public noise; clips in the order of the rows.

    `calls` are synthetic non-cries (`infra.data.calls`), to learn from alone.
    """

    learn: dict[str, SiteFrames]
    judge: dict[str, SiteFrames]
    calls: SiteFrames | None = None


def evidence_frames(
    rows: pd.DataFrame,
    root: Path,
    folds: Folds,
    reasons: Sequence[str],
    mel: LogMelConfig,
    vad: VadConfig | None = None,
    limits: ClipLimits | None = None,
    on_clip: Callable[[int, int], None] = lambda _done, _of: None,
) -> EvidenceFrames:
    """Read every clip once and render it.

    Args:
        rows: as `judged` gives them.
        root: the manifest's folder.
        folds: their folds.
        reasons: the label set.
        mel: the network's front end.
        vad: its segmentation.
        limits: bounds on what is read.
        on_clip: told how many clips are done, of how many.

    Raises:
        AudioError: a clip cannot be used.
        DataError: a fold holds no noise.
    """
    vad, limits = vad or VadConfig(), limits or ReadLimits()
    dense = VadConfig(**{**vad.__dict__, "hop_s": TRAIN_HOP_S})
    waves = [
        read_audio(root / p, max_seconds=limits.max_clip_seconds, max_bytes=limits.max_file_bytes)
        for p in rows["path"]
    ]
    noises = _Noises(rows, folds, waves)
    front = LogMel(mel).eval()
    learn, judge = _Builder(rows, reasons), _Builder(rows, reasons)
    with one_thread(), torch.inference_mode():
        for i, wave in enumerate(waves):
            learn.add(i, 0, np.nan, _mel(front, frames(wave, dense), _MOST_TRAIN))
            judge.add(i, 0, np.nan, _mel(front, frames(wave, vad), _MOST_CLEAN))
            for view, snr, noise in noises.of(i):
                noisy = mix_at_snr(wave, noise, snr)
                judge.add(i, view, snr, _mel(front, frames(noisy, vad), _MOST_NOISY))
            on_clip(i + 1, len(waves))
    return EvidenceFrames(learn.by_site(), judge.by_site())


class _Noises:
    """Which noise a clip gets: drawn by its content's hash, so that no other row's order has a say."""

    def __init__(self, rows: pd.DataFrame, folds: Folds, waves: Sequence[Wave]) -> None:
        self._rows, self._folds, self._waves = rows, folds, waves
        self._heard = np.array([bool(w.any()) for w in waves])

    def of(self, i: int) -> list[tuple[int, float, Wave]]:
        rows, out = self._rows, []
        row = rows.iloc[i]
        other = self._heard & (self._folds == self._folds[i]) & (rows["group"] != row["group"]).to_numpy()
        kinds = (
            ("noise", public_view, other & (rows["label"] != row["label"]).to_numpy()),
            ("ood_noncry", site_view, other),
        )
        for role, view, fits in kinds:
            choice = np.flatnonzero(fits & (rows["role"] == role).to_numpy())
            if not len(choice):
                if role == "noise":
                    raise DataError(
                        f"fold {self._folds[i]} holds no public noise to mix into {row['path']}: fewer folds, or more noise"
                    )
                continue  # a corpus without rejected uploads has no such view
            for snr in SNRS:
                rng = np.random.Generator(np.random.PCG64(derive_seed("evidence", role, snr, row["sha256"])))
                noise = self._waves[choice[rng.integers(len(choice))]]
                out.append((view(snr), snr, np.roll(noise, -int(rng.integers(len(noise))))))
        return out


class _Builder:
    """Collects frames and sorts them by site."""

    def __init__(self, rows: pd.DataFrame, reasons: Sequence[str]) -> None:
        self._rows, self._reasons = rows, tuple(reasons)
        self._mel: list[npt.NDArray[np.float16]] = []
        self._index: list[tuple[int, int, float]] = []

    def add(self, clip: int, view: int, snr_db: float, mel: npt.NDArray[np.float16]) -> None:
        self._mel.append(mel)
        self._index += [(clip, view, snr_db)] * len(mel)

    def by_site(self) -> dict[str, SiteFrames]:
        mel = np.concatenate(self._mel)
        clip = np.array([c for c, _, _ in self._index], np.int32)
        view = np.array([v for _, v, _ in self._index], np.int16)
        snr = np.array([s for _, _, s in self._index], np.float32)
        out = {}
        for site, rows in self._rows.groupby("site", sort=True):
            place = np.full(len(self._rows), -1, np.int32)
            place[rows.index] = np.arange(len(rows))
            here = place[clip] >= 0
            gate = np.array([GATE[role] for role in rows["role"]], np.int8)
            known = {name: k for k, name in enumerate(self._reasons)}
            out[str(site)] = SiteFrames(
                site=str(site), reasons=self._reasons, log_mel=mel[here], clip=place[clip[here]], view=view[here],
                snr_db=snr[here], gate=gate,
                reason=np.array(
                    [known.get(name, UNKNOWN) if g == 1 else UNKNOWN for name, g in zip(rows["label"], gate, strict=True)],
                    np.int16,
                ),
                part=np.full(len(rows), TRAIN, np.int8), group=rows["group"].to_numpy(str),
                clip_id=np.array([sha[:16] for sha in rows["sha256"]], dtype=str), label=rows["label"].to_numpy(str),
            )  # fmt: skip
        return out


def _mel(front: LogMel, kept: Wave, most: int) -> npt.NDArray[np.float16]:
    if len(kept) > most:
        kept = kept[np.round(np.linspace(0, len(kept) - 1, most)).astype(np.int64)]
    return front(torch.from_numpy(kept)).numpy().astype(np.float16)
