"""A network whose every part matters to its outputs, and waves at many levels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import soundfile
import torch

from infra.edge.bundle import Bundle, describe_files, write_bundle
from infra.edge.export import export_onnx
from infra.edge.release import BundleManifest, DataProvenance
from models.config import preset
from models.network import CryNet
from models.segmentation import VadConfig


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
def tiny_graph(tiny_net: CryNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_net`, exported."""
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    export_onnx(tiny_net, path)
    return path


@pytest.fixture(scope="session")
def gate_graph(tiny_net: CryNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_net` without its reason head."""
    path = tmp_path_factory.mktemp("gate") / "model.onnx"
    export_onnx(tiny_net, path, reason_head=False)
    return path


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """30 clips of 10 infants and 2 noise classes at 2 sites: 12 cries (2 of a reason no release knows), 1 unlabelled."""
    rng = np.random.default_rng(1)
    folder = tmp_path / "corpus"
    folder.mkdir()
    rows = []
    for i in range(30):
        group = f"g{i % 10}"
        role = "cry" if i % 5 < 2 else "ood_noncry"
        label = ["hungry", "tired", "burping", "colic"][i % 4] if role == "cry" else "speech"
        site = f"site0{(i % 10) // 5}"
        if i >= 26:
            role, label, group, site = "noise", f"fan{i % 2}", f"fan{i % 2}", ""
        if i == 25:
            role, label = "unlabelled", "unknown"
        wave = 0.1 * rng.normal(size=20_000) * np.sin(np.linspace(0, 20 + i, 20_000))
        path = folder / f"clip{i:02}.wav"
        soundfile.write(path, wave, 16_000)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        rows.append((path.name, label, role, "test", group, digest, site))
    table = pd.DataFrame(rows, columns=["path", "label", "role", "corpus", "group", "sha256", "site"])
    table.to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


@pytest.fixture
def make_bundle(tiny_graph: Path, tmp_path: Path) -> Callable[..., Bundle]:
    """`make_bundle(field=value, …)` writes a release of `tiny_net` and returns it."""

    def make(folder: str = "release", graph: Path = tiny_graph, **changes: Any) -> Bundle:
        fields: dict[str, Any] = {
            "heads": ("gate", "reason"),
            "reasons": ("hungry", "tired", "burping"),
            "model": preset("tiny").to_dict(),
            "vad": asdict(VadConfig()),
            "data": DataProvenance(manifest_digest="a" * 64, synthetic=True),
            "files": describe_files({"model.onnx": graph}),
            **changes,
        }
        return write_bundle(tmp_path / folder, BundleManifest(**fields), {"model.onnx": graph})

    return make


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
