"""A real engine on a real GPU: built, run on golden frames, compared, timed. Skips, with the reason, where there is none."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from infra.edge.export import export_onnx
from infra.edge.runtime import Graph
from infra.edge.tensorrt.build import Golden, Tool, build, find_trtexec, measure
from infra.edge.tensorrt.cache import EngineCache
from infra.edge.tensorrt.precision import plan_of
from infra.edge.tensorrt.typed import typed_graph
from models.network import CryNet


@pytest.fixture(scope="module")
def tool() -> Tool:
    """`trtexec` of this machine."""
    found = find_trtexec()
    if found is None:
        pytest.skip("no TensorRT here: trtexec is neither on the path nor where JetPack puts it")
    gpu = Path("/dev/nvhost-gpu").exists() or (
        shutil.which("nvidia-smi")
        and subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=False).returncode == 0
    )
    if not gpu:
        pytest.skip(f"TensorRT {found.version} is here, but no NVIDIA GPU to build for")
    return found


@pytest.mark.gpu
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", ["tiny", "compact", "paper"])
def test_builds_runs_and_agrees(
    tool: Tool, tmp_path: Path, stirred: Callable[..., CryNet], waves: np.ndarray, name: str
) -> None:
    path, typed = tmp_path / "model.onnx", tmp_path / "model.typed.onnx"
    export_onnx(stirred(name), path)
    model = onnx.load(str(path))
    typed.write_bytes(typed_graph(model).SerializeToString())
    plan = plan_of(model)
    reference = {n: v.reshape(-1).tolist() for n, v in Graph(path.read_bytes()).run(waves).items()}
    golden = Golden(waves.astype("<f4").tobytes(), reference)
    cache = EngineCache(tmp_path / "cache")
    built = build(
        tool, {"fp32": path, "typed": typed}, plan, golden, cache, soc="test", jetpack="test", work=tmp_path
    )
    assert built.parity.accepted
    assert built.parity.frames == len(waves)
    timing = measure(tool, built.engine, plan, tmp_path, seconds=3)
    assert 0 < timing.latency.p50 <= timing.latency.p95 <= timing.latency.p99
    assert sum(timing.components.values()) > 0
    print(
        f"\nTensorRT {tool.version}, {name}, {built.precision}: {built.parity}, {timing}, refused: {built.refused}"
    )
