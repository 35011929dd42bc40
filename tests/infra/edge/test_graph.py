"""The target's rules, each broken once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from infra.edge.graph import check_graph
from infra.edge.runtime import Graph
from infra.edge.simplify import simplify
from models.errors import BundleError, ExportError


def model_of(
    nodes: list[Any], *, opset: int = 13, domain: str = "", weights: dict[str, Any] | None = None
) -> Any:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", None])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in (weights or {}).items()],
    )
    imports = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def save(model: Any, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def node(op: str, *inputs: str, **attributes: Any) -> Any:
    return helper.make_node(op, list(inputs), ["y"], name="the_node", **attributes)


def test_counts_operators(tmp_path: Path) -> None:
    path = save(model_of([helper.make_node("Relu", ["x"], ["h"]), node("Relu", "h")]), tmp_path / "m.onnx")
    assert check_graph(path) == {"Relu": 2}


CONV: dict[str, Any] = {"kernel_shape": [1]}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: model_of([node("Reciprocal", "x")]), "the_node' is Reciprocal"),
        (lambda: model_of([node("Mod", "x", "x", fmod=1)]), "is Mod"),
        (lambda: model_of([node("Relu", "x")], opset=18), "opset 18"),
        (lambda: model_of([node("LayerNormalization", "x", "s")], opset=17, weights={"s": np.ones(4, np.float32)}), "opset 17"),
        (lambda: model_of([node("Gelu", "x", domain="com.microsoft")], domain="com.microsoft"), "com.microsoft"),
        (lambda: model_of([node("Add", "x", "c")], weights={"c": np.ones(4)}), "not a valid ONNX|type 11"),
        (
            lambda: model_of([helper.make_node("Identity", ["c"], ["d"]), node("Relu", "x")], weights={"c": np.ones(4)}),
            "'c' has ONNX type 11",
        ),
        (lambda: model_of([helper.make_node("Unsqueeze", ["x", "a"], ["u"]), node("Conv", "u", "u")],
                          weights={"a": np.array([2])}), "as a constant"),
    ],
)  # fmt: skip
def test_rule_broken(tmp_path: Path, make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        check_graph(save(make(), tmp_path / "m.onnx"))


@pytest.mark.parametrize("data", [b"", b"garbage" * 20])
def test_not_onnx(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(ExportError):
        check_graph(tmp_path / "m.onnx")


def test_external_weights_are_refused(tmp_path: Path) -> None:
    model = model_of([node("Add", "x", "c")], weights={"c": np.ones(4, np.float32)})
    onnx.save(model, str(tmp_path / "m.onnx"), save_as_external_data=True, location="w.bin", size_threshold=0)
    with pytest.raises(ExportError, match=r"w\.bin"):
        check_graph(tmp_path / "m.onnx")


def test_simplify_changes_no_result() -> None:
    """y = (x · 2 + b) · 1/x with the 2 as a Constant node, b behind two Identities, and a Reciprocal."""
    two = numpy_helper.from_array(np.float32(2.0) * np.ones(1, np.float32))
    model = model_of(
        [
            helper.make_node("Identity", ["b"], ["b1"]),
            helper.make_node("Identity", ["b1"], ["b2"]),
            helper.make_node("Constant", [], ["two"], value=two),
            helper.make_node("Mul", ["x", "two"], ["h"]),
            helper.make_node("Add", ["h", "b2"], ["k"]),
            helper.make_node("Reciprocal", ["x"], ["r"]),
            node("Mul", "k", "r"),
        ],
        weights={"b": np.arange(4, dtype=np.float32)},
    )
    x = np.array([[1, 2, 4, 8]], np.float32)
    before = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    simplify(model)
    onnx.checker.check_model(model)
    assert [n.op_type for n in model.graph.node] == ["Mul", "Add", "Div", "Mul"]
    after = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    np.testing.assert_array_equal(before, after)
    np.testing.assert_allclose(after, [[2.0, 2.5, 2.5, 2.375]])


def test_runtime_refuses_foreign_graphs() -> None:
    with pytest.raises(BundleError, match="cannot load"):
        Graph(b"not a graph")
    with pytest.raises(BundleError, match="not those of a cry model"):
        Graph(model_of([node("Relu", "x")]).SerializeToString())
