"""Convolutional tokenizer: one second of log-mel becomes 24 tokens per frequency band.

Time goes 98 → 49 → 24 by two kernel-4, stride-2 convolutions, about 41 ms a token: short enough for the rhythm of a cry. 64 mel
bins make one band (24 tokens); 128 make two that share all weights and differ by a band embedding (48 tokens).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.config import ModelConfig


class Tokenizer(nn.Module):
    """(B, M, F) standardised log-mel → tokens (B, L, D) with position and band embeddings added. Band-major order."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        c1, c2, c3 = cfg.tokenizer_channels
        self.n_bands = cfg.n_bands
        self.steps = cfg.log_mel.n_frames // 4
        rows = cfg.log_mel.n_mels // 8 // self.n_bands
        self.conv1 = nn.Conv2d(1, c1, 4, stride=2, padding=1)
        self.conv2 = nn.Conv2d(c1, c2, 4, stride=2, padding=1)
        self.conv3 = nn.Conv2d(c2, c3, 3, stride=(2, 1), padding=1)
        self.act = nn.GELU()
        self.project = nn.Linear(c3 * rows, cfg.d_model)
        self.position = nn.Parameter(0.02 * torch.randn(self.steps, cfg.d_model))
        self.band = nn.Parameter(0.02 * torch.randn(self.n_bands, cfg.d_model))
        self.width = c3 * rows
        self.d_model = cfg.d_model

    def forward(self, x_BMF: Tensor) -> Tensor:
        """Tokens (B, L, D), L = bands · 24."""
        x = self.act(self.conv1(x_BMF.unsqueeze(1)))
        x = self.act(self.conv2(x))
        x = self.act(self.conv3(x))  # (B, c3, rows · bands, 24)
        channels = int(x.shape[1])  # a plain number: a constant of the traced graph
        x = x.reshape(-1, channels, self.n_bands, self.width // channels, self.steps)
        x = x.permute(0, 2, 4, 1, 3).reshape(-1, self.n_bands, self.steps, self.width)
        x = self.project(x) + self.position + self.band.unsqueeze(1)
        return x.reshape(-1, self.n_bands * self.steps, self.d_model)
