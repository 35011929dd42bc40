"""Pre-norm Transformer with low-rank adapters on q, k, v, o and both feed-forward matrices.

Attention is written as matmul and softmax: `scaled_dot_product_attention` does not export to opset 13. LayerNorm and GELU
decompose into primitives there, which TensorRT 8.2 has.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.adapters import LoraLinear
from models.config import ModelConfig


def causal_mask(n_bands: int, steps: int) -> Tensor:
    """Additive mask (L, L) for band-major tokens: a token sees every band up to its own time step, and nothing later."""
    time = torch.arange(steps).repeat(n_bands)
    # −1e4 and not −inf: it stays finite in fp16, and its softmax is exactly zero
    return torch.where(time[None, :] <= time[:, None], 0.0, -1.0e4)


class Attention(nn.Module):
    """Multi-head self-attention (B, L, D) → (B, L, D)."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        d, rank, alpha = cfg.d_model, cfg.lora_rank, cfg.lora_alpha
        self.n_heads = cfg.n_heads
        self.d_head = d // cfg.n_heads
        self.d_model = d
        self.length = cfg.n_tokens
        self.q = LoraLinear(d, d, rank, alpha)
        self.k = LoraLinear(d, d, rank, alpha)
        self.v = LoraLinear(d, d, rank, alpha)
        self.o = LoraLinear(d, d, rank, alpha)

    def _heads(self, x: Tensor) -> Tensor:
        return x.reshape(-1, self.length, self.n_heads, self.d_head).transpose(1, 2)  # (B, H, L, d)

    def forward(self, x_BLD: Tensor, mask_LL: Tensor | None) -> Tensor:
        """Attend; `mask_LL` is additive."""
        q, k, v = self._heads(self.q(x_BLD)), self._heads(self.k(x_BLD)), self._heads(self.v(x_BLD))
        scores = (q * (1.0 / math.sqrt(self.d_head))) @ k.transpose(2, 3)  # (B, H, L, L)
        if mask_LL is not None:
            scores = scores + mask_LL
        mixed = torch.softmax(scores, dim=-1) @ v
        return self.o(mixed.transpose(1, 2).reshape(-1, self.length, self.d_model))


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(cfg.d_model)
        self.attention = Attention(cfg)
        self.norm2 = nn.LayerNorm(cfg.d_model)
        self.ff1 = LoraLinear(cfg.d_model, cfg.d_ff, cfg.lora_rank, cfg.lora_alpha)
        self.ff2 = LoraLinear(cfg.d_ff, cfg.d_model, cfg.lora_rank, cfg.lora_alpha)
        self.act = nn.GELU()
        self.drop = nn.Dropout(cfg.dropout)

    def forward(self, x_BLD: Tensor, mask_LL: Tensor | None) -> Tensor:
        """(B, L, D) → (B, L, D)."""
        x_BLD = x_BLD + self.drop(self.attention(self.norm1(x_BLD), mask_LL))
        return x_BLD + self.drop(self.ff2(self.act(self.ff1(self.norm2(x_BLD)))))


class Transformer(nn.Module):
    """The stack and its final norm."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(cfg) for _ in range(cfg.n_layers)])
        self.norm = nn.LayerNorm(cfg.d_model)
        mask = causal_mask(cfg.n_bands, cfg.n_tokens // cfg.n_bands) if cfg.causal else None
        self.mask: Tensor | None
        self.register_buffer("mask", mask, persistent=False)
        # residual branches start small, so that depth does not scale the stream (GPT-2's initialisation)
        shrink = 1.0 / math.sqrt(2.0 * cfg.n_layers)
        with torch.no_grad():
            for block in self.blocks:
                block.attention.o.weight.mul_(shrink)  # type: ignore[union-attr,operator]
                block.ff2.weight.mul_(shrink)  # type: ignore[union-attr,operator]

    def forward(self, x_BLD: Tensor) -> Tensor:
        """(B, L, D) → (B, L, D)."""
        for block in self.blocks:
            x_BLD = block(x_BLD, self.mask)
        return self.norm(x_BLD)
