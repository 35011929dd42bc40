"""Rewrites of a trained network before it is traced: the same function in fewer, larger operations.

Query, key and value come from one matrix product, and the scale of the scores lies in its weights: a third of the launches on a
GPU, and fewer small operations around each product on a CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.errors import ExportError
from models.transformer import Attention, Block


class FusedAttention(nn.Module):
    """`models.transformer.Attention` with merged adapters, (B, L, D) → (B, L, D), as one projection and two products.

    Raises:
        ExportError: an adapter is still active: its two factors would be lost here.
    """

    def __init__(self, source: Attention) -> None:
        super().__init__()
        parts = (source.q, source.k, source.v)
        if any(part.active for part in (*parts, source.o)):
            raise ExportError("attention cannot be fused while its adapters are active: merge them first")
        self.n_heads, self.d_head = source.n_heads, source.d_head
        self.length, self.d_model = source.length, source.d_model
        scale = source.d_head**-0.5
        with torch.no_grad():
            weight = torch.cat([source.q.weight * scale, source.k.weight, source.v.weight])
            bias = torch.cat([source.q.bias * scale, source.k.bias, source.v.bias])
        self.qkv = nn.Linear(self.d_model, 3 * self.d_model)
        self.qkv.weight = nn.Parameter(weight)
        self.qkv.bias = nn.Parameter(bias)
        self.o = source.o

    def forward(self, x_BLD: Tensor, mask_LL: Tensor | None) -> Tensor:
        """Attend; `mask_LL` is additive."""
        heads = self.qkv(x_BLD).reshape(-1, self.length, 3 * self.n_heads, self.d_head).transpose(1, 2)
        q, k, v = heads.split(self.n_heads, dim=1)  # (B, H, L, d) each
        scores = q @ k.transpose(2, 3)
        if mask_LL is not None:
            scores = scores + mask_LL
        mixed = torch.softmax(scores, dim=-1) @ v
        return self.o(mixed.transpose(1, 2).reshape(-1, self.length, self.d_model))


def fuse_attention(net: nn.Module) -> None:
    """Replace every attention of `net`, in place; on a copy, because what is left cannot be trained further.

    Raises:
        ExportError: adapters are not merged.
    """
    for module in net.modules():
        if isinstance(module, Block):
            module.attention = FusedAttention(module.attention)  # type: ignore[assignment]
