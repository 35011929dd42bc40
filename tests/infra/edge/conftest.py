"""A network whose every part matters to its outputs, and waves at many levels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch

from models.config import preset
from models.network import CryNet


def _stirred(name: str, *, n_mels: int = 64, causal: bool = False) -> CryNet:
    """A network with its zero-initialised parts (adapters, denoiser) stirred up, so that leaving one out shows."""
    net = CryNet(preset(name, n_mels=n_mels, causal=causal), ("hungry", "tired", "burping"), seed=3)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter_name, parameter in net.named_parameters():
            if parameter_name.endswith("lora_b") or ".up1." in parameter_name:
                parameter.normal_(0.0, 0.05, generator=generator)
    return net


@pytest.fixture(scope="session")
def stirred() -> Callable[..., CryNet]:
    """`stirred(preset, n_mels=64, causal=False)` makes one."""
    return _stirred


@pytest.fixture(scope="session")
def tiny_net() -> CryNet:
    return _stirred("tiny")


@pytest.fixture(scope="session")
def waves() -> npt.NDArray[np.float32]:
    """(100, 16000): noise and tones from −120 dB to full scale, digital silence first."""
    rng = np.random.default_rng(0)
    t = np.arange(16_000) / 16_000
    tone = np.sin(2 * np.pi * rng.uniform(100, 3000, (100, 1)) * t)
    mixed = np.where(np.arange(100)[:, None] % 2, tone, rng.normal(size=(100, 16_000)))
    level = np.logspace(-6, 0, 100)[:, None]
    level[0] = 0.0
    return (mixed * level).astype(np.float32)
