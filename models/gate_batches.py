"""Batches for the cry gate: log-mel frames, altered anew every time they are drawn.

A frame as recorded goes through what another phone, room and day would do to it, in the order in which they do it:

    microphone   a smooth random response over the mel bands
    noise        public noise, or what the site has that is no cry, at −5…20 dB, mixed in power (`models.augment.mix_log_mel`)
    masks        SpecAugment (arXiv 1904.08779), one band and one stretch of time

A batch holds a few frames of each of its recordings, which share microphone, noise and SNR. The label is the recording's: not
every second of it need be a cry (multiple-instance learning; the pooling is that of `models.predict`). Half of them are cries.
The other half are the site's own non-cries and public noise, which every site has: a ward that never uploaded anything but cries
learns what is none from there. Among public noise are synthetic calls. They are drawn with a share of their own, however many
there are, and never mixed in: a call over a cry would be a background that no room has, and half of what is heard of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.augment import mask_bands, mix_log_mel
from models.config import LogMelConfig
from models.errors import ConfigError, DataError
from models.frames import CALL, CALL_SHARE, TRAIN, UNKNOWN, SiteFrames

FrameArray = npt.NDArray[np.float16]


@dataclass(frozen=True)
class AugmentConfig:
    """How a frame is altered. Plain numbers only."""

    snr_low: float = -5.0  # dB
    snr_high: float = 20.0
    snr_spread: float = (
        6.0  # standard deviation in dB of a recording's frames about its SNR: their levels differ
    )
    clean_share: float = 0.3  # frames without noise
    microphone: float = (
        0.7  # standard deviation of the response in nepers of power (0.7 is 3 dB); 0 turns it off
    )
    microphone_points: int = 6  # over the mel bands, straight lines between them
    mask_rows: int = 10
    mask_steps: int = 20
    own_share: float = 0.3  # of a batch: the site's own non-cries, where there are any
    call_share: float = CALL_SHARE  # of the public non-cries: synthetic calls, where there are any
    frames_per_clip: int = 4

    def __post_init__(self) -> None:
        """Refuse what is no range or share.

        Raises:
            ConfigError: a setting is out of order.
        """
        if not -60.0 <= self.snr_low <= self.snr_high <= 60.0:
            raise ConfigError(
                f"augmentation: SNRs from {self.snr_low} to {self.snr_high} dB are no range within ±60"
            )
        if min(self.clean_share, self.call_share) < 0.0 or max(self.clean_share, self.call_share) > 1.0:
            raise ConfigError("augmentation: clean_share and call_share must lie in [0, 1]")
        if not 0.0 <= self.own_share <= 0.5:
            raise ConfigError("augmentation: own_share must lie in [0, 0.5]")
        if (
            min(self.snr_spread, self.microphone, self.mask_rows, self.mask_steps) < 0
            or self.microphone_points < 2
        ):
            raise ConfigError(
                "augmentation: widths cannot be negative, and a response needs two points or more"
            )


@dataclass(frozen=True)
class Batch:
    """What a step learns from: B recordings of K frames each, one recording's frames after the other's.

    `x` (B · K, M, F) standardised log-mel as the denoiser takes it; `clean` the same without noise and masks; `cry` (B,) 0 or
    1; `reason` (B, C) a share for each reason, all zero where none is known.
    """

    x: Tensor
    clean: Tensor
    cry: Tensor
    reason: Tensor


class GateBatches:
    """Draws batches from some sites' training frames; a site's own object holds that site's frames and public noise alone.

    Args:
        sites: frames of cries and non-cries; other parts than TRAIN are never drawn.
        public: public noise, drawn as non-cries and mixed in, and synthetic calls, which are drawn alone; the TRAIN part alone.
        mel: the front end the frames were made with.
        cfg: how frames are altered.

    Raises:
        DataError: no cry, or no non-cry, or no noise to train with.
    """

    def __init__(
        self,
        sites: Sequence[SiteFrames],
        public: SiteFrames,
        mel: LogMelConfig,
        cfg: AugmentConfig | None = None,
    ) -> None:
        self.cfg = cfg or AugmentConfig()
        self._mel = mel
        self._n_reasons = len(public.reasons)
        self._cries = _Pool([(s, 1) for s in sites])
        self._own = _Pool([(s, 0) for s in sites])
        noise, calls = _apart(public)
        self._public, self._calls = _Pool([(noise, 0)]), _Pool([(calls, 0)])
        self._noise = _Pool([(noise, 0), *((s, 0) for s in sites)])
        if not len(self._public):  # a corpus without noise has the calls alone
            self._public, self._calls = self._calls, self._public
        if not len(self._noise):
            self._noise = self._public
        if not len(self._cries) or not len(self._public):
            raise DataError(
                "the gate needs cries and public noise to learn from: look at the roles and parts of the manifest"
            )

    @property
    def clips(self) -> int:
        """How many of the sites' clips it draws from."""
        return len(self._cries) + len(self._own)

    def draw(self, rng: np.random.Generator, size: int) -> Batch:
        """A batch of `size` recordings; they weigh the same however long they are."""
        cfg, mel, k = self.cfg, self._mel, self.cfg.frames_per_clip
        n_cry = size // 2
        n_own = round(cfg.own_share * size) if len(self._own) else 0
        # a site with two non-cries would hear them in every batch: it draws each no more often than twice
        n_own = min(n_own, 2 * len(self._own))
        n_public = size - n_cry - n_own
        n_calls = int((rng.random(n_public) < cfg.call_share).sum()) if len(self._calls) else 0
        drawn = [
            self._cries.draw(rng, n_cry, k), self._own.draw(rng, n_own, k),
            self._public.draw(rng, n_public - n_calls, k), self._calls.draw(rng, n_calls, k),
        ]  # fmt: skip
        frames = np.concatenate([f for f, _ in drawn])
        reason = np.concatenate([r for _, r in drawn])
        one_hot = (reason[:, None] == np.arange(self._n_reasons)).astype(np.float32)  # none for −1
        cry = np.zeros(size, np.float32)
        cry[:n_cry] = 1.0
        noise = torch.from_numpy(self._noise.draw(rng, size, k)[0].astype(np.float32))
        clean = self._microphone(torch.from_numpy(frames.astype(np.float32)), rng, size)
        snr = rng.uniform(cfg.snr_low, cfg.snr_high, size)
        snr[rng.random(size) < cfg.clean_share] = np.inf
        levels = np.repeat(snr, k) + rng.normal(0.0, cfg.snr_spread, size * k)
        mixed, target = mix_log_mel(clean, noise, torch.from_numpy(levels.astype(np.float32)), mel)
        floor = (math.log(mel.floor) - mel.mean) / mel.std
        x = mask_bands(
            self._standardise(mixed), max_rows=cfg.mask_rows, max_steps=cfg.mask_steps, value=floor
        )
        target_x = self._standardise(target)
        return Batch(x, target_x, torch.from_numpy(cry), torch.from_numpy(one_hot))

    def _standardise(self, x_BMF: Tensor) -> Tensor:
        return (x_BMF - self._mel.mean) * (1.0 / self._mel.std)

    def _microphone(self, x_BMF: Tensor, rng: np.random.Generator, size: int) -> Tensor:
        cfg = self.cfg
        if cfg.microphone == 0.0:
            return x_BMF
        points = rng.normal(0.0, cfg.microphone, (size, 1, cfg.microphone_points))
        points = np.repeat(points, cfg.frames_per_clip, axis=0)
        gain = nn.functional.interpolate(
            torch.from_numpy(points.astype(np.float32)),
            size=x_BMF.shape[1],
            mode="linear",
            align_corners=True,
        )
        power = (torch.exp(x_BMF) - self._mel.floor).clamp_min(0.0) * torch.exp(gain).transpose(1, 2)
        return torch.log(power + self._mel.floor)


