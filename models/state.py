"""The network's weights as named numpy arrays, for whatever stores them (safetensors; nothing here does I/O)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from models.adapters import is_trained
from models.errors import ConfigError

Arrays = dict[str, npt.NDArray[np.float32]]
Which = Literal["all", "frozen", "trained"]


def to_arrays(net: nn.Module, which: Which = "all") -> Arrays:
    """Copies of the network's parameters by name, float32, in module order.

    `frozen` is what never travels in the federation (denoiser, tokenizer, backbone, and A under FFA); `trained` is the rest,
    which also exists as a flat vector (`models.adapters.get_vector`).
    """
    freeze_a = bool(getattr(getattr(net, "cfg", None), "freeze_a", False))
    arrays: Arrays = {}
    for name, parameter in net.named_parameters():
        if which == "all" or (which == "trained") == is_trained(name, freeze_a=freeze_a):
            arrays[name] = parameter.detach().numpy().astype(np.float32, copy=True)
    return arrays


def load_arrays(net: nn.Module, arrays: Arrays, which: Which = "all") -> None:
    """Write named arrays into the network, in place; nothing is written unless all fit.

    Raises:
        ConfigError: a tensor is missing, unexpected, of another shape, or not finite; the message names it.
    """
    expected = to_arrays(net, which)
    missing, extra = sorted(set(expected) - set(arrays)), sorted(set(arrays) - set(expected))
    if missing or extra:
        raise ConfigError(f"weights do not fit the network: missing {missing[:3]}, unexpected {extra[:3]}")
    for name, array in arrays.items():
        if array.shape != expected[name].shape:
            raise ConfigError(
                f"weights do not fit the network: {name} is {array.shape}, needs {expected[name].shape}; "
                "were they made with another preset or label set?"
            )
        if not np.isfinite(array).all():
            raise ConfigError(f"weights hold a value that is not finite in {name}")
    named = dict(net.named_parameters())
    with torch.no_grad():
        for name, array in arrays.items():
            named[name].copy_(torch.from_numpy(np.array(array, dtype=np.float32)))


@dataclass(frozen=True)
class ParameterCount:
    """Learned parameters; the fixed mel kernels are none."""

    total: int
    adapters: int
    heads: int
    denoiser: int
    tokenizer: int
    transformer: int  # without adapters

    @property
    def trained(self) -> int:
        """What travels: adapters and heads."""
        return self.adapters + self.heads


def count_parameters(net: nn.Module) -> ParameterCount:
    """Count by part."""
    sizes = {name: p.numel() for name, p in net.named_parameters()}

    def total(*prefixes: str) -> int:
        return sum(n for name, n in sizes.items() if name.startswith(prefixes) and "lora_" not in name)

    return ParameterCount(
        total=sum(sizes.values()),
        adapters=sum(n for name, n in sizes.items() if "lora_" in name),
        heads=total("gate_head.", "reason_head."),
        denoiser=total("denoiser."),
        tokenizer=total("tokenizer."),
        transformer=total("transformer."),
    )
