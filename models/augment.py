"""Noise, gain and masks: in the waveform exactly (torchaudio), and in mel power where training needs a new mixture every step.

The power of a sum of independent sounds is, on average, the sum of their powers. Mixing stored log-mel frames by that rule costs
nothing beside a training step, gives noise that never repeats, and keeps the front end's level normalisation exact.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.audio_ops import torchaudio
from models.config import LogMelConfig
from models.errors import DataError

Wave = npt.NDArray[np.float32]


def mix_at_snr(wave_T: Wave, noise_T: Wave, snr_db: float) -> Wave:
    """Add noise to a wave at a signal-to-noise ratio in dB (mean powers over the whole length), by torchaudio's `add_noise`.

    Args:
        wave_T: (T,) the signal; digital silence stays as it is, for no noise level fits it.
        noise_T: (T',) the noise, repeated or cut to T.
        snr_db: 20 is faint noise, −5 drowns.

    Raises:
        DataError: the noise is empty.
    """
    if len(noise_T) == 0:
        raise DataError("noise to mix in is empty")
    noise = np.resize(noise_T, len(wave_T))
    if not wave_T.any() or not noise.any():
        return wave_T.copy()
    mixed = torchaudio.functional.add_noise(
        torch.from_numpy(wave_T.astype(np.float32)),
        torch.from_numpy(noise.astype(np.float32)),
        torch.tensor(snr_db),
    )
    return mixed.numpy()


def apply_gain(wave_T: Wave, gain_db: float) -> Wave:
    """Scale by a gain in dB, clipped to ±1 as a recorder would."""
    return np.clip(wave_T * np.float32(10.0 ** (gain_db / 20.0)), -1.0, 1.0).astype(np.float32)


def mix_log_mel(
    clean_BMF: Tensor, noise_BMF: Tensor, snr_db_B: Tensor, cfg: LogMelConfig
) -> tuple[Tensor, Tensor]:
    """Mix level-normalised log-mel frames in the power domain.

    Both inputs come from frames of one RMS, so the noise enters with power 10^(−SNR/10) of the signal's, and the front end
    would scale the sum back by g = 1 / (1 + 10^(−SNR/10)).

    Args:
        clean_BMF: log-mel of the signal.
        noise_BMF: log-mel of the noise.
        snr_db_B: (B,) in dB; infinity leaves the signal as it is.
        cfg: for the floor under the logarithm.

    Returns:
        The mixture, and the signal at the level it has inside the mixture: what a denoiser should return.
    """
    ratio = torch.pow(10.0, -snr_db_B / 10.0).reshape(-1, 1, 1)
    gain = 1.0 / (1.0 + ratio)
    clean = (torch.exp(clean_BMF) - cfg.floor).clamp_min(0.0) * gain
    noise = (torch.exp(noise_BMF) - cfg.floor).clamp_min(0.0) * (gain * ratio)
    return torch.log(clean + noise + cfg.floor), torch.log(clean + cfg.floor)


def mask_bands(x_BMF: Tensor, *, max_rows: int, max_steps: int, value: float) -> Tensor:
    """SpecAugment (arXiv 1904.08779): one frequency and one time mask per item, of random width up to the maxima."""
    x = x_BMF.unsqueeze(1)
    if max_rows > 0:
        x = torchaudio.functional.mask_along_axis_iid(x, max_rows, value, axis=2)
    if max_steps > 0:
        x = torchaudio.functional.mask_along_axis_iid(x, max_steps, value, axis=3)
    return x.squeeze(1)