def _apart(public: SiteFrames) -> tuple[SiteFrames, SiteFrames]:
    """Noise without the synthetic calls, and the calls without noise: the others' label is unknown there."""
    calls = public.label == CALL
    noise, alone = (
        replace(public, gate=np.where(hidden, UNKNOWN, public.gate).astype(np.int8))
        for hidden in (calls, ~calls)
    )
    return noise, alone


class _Pool:
    """Training frames of clips of one kind at some sites, as recorded; draws clips first, then one of their frames."""

    def __init__(self, parts: Sequence[tuple[SiteFrames, int]]) -> None:
        self._frames: list[FrameArray] = []
        self._rows: list[
            tuple[int, npt.NDArray[np.intp], int]
        ] = []  # by clip: whose frames, which, its reason
        for frames, gate in parts:
            here = (
                (frames.part[frames.clip] == TRAIN) & (frames.gate[frames.clip] == gate) & (frames.view == 0)
            )
            rows = np.flatnonzero(here)
            order = rows[np.argsort(frames.clip[rows], kind="stable")]
            starts = np.flatnonzero(np.diff(frames.clip[order], prepend=-1))
            for some in np.split(order, starts[1:]):
                if len(some):
                    self._rows.append((len(self._frames), some, int(frames.reason[frames.clip[some[0]]])))
            self._frames.append(frames.log_mel)

    def __len__(self) -> int:
        return len(self._rows)

    def draw(self, rng: np.random.Generator, n: int, k: int) -> tuple[FrameArray, npt.NDArray[np.int16]]:
        """`k` frames of each of `n` clips, and the clips' reasons.

        Frames (n · k, M, F) are different ones where a clip has so many; reasons (n,) are −1 where there is none.
        """
        shape = self._frames[0].shape[1:]
        out, reason = np.empty((n * k, *shape), np.float16), np.empty(n, np.int16)
        for i, clip in enumerate(rng.integers(0, max(1, len(self._rows)), n)):
            site, rows, reason[i] = self._rows[clip]
            out[i * k : (i + 1) * k] = self._frames[site][rng.choice(rows, k, replace=len(rows) < k)]
        return out, reason
