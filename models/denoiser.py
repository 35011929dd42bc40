"""Denoising autoencoder on standardised log-mel, with the spectral-gradient loss of arXiv 2512.13880.

L = ‖X̂ − X‖² + λt‖∇t X̂ − ∇t X‖² + λf‖∇f X̂ − ∇f X‖²: the two gradient terms keep onsets and harmonics, which plain squared
error smears. The output is the input plus a correction that starts at zero: an untrained denoiser is the identity.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Denoiser(nn.Module):
    """(B, M, F) standardised log-mel → the same shape, noise and masked gaps removed.

    Overlapping patches of 8 bins × 4 frames every 4 × 2, a bottleneck along time that sees all frequencies at once (noise is told
    from voice by both), and transposed patches back.
    """

    def __init__(self, channels: int, n_mels: int) -> None:
        super().__init__()
        self.width = channels * (n_mels // 4)
        self.channels = channels
        self.down = nn.Conv2d(1, channels, (8, 4), stride=(4, 2), padding=(2, 1))
        self.mix_in = nn.Conv1d(self.width, 8 * channels, 3, padding=1)
        self.mix_out = nn.Conv1d(8 * channels, self.width, 1)
        self.up = nn.ConvTranspose2d(channels, 1, (8, 4), stride=(4, 2), padding=(2, 1))
        self.act = nn.GELU()
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)  # type: ignore[arg-type]

    def forward(self, x_BMF: Tensor) -> Tensor:
        """Denoised log-mel, same shape and scale as the input."""
        patches = self.act(self.down(x_BMF.unsqueeze(1)))  # (B, channels, M / 4, F / 2)
        # as plain numbers, so that a trace holds them as constants: shape arithmetic in the graph is one risk more on a device
        rows, steps = int(patches.shape[2]), int(patches.shape[3])
        mixed = self.mix_out(self.act(self.mix_in(patches.reshape(-1, self.width, steps))))
        patches = self.act(patches + mixed.reshape(-1, self.channels, rows, steps))
        return x_BMF + self.up(patches).squeeze(1)


def denoising_loss(estimate: Tensor, clean: Tensor, lambda_t: float, lambda_f: float) -> Tensor:
    """Mean squared error plus its gradients along time (last axis) and frequency, all (B, M, F)."""
    error = estimate - clean
    along_t = torch.diff(error, dim=2)
    along_f = torch.diff(error, dim=1)
    return error.square().mean() + lambda_t * along_t.square().mean() + lambda_f * along_f.square().mean()
