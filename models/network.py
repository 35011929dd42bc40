"""The whole network: waveform → log-mel → denoiser → tokens → Transformer → gate, reasons, energy.

What is unusual here:
- the front end is part of the network (one graph from samples to probabilities), and every frame is scaled to one RMS first;
- log-mel, denoiser and tokenizer are frozen after pretraining, so a site computes its tokens once and trains on them;
- what trains in the federation are adapters and heads only, as one flat vector (`models.adapters`);
- the energy is a function of the reason logits, trained against the sites' own non-cries (outlier exposure, arXiv 2010.03759).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.config import ModelConfig
from models.denoiser import Denoiser
from models.errors import ConfigError
from models.log_mel import LogMel
from models.tokenizer import Tokenizer
from models.transformer import Transformer


class Outputs(NamedTuple):
    """Per one-second frame: gate logit (B,), reason logits (B, C), energy (B,) (low = like the cries of training)."""

    gate_logit: Tensor
    reason_logits: Tensor
    energy: Tensor


def _head(d_model: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(d_model, hidden), nn.GELU(), nn.Linear(hidden, out))


class CryNet(nn.Module):
    """The network of one configuration and one label set, initialised from `seed` alone.

    Raises:
        ConfigError: fewer than two reasons, or a repeated one.
    """

    def __init__(self, cfg: ModelConfig, reasons: Sequence[str], *, seed: int = 0) -> None:
        super().__init__()
        if len(reasons) < 2 or len(set(reasons)) != len(reasons):
            raise ConfigError(f"the reason head needs at least two distinct labels, got {list(reasons)}")
        self.cfg = cfg
        self.reasons = tuple(reasons)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.front_end = LogMel(cfg.log_mel)
            self.denoiser = Denoiser(cfg.denoiser_channels, cfg.log_mel.n_mels)
            self.tokenizer = Tokenizer(cfg)
            self.transformer = Transformer(cfg)
            self.gate_head = _head(cfg.d_model, cfg.head_hidden, 1)
            self.reason_head = _head(cfg.d_model, cfg.head_hidden, len(self.reasons))

    def log_mel(self, wave_BT: Tensor) -> Tensor:
        """(B, 16000) samples → (B, M, F) natural-log mel of the level-normalised frame."""
        return self.front_end(wave_BT)

    def standardise(self, x_BMF: Tensor) -> Tensor:
        """Fixed shift and scale: log-mel → the denoiser's units."""
        return (x_BMF - self.cfg.log_mel.mean) * (1.0 / self.cfg.log_mel.std)

    def denoise(self, x_BMF: Tensor) -> Tensor:
        """Log-mel → standardised, denoised log-mel (B, M, F)."""
        return self.denoiser(self.standardise(x_BMF))

    def tokens(self, x_BMF: Tensor) -> Tensor:
        """Log-mel (B, M, F) → tokens (B, L, D): everything that is frozen in the federation and can be cached."""
        return self.tokenizer(self.denoise(x_BMF))

    def features(self, tokens_BLD: Tensor) -> Tensor:
        """Tokens (B, L, D) → one vector per frame (B, D): the mean over the Transformer's outputs."""
        return self.transformer(tokens_BLD).mean(dim=1)

    def classify(self, tokens_BLD: Tensor) -> Outputs:
        """Tokens (B, L, D) → outputs."""
        pooled = self.features(tokens_BLD)
        reason_logits = self.reason_head(pooled)
        return Outputs(self.gate_head(pooled).squeeze(1), reason_logits, self.energy(reason_logits))

    def energy(self, reason_logits_BC: Tensor) -> Tensor:
        """−T · logsumexp(logits / T), (B,): arXiv 2010.03759, equation 4."""
        t = self.cfg.energy_temperature
        return -t * torch.logsumexp(reason_logits_BC / t, dim=1)

    def forward(self, wave_BT: Tensor) -> Outputs:
        """(B, 16000) samples → outputs."""
        return self.classify(self.tokens(self.log_mel(wave_BT)))
