"""NVIDIA's own parser and builder take our graphs, without a GPU (TensorRT for RTX; its engines are not for Jetson)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from infra.edge.export import export_onnx
from infra.edge.tensorrt import rtx
from infra.edge.tensorrt.precision import plan_of
from infra.edge.tensorrt.typed import typed_graph
from models.errors import ExportError
from models.network import CryNet

_ABSENT = rtx.available()
pytestmark = pytest.mark.skipif(_ABSENT is not None, reason=str(_ABSENT))


@pytest.mark.parametrize("name", ["tiny", "compact", "paper"])
def test_graphs_parse_and_engines_build(tmp_path: Path, stirred: Callable[..., CryNet], name: str) -> None:
    path = tmp_path / "model.onnx"
    export_onnx(stirred(name), path, reason_head=True)
    model = onnx.load(str(path))
    plan, weights = plan_of(model), sum(len(t.raw_data) for t in model.graph.initializer)
    assert "reason_logits" in plan.outputs
    assert rtx.parse(path.read_bytes()) > len(model.graph.node) // 2
    engine = rtx.build(path.read_bytes(), plan)
    assert len(engine) > weights  # they are in it


def test_the_typed_graph_builds_and_halves_the_weights(
    tmp_path: Path, stirred: Callable[..., CryNet]
) -> None:
    export_onnx(stirred("compact"), tmp_path / "model.onnx")
    model = onnx.load(str(tmp_path / "model.onnx"))
    typed = typed_graph(model).SerializeToString()
    engines = [len(rtx.build(data, plan_of(model))) for data in (model.SerializeToString(), typed)]
    assert engines[1] < engines[0] - 1_000_000


@pytest.mark.parametrize(("n_mels", "causal"), [(128, False), (64, True)])
def test_options_of_the_network_parse_too(
    tmp_path: Path, stirred: Callable[..., CryNet], n_mels: int, causal: bool
) -> None:
    export_onnx(stirred("tiny", n_mels=n_mels, causal=causal), tmp_path / "model.onnx")
    assert rtx.parse((tmp_path / "model.onnx").read_bytes()) > 0


def test_the_parser_is_one(tiny_graph: Path) -> None:
    """What is no graph, and one whose types contradict each other, are refused: parsing proves something."""
    with pytest.raises(ExportError, match="parser refuses"):
        rtx.parse(b"not a graph")
    model = onnx.load(str(tiny_graph))
    typed = typed_graph(model)
    cast = next(n for n in typed.graph.node if n.op_type == "Cast")
    cast.attribute[0].i = onnx.TensorProto.INT32
    with pytest.raises(ExportError, match="refuses"):
        rtx.build(typed.SerializeToString(), plan_of(model))
