"""A real release of the tiny preset through the real runner: ONNX Runtime in a process of its own, against the graph."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from infra.edge.agent.build import OnnxRuntime
from infra.edge.bundle import describe_files, load_bundle
from infra.edge.runtime import Graph
from tests.infra.edge.agent.world import Device, Publisher, refuses
from tests.releases import export_tiny

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def release_files(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, bytes]]:
    """`release_files(reason_head=True, drift=0.0)`: graph, golden clips, and what the graph gives for them."""
    folder = tmp_path_factory.mktemp("tiny")

    def make(*, reason_head: bool = True, drift: float = 0.0) -> dict[str, bytes]:
        model = export_tiny(folder / f"{reason_head}.onnx", reason_head=reason_head).read_bytes()
        frames = np.random.default_rng(0).normal(0, 0.1, (12, 16_000)).astype("<f4")
        found = Graph(model).run(frames)
        names = ["gate_probability", "energy", *(["reason_probabilities"] if reason_head else [])]
        golden = {name: found[name].tolist() for name in names}
        golden["gate_probability"] = [p + drift for p in golden["gate_probability"]]
        return {
            "model.onnx": model,
            "golden/inputs.f32": frames.tobytes(),
            "golden/outputs.json": json.dumps(golden).encode(),
        }

    return make


@pytest.mark.parametrize("reason_head", [True, False])
def test_a_real_release(
    tmp_path: Path, release_files: Callable[..., dict[str, bytes]], reason_head: bool
) -> None:
    publisher = Publisher(tmp_path / "store")
    files = release_files(reason_head=reason_head)
    digest = publisher.release(1, files)
    publisher.want(digest)
    device = Device(tmp_path / "device", publisher, backend=OnnxRuntime(sys.executable))
    assert device.refusal() is None, device.log
    health = device.report()["health"]
    assert health["max_difference"] < 1e-5
    assert health["argmax_agreement"] == 1.0
    assert health["backend"].startswith("onnxruntime 1.")
    assert 0 < health["p50_ms"] <= health["p95_ms"] < 1000
    bundle = load_bundle(device.config.folder / "current" / "bundle")
    assert bundle.digest == digest == device.current
    assert bundle.manifest.files == describe_files({name: bundle.path(name) for name in files})


def test_golden_clips_of_another_graph(
    tmp_path: Path, release_files: Callable[..., dict[str, bytes]]
) -> None:
    publisher = Publisher(tmp_path / "store")
    publisher.want(publisher.release(1, release_files()))
    device = Device(tmp_path / "device", publisher, backend=OnnxRuntime(sys.executable))
    assert device.refusal() is None
    publisher.want(publisher.release(2, release_files(drift=0.02)))
    refuses(device, "Unhealthy", says="differs from the reference by 0.0200")
