"""Denoising autoencoder on standardised log-mel, with the spectral-gradient loss of arXiv 2512.13880.

L = ‖X̂ − X‖² + λt‖∇t X̂ − ∇t X‖² + λf‖∇f X̂ − ∇f X‖²: the two gradient terms keep onsets and harmonics, which plain squared
error smears. The output is the input plus a correction that starts at zero: an untrained denoiser is the identity.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Denoiser(nn.Module):
    """(B, M, F) standardised log-mel → the same shape, noise and masked gaps removed.

    Two strided 2D convolutions down, a time-wise mixing layer that sees all frequencies of the bottleneck, and two transposed
    convolutions up with a skip at half resolution.
    """

    def __init__(self, channels: int, n_mels: int, n_frames: int) -> None:
        super().__init__()
        narrow = max(4, channels // 2)
        rows = n_mels // 4
        self.down1 = nn.Conv2d(1, narrow, 4, stride=2, padding=1)
        self.down2 = nn.Conv2d(narrow, channels, 4, stride=2, padding=1)
        self.mix_in = nn.Conv1d(channels * rows, 4 * channels, 3, padding=1)
        self.mix_out = nn.Conv1d(4 * channels, channels * rows, 3, padding=1)
        # 98 → 49 → 24 loses half a step on the way down; output_padding brings it back
        odd = (n_frames // 2) % 2
        self.up2 = nn.ConvTranspose2d(channels, narrow, 4, stride=2, padding=1, output_padding=(0, odd))
        self.up1 = nn.ConvTranspose2d(narrow, 1, 4, stride=2, padding=1, output_padding=(0, n_frames % 2))
        self.act = nn.GELU()
        self.channels, self.rows = channels, rows
        nn.init.zeros_(self.up1.weight)
        nn.init.zeros_(self.up1.bias)  # type: ignore[arg-type]

    def forward(self, x_BMF: Tensor) -> Tensor:
        """Denoised log-mel, same shape and scale as the input."""
        half = self.act(self.down1(x_BMF.unsqueeze(1)))
        quarter = self.act(self.down2(half))
        steps = quarter.shape[3]
        flat = quarter.reshape(-1, self.channels * self.rows, steps)
        mixed = self.mix_out(self.act(self.mix_in(flat)))
        quarter = quarter + mixed.reshape(-1, self.channels, self.rows, steps)
        half = half + self.act(self.up2(quarter))
        return x_BMF + self.up1(half).squeeze(1)


def denoising_loss(estimate: Tensor, clean: Tensor, lambda_t: float, lambda_f: float) -> Tensor:
    """Mean squared error plus its gradients along time (last axis) and frequency, all (B, M, F)."""
    error = estimate - clean
    along_t = torch.diff(error, dim=2)
    along_f = torch.diff(error, dim=1)
    return error.square().mean() + lambda_t * along_t.square().mean() + lambda_f * along_f.square().mean()
