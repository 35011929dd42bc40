"""LayerNorm found by its shape, what else stays in FP32, components, and the typed graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from infra.edge.export import export_onnx
from infra.edge.tensorrt.precision import components_of, find_layer_norms, fp32_layers, plan_of
from infra.edge.tensorrt.typed import typed_graph
from models.errors import ExportError
from models.network import CryNet


@pytest.fixture(scope="module")
def tiny_model(tiny_graph: Path) -> Any:
    return onnx.load(str(tiny_graph))


def norm_graph(**changes: Any) -> Any:
    """y = LayerNorm(x) over 4 values, as opset 13 writes it, one node changed."""
    nodes = {
        "mean": helper.make_node("ReduceMean", ["x"], ["m"], axes=[-1]),
        "deviation": helper.make_node("Sub", ["x", "m"], ["d"]),
        "square": helper.make_node("Pow", ["d", "two"], ["s"]),
        "variance": helper.make_node("ReduceMean", ["s"], ["v"], axes=[-1]),
        "plus": helper.make_node("Add", ["v", "eps"], ["e"]),
        "root": helper.make_node("Sqrt", ["e"], ["r"]),
        "divide": helper.make_node("Div", ["d", "r"], ["n"]),
        "scale": helper.make_node("Mul", ["n", "gamma"], ["g"]),
        "shift": helper.make_node("Add", ["g", "beta"], ["y"]),
    }
    nodes.update(changes)
    for name, node in nodes.items():
        node.name = name
    weights = {"two": np.float32(2), "eps": np.float32(1e-5), "three": np.float32(3)}
    weights |= {name: np.ones(4, np.float32) for name in ("gamma", "beta")}
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["b", 4]) for n in ("x", "y")]
    return helper.make_graph(
        list(nodes.values()),
        "g",
        value[:1],
        value[1:],
        [numpy_helper.from_array(v, k) for k, v in weights.items()],
    )


def test_the_pattern() -> None:
    expected = ("mean", "deviation", "square", "variance", "plus", "root", "divide", "scale", "shift")
    assert [norm.nodes for norm in find_layer_norms(norm_graph())] == [expected]
    times = helper.make_node("Mul", ["d", "d"], ["s"])
    assert [norm.nodes for norm in find_layer_norms(norm_graph(square=times))] == [expected]


@pytest.mark.parametrize(
    "change",
    [
        {"square": helper.make_node("Pow", ["d", "three"], ["s"])},
        {"square": helper.make_node("Mul", ["d", "x"], ["s"])},
        {"deviation": helper.make_node("Sub", ["m", "x"], ["d"])},
        {"deviation": helper.make_node("Add", ["x", "m"], ["d"])},
        {"root": helper.make_node("Exp", ["e"], ["r"])},
        {"divide": helper.make_node("Div", ["x", "r"], ["n"])},
    ],
)
def test_what_is_none(change: dict[str, Any]) -> None:
    assert find_layer_norms(norm_graph(**change)) == ()


def test_nodes_need_names() -> None:
    graph = norm_graph()
    graph.node[3].name = "mean"
    with pytest.raises(ExportError, match="a name of their own"):
        find_layer_norms(graph)


@pytest.mark.parametrize("causal", [False, True])
def test_every_norm_of_the_network_is_found(
    tmp_path: Path, stirred: Callable[..., CryNet], causal: bool
) -> None:
    """2 layers with two each, and the last one; by structure, against the names that the exporter gave."""
    export_onnx(stirred("tiny", causal=causal), tmp_path / "m.onnx")
    graph = onnx.load(str(tmp_path / "m.onnx")).graph
    found = {name for norm in find_layer_norms(graph) for name in norm.nodes}
    assert len(find_layer_norms(graph)) == 2 * 2 + 1
    assert found == {node.name for node in graph.node if "/norm" in node.name}


def test_what_stays_in_fp32(tiny_model: Any) -> None:
    kept = set(fp32_layers(tiny_model.graph))
    names = {node.name for node in tiny_model.graph.node}
    by_name = {n for n in names if "/norm" in n or "/front_end/" in n or "_head/" in n}
    assert by_name < kept
    # the pool, the energy and the probabilities
    assert {n.rpartition("/")[2] for n in kept - by_name} == {
        "ReduceMean", "Squeeze", "Div", "ReduceLogSumExp", "Mul_1", "Sigmoid", "Softmax",
    }  # fmt: skip
    heavy = [n.name for n in tiny_model.graph.node if n.op_type in ("MatMul", "ConvTranspose")]
    assert not kept & set(heavy)


def test_a_graph_without_what_is_protected_is_refused() -> None:
    with pytest.raises(ExportError, match="which layers need FP32 cannot be told"):
        fp32_layers(norm_graph())


def test_components_are_the_whole_graph(tiny_model: Any) -> None:
    found = components_of(tiny_model.graph)
    assert sorted(n for nodes in found.values() for n in nodes) == sorted(
        n.name for n in tiny_model.graph.node
    )
    assert set(found["denoiser"]) >= {"/net/Sub", "/net/Mul"}  # the fixed standardisation
    assert set(found["heads"]) >= {"/net/ReduceMean", "/net/ReduceLogSumExp", "/Sigmoid", "/Softmax"}
    assert all("/transformer/" in n for n in found["transformer"])


def test_typed_graph_keeps_its_word(tiny_model: Any) -> None:
    typed = typed_graph(tiny_model)
    inferred = onnx.shape_inference.infer_shapes(typed, strict_mode=True).graph
    kind = {
        v.name: v.type.tensor_type.elem_type
        for v in [*inferred.value_info, *inferred.input, *inferred.output]
    }
    kind |= {t.name: t.data_type for t in typed.graph.initializer}
    kept = set(fp32_layers(tiny_model.graph))
    for node in (n for n in typed.graph.node if n.op_type != "Cast"):
        floats = {kind[n] for n in node.input if kind[n] in (TensorProto.FLOAT, TensorProto.FLOAT16)}
        assert floats == {TensorProto.FLOAT if node.name in kept else TensorProto.FLOAT16}, node.name
    assert {kind[v.name] for v in [*typed.graph.input, *typed.graph.output]} == {TensorProto.FLOAT}


def test_typed_graph_agrees(tiny_model: Any, waves: np.ndarray) -> None:
    def run(model: Any) -> list[np.ndarray]:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        return ort.InferenceSession(model.SerializeToString(), options).run(None, {"waveform": waves[::5]})

    for expected, got in zip(run(tiny_model), run(typed_graph(tiny_model)), strict=True):
        assert 0 < np.abs(expected - got).max() < 0.01


def quiet_and_loud(model: Any, waves: np.ndarray) -> np.ndarray:
    """Gate logits, every value stored in the type that the graph says (ONNX Runtime on a CPU computes FP16 in FP32)."""
    with np.errstate(all="ignore"):
        return np.asarray(ReferenceEvaluator(model).run(["gate_logit"], {"waveform": waves})[0])


def test_why_the_front_end_stays_in_fp32(tiny_model: Any) -> None:
    """A frame at 10⁻⁴ (−80 dB): its squares are below FP16's smallest number, so its level would count as nothing."""
    wave = (1e-4 * np.random.default_rng(3).normal(size=(1, 16_000))).astype(np.float32)
    expected = quiet_and_loud(tiny_model, wave)
    protected = quiet_and_loud(typed_graph(tiny_model), wave)
    bare = quiet_and_loud(typed_graph(tiny_model, ()), wave)
    assert abs(bare - expected).max() > 10 * abs(protected - expected).max()


