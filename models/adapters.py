"""Low-rank adapters (LoRA, arXiv 2106.09685) and the flat vector that travels.

Everything between sites is one float32 vector (P,) whose layout, the *schema*, is fixed by the network and by what is trained:
adapters and heads, or the parts of the gate's own phase (`models.gate_step`). Names in module order, shapes, offsets; its digest
goes with every message, so that two sites can never average different things.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.errors import FederationError

Vector = npt.NDArray[np.float32]

Trained = Literal["adapters", "gate", "gate and denoiser"]
"""What learns and travels: adapters and heads; or tokenizer, backbone and heads; or these and the denoiser."""

_GATE: Final = ("tokenizer.", "transformer.", "gate_head.", "reason_head.")


class LoraLinear(nn.Module):
    """y = x Wᵀ + b + (α/r) · x Aᵀ Bᵀ, with W and b frozen in the federation. B starts at zero, so does the adapter."""

    def __init__(self, d_in: int, d_out: int, rank: int, alpha: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(d_out, d_in))
        self.bias = nn.Parameter(torch.zeros(d_out))
        self.lora_a = nn.Parameter(torch.empty(rank, d_in))
        self.lora_b = nn.Parameter(torch.zeros(d_out, rank))
        self.scale = alpha / rank
        self.active = (
            True  # off while the backbone is pretrained: a zero adapter would still cost its matmuls
        )
        nn.init.trunc_normal_(self.weight, std=1.0 / math.sqrt(d_in))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """(…, d_in) → (…, d_out)."""
        y = nn.functional.linear(x, self.weight, self.bias)
        if not self.active:
            return y
        return y + (x @ self.lora_a.T) @ (self.scale * self.lora_b.T)

    @torch.no_grad()
    def merge(self) -> None:
        """Fold the adapter into the weight, once; the graph then holds no trace of it."""
        if self.active:
            self.weight.add_(self.lora_b @ self.lora_a, alpha=self.scale)
            self.active = False


@dataclass(frozen=True)
class Entry:
    """One trained tensor and where it lies in the vector."""

    name: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class AdapterSchema:
    """The layout of the trained vector."""

    entries: tuple[Entry, ...]

    @property
    def size(self) -> int:
        """P, the length of the vector."""
        return sum(e.size for e in self.entries)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over names and shapes in order, 64 hex digits."""
        layout = [[e.name, list(e.shape)] for e in self.entries]
        return hashlib.sha256(json.dumps(layout, separators=(",", ":")).encode()).hexdigest()

    def slices(self) -> dict[str, slice]:
        """Where each tensor lies in the vector."""
        return {e.name: slice(e.offset, e.offset + e.size) for e in self.entries}

    def check(self, vector: Vector, what: str = "vector") -> None:
        """Refuse a vector that this schema does not describe.

        Raises:
            FederationError: wrong dtype, shape, or a value that is not finite.
        """
        if vector.dtype != np.float32 or vector.shape != (self.size,):
            raise FederationError(
                f"{what} is {vector.dtype} {vector.shape}, the schema {self.digest[:12]} needs float32 ({self.size},): "
                "was it made with another preset, rank or label set?"
            )
        if not np.isfinite(vector).all():
            bad = int(np.flatnonzero(~np.isfinite(vector))[0])
            name = next(e.name for e in self.entries if e.offset <= bad < e.offset + e.size)
            raise FederationError(f"{what} holds a value that is not finite, first at {bad} ({name})")


def is_trained(name: str, *, freeze_a: bool, trained: Trained = "adapters") -> bool:
    """Whether a parameter of the network travels."""
    if trained != "adapters":
        parts = (*_GATE, "denoiser.") if trained == "gate and denoiser" else _GATE
        return name.startswith(parts) and "lora_" not in name
    if name.endswith("lora_a"):
        return not freeze_a
    return name.endswith("lora_b") or name.startswith(("gate_head.", "reason_head."))


def _freeze_a(net: nn.Module) -> bool:
    return bool(getattr(getattr(net, "cfg", None), "freeze_a", False))


def trained_parameters(net: nn.Module, trained: Trained = "adapters") -> Iterator[tuple[str, nn.Parameter]]:
    """What is trained, in schema order."""
    freeze_a = _freeze_a(net)
    return ((n, p) for n, p in net.named_parameters() if is_trained(n, freeze_a=freeze_a, trained=trained))


def adapter_schema(net: nn.Module, trained: Trained = "adapters") -> AdapterSchema:
    """The layout of `net`'s trained vector."""
    entries, offset = [], 0
    for name, parameter in trained_parameters(net, trained):
        entries.append(Entry(name, tuple(parameter.shape), offset))
        offset += parameter.numel()
    return AdapterSchema(tuple(entries))


def get_vector(net: nn.Module, trained: Trained = "adapters") -> Vector:
    """Copy of the trained parameters, float32 (P,)."""
    with torch.no_grad():
        parts = [p.detach().reshape(-1).numpy() for _, p in trained_parameters(net, trained)]
    return np.concatenate(parts).astype(np.float32)


def set_vector(net: nn.Module, theta: Vector, trained: Trained = "adapters") -> None:
    """Write the trained parameters in place.

    Raises:
        FederationError: `theta` does not fit the network's schema or is not finite.
    """
    adapter_schema(net, trained).check(theta, "θ")
    source = torch.from_numpy(np.array(theta, dtype=np.float32))
    offset = 0
    with torch.no_grad():
        for _, parameter in trained_parameters(net, trained):
            count = parameter.numel()
            parameter.copy_(source[offset : offset + count].view_as(parameter))
            offset += count


def train_only(net: nn.Module, trained: Trained = "adapters") -> None:
    """Gradients for what is trained alone."""
    freeze_a = _freeze_a(net)
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(is_trained(name, freeze_a=freeze_a, trained=trained))


@contextmanager
def adapters_off(net: nn.Module) -> Iterator[None]:
    """Run the backbone without its adapters."""
    layers = [m for m in net.modules() if isinstance(m, LoraLinear) and m.active]
    for layer in layers:
        layer.active = False
    try:
        yield
    finally:
        for layer in layers:
            layer.active = True


def merge_adapters(net: nn.Module) -> None:
    """Fold all adapters into their weights, in place (on a copy, if the network is to train on)."""
    for module in net.modules():
        if isinstance(module, LoraLinear):
            module.merge()
