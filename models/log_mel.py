"""Log-mel spectrogram as one convolution, so that it lives inside the exported graph.

ONNX has no STFT operator before opset 17 and TensorRT 8.2 none at all; a windowed DFT is a strided convolution with fixed
kernels. Only the bins below `f_max` are computed. Agrees with torchaudio's MelSpectrogram (HTK scale, no filter
normalisation, power 2) to 1e-4 in the log domain.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.audio_ops import torchaudio
from models.config import LogMelConfig
from models.errors import ConfigError


def mel_filters(cfg: LogMelConfig) -> Tensor:
    """torchaudio's HTK filter bank, (n_fft // 2 + 1, M) float32."""
    return torchaudio.functional.melscale_fbanks(
        n_freqs=cfg.n_fft // 2 + 1,
        f_min=cfg.f_min,
        f_max=cfg.f_max,
        n_mels=cfg.n_mels,
        sample_rate=cfg.sample_rate,
        norm=None,
        mel_scale="htk",
    )


class LogMel(nn.Module):
    """Waveform (B, T) → natural-log mel power (B, M, F), after scaling each row to a fixed RMS.

    Output frame k covers samples [k·hop, k·hop + win). The buffers are fixed functions of the configuration: they are no
    parameters and are not stored with the weights.
    """

    def __init__(self, cfg: LogMelConfig) -> None:
        super().__init__()
        self.cfg = cfg
        filters = mel_filters(cfg)
        used = torch.nonzero(filters.sum(dim=1)).flatten()
        low, high = int(used[0]), int(used[-1]) + 1
        n = torch.arange(cfg.win_length, dtype=torch.float64)
        window = torch.hann_window(cfg.win_length, periodic=True, dtype=torch.float64)
        bins = torch.arange(low, high, dtype=torch.float64)
        # The window sits in the middle of n_fft in torchaudio; a shift changes the phase only, and power has none.
        angle = 2.0 * math.pi * bins[:, None] * n[None, :] / cfg.n_fft
        kernels = torch.cat([torch.cos(angle) * window, torch.sin(angle) * window])
        self.n_bins = high - low
        self.kernels: Tensor
        self.mel: Tensor
        self.register_buffer("kernels", kernels.float().unsqueeze(1), persistent=False)  # (2·bins, 1, win)
        self.register_buffer(
            "mel", filters[low:high].T.contiguous().unsqueeze(2), persistent=False
        )  # (M, bins, 1)

    def forward(self, wave_BT: Tensor) -> Tensor:
        """(B, T ≥ 400) samples → (B, M, F), F = (T − 400) // 160 + 1.

        Raises:
            ConfigError: the input is shorter than one window.
        """
        if wave_BT.shape[-1] < self.cfg.win_length:
            raise ConfigError(
                f"log-mel needs at least {self.cfg.win_length} samples, got {wave_BT.shape[-1]}: zero-pad the clip"
            )
        return torch.log(self.mel_power(self.normalise(wave_BT)) + self.cfg.floor)

    def normalise(self, wave_BT: Tensor) -> Tensor:
        """Scale each row to RMS `level`; digital silence stays zero."""
        rms = torch.sqrt(torch.mean(wave_BT * wave_BT, dim=-1, keepdim=True))
        return wave_BT * (self.cfg.level / (rms + self.cfg.rms_floor))

    def mel_power(self, wave_BT: Tensor) -> Tensor:
        """(B, T) → mel power (B, M, F), without normalisation and without logarithm."""
        spectrum = nn.functional.conv1d(wave_BT.unsqueeze(1), self.kernels, stride=self.cfg.hop_length)
        squared = spectrum * spectrum
        power = squared[:, : self.n_bins] + squared[:, self.n_bins :]
        return nn.functional.conv1d(power, self.mel)