def test_why_layer_norm_stays_in_fp32(
    tmp_path: Path, stirred: Callable[..., CryNet], waves: np.ndarray
) -> None:
    """A stream of deviations around 500, whose squares are beyond 65,504."""
    import torch

    net = stirred("tiny")
    with torch.no_grad():
        net.tokenizer.position.mul_(500 / net.tokenizer.position.std())
    export_onnx(net, tmp_path / "m.onnx")
    model = onnx.load(str(tmp_path / "m.onnx"))
    norms = {name for norm in find_layer_norms(model.graph) for name in norm.nodes}
    kept = fp32_layers(model.graph)
    expected = quiet_and_loud(model, waves[50:51])
    protected = quiet_and_loud(typed_graph(model), waves[50:51])
    bare = quiet_and_loud(typed_graph(model, tuple(n for n in kept if n not in norms)), waves[50:51])
    assert abs(bare - expected).max() > 10 * abs(protected - expected).max()


def test_a_weight_beyond_fp16_is_refused(tiny_model: Any) -> None:
    model = onnx.ModelProto.FromString(tiny_model.SerializeToString())
    weight = next(t for t in model.graph.initializer if t.name.endswith("conv1.weight"))
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 1e7, weight.name))
    with pytest.raises(ExportError, match="FP16 ends at 65504"):
        typed_graph(model)
    with pytest.raises(ExportError, match="no node is called"):
        typed_graph(tiny_model, ("/nowhere",))


def test_plan_of_a_foreign_graph(tiny_model: Any) -> None:
    model = onnx.ModelProto.FromString(tiny_model.SerializeToString())
    model.graph.node[0].name = "a,b"
    with pytest.raises(ExportError, match="cannot be described to a device"):
        plan_of(model)
    del model.graph.input[:]
    with pytest.raises(ExportError, match="0 inputs"):
        plan_of(model)
