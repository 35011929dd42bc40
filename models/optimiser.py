"""The optimiser of pretraining and of the gate: AdamW (arXiv 1711.05101), decaying matrices and kernels alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


def adamw(parameters: Sequence[nn.Parameter], lr: float, weight_decay: float) -> torch.optim.AdamW:
    """An optimiser over parameters of which biases and norms are not decayed."""
    decayed = [p for p in parameters if p.ndim >= 2]
    rest = [p for p in parameters if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True)
