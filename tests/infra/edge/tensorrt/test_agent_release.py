"""A release as the pipeline exports it, installed by the real agent with each version of `trtexec`, as the look-alike has them.

The look-alike is NOT TensorRT: it answers what ONNX Runtime answers. What is tested is that plan, graphs and golden clips of a
bundle reach the command lines of each version through the agent, and what comes back reaches the report.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.edge.agent.engine import Board, TensorRT
from infra.edge.bundle import Bundle, load_bundle
from infra.edge.runtime import Graph
from infra.edge.tensorrt.plan import load_plan
from tests.infra.edge.agent.world import Device, Publisher
from tests.infra.edge.tensorrt import logs_of
from tests.infra.edge.tensorrt.conftest import Lookalike
from tests.releases import export_tiny, make_whole_bundle


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("whole")
    return make_whole_bundle(folder / "bundle", export_tiny(folder / "model.onnx"))


@pytest.fixture
def device(tmp_path: Path, release: Bundle, lookalike: Callable[..., Lookalike]) -> Callable[..., Any]:
    """`device("8.5.2", errors={"fp16": 0.02})`: a device that is asked for the release, and its `trtexec`."""

    def make(version: str, **scenario: Any) -> tuple[Device, Lookalike]:
        frames = np.frombuffer(release.read("golden/inputs.f32"), "<f4").reshape(-1, 16_000)
        found = Graph(release.read("model.onnx")).run(frames)
        outputs = {name: values.reshape(-1).tolist() for name, values in found.items()}
        files = {"times": logs_of.times([2.0, 4.0]), "profile": logs_of.PROFILE}
        program = lookalike(version, outputs=outputs, **files, **scenario)
        publisher = Publisher(tmp_path / "store")
        publisher.want(publisher.release_bundle(1, release))
        backend = TensorRT(str(program.path), tmp_path / "tensorrt", board=lambda: Board("t", "R1.0"))
        return Device(tmp_path / "device", publisher, backend=backend), program

    return make


@pytest.mark.parametrize(
    ("version", "precision"), [("8.2.1", "fp16"), ("8.5.2", "fp16"), ("10.3.0", "fp16"), ("11.1.0", "typed")]
)
def test_a_whole_release(device: Callable[..., Any], release: Bundle, version: str, precision: str) -> None:
    there, program = device(version)
    assert there.refusal() is None, there.log
    current = there.config.folder / "current"
    assert load_bundle(current / "bundle").digest == release.digest == there.current
    health = there.report()["health"]
    assert health["backend"] == f"tensorrt {version} {precision}"
    # the golden outputs are rounded to six decimals
    assert (health["max_difference"] < 2e-6, health["argmax_agreement"]) == (True, 1.0)
    assert (health["p50_ms"], health["p95_ms"]) == (3.0, pytest.approx(3.9))
    assert there.report()["info"]["transformer_ms"] == 4.0
    (build,) = [call for call in program.calls() if any(part.startswith("--saveEngine") for part in call)]
    graph = "model.typed.onnx" if precision == "typed" else "model.onnx"
    assert f"--onnx={there.config.folder}/slots/a/bundle/{graph}" in build
    layers = [part for part in build if part.startswith("--layerPrecisions=")]
    kept = (
        []
        if version in ("8.2.1", "11.1.0")
        else [
            "--layerPrecisions="
            + ",".join(f"{n}:fp32" for n in load_plan(release.read("tensorrt.json")).fp32_layers)
        ]
    )
    assert layers == kept


def test_a_whole_release_that_no_precision_gets_right(device: Callable[..., Any]) -> None:
    there, _ = device("10.3.0", errors={"fp16": 0.02, "fp32": 0.011})
    status = there.poll()
    assert status.error is not None
    assert (status.error["kind"], there.current) == ("Unhealthy", None)
    assert "fp16 engine differs from the reference by 0.0200" in status.error["message"]
    assert "fp32 engine differs from the reference by 0.0110" in status.error["message"]
