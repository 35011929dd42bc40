"""The latency benchmark's own arithmetic, on graphs and times small enough to count by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks import latency
from benchmarks.graph_costs import Cost, costs, flops_of, shapes_of
from benchmarks.graph_parts import borders, cut
from benchmarks.latency import Times, bars, interleave, summarise
from infra.edge.export import export_onnx
from infra.edge.quantise import quantise
from infra.edge.tensorrt.precision import plan_of
from models.config import preset
from models.network import CryNet


def value(name: str, *dims: Any) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(dims))


def model(nodes: list[Any], start: Any, end: Any, **weights: np.ndarray) -> Any:
    for k, node in enumerate(nodes):
        node.name = node.name or f"n{k}"
    graph = helper.make_graph(
        nodes,
        "g",
        [start],
        [end],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def test_operations_counted_by_hand() -> None:
    """(1, 3, 10) → conv of 4 kernels of 3 × 5, stride 2 → (1, 4, 3) → product with (3, 7) → relu.

    conv: 4·3 outputs of 3·5 multiply-adds = 2·12·15 = 360; product: 4·7 outputs of 3 = 2·28·3 = 168; relu: 28.
    """
    graph = model(
        [
            helper.make_node("Conv", ["x", "k"], ["c"], strides=[2]),
            helper.make_node("MatMul", ["c", "w"], ["m"]),
            helper.make_node("Relu", ["m"], ["y"]),
        ],
        value("x", "batch", 3, 10), value("y", "batch", 4, 7), k=np.zeros((4, 3, 5)), w=np.zeros((3, 7)),
    )  # fmt: skip
    shapes = shapes_of(graph)
    assert [flops_of(node, shapes) for node in graph.graph.node] == [360, 168, 28]
    found = costs(graph, {"a": ["n0"], "b": ["n1", "n2"]})
    # weights 4·3·5 and 3·7; borders: x and c for a, c and y for b
    assert found == {"a": Cost(360, 60, 30 + 12), "b": Cost(196, 21, 12 + 28)}


def test_transposed_convolution_by_hand() -> None:
    """Each of 2·4 inputs is spread over 1 kernel of 3: 2·8·3 = 48."""
    graph = model(
        [helper.make_node("ConvTranspose", ["x", "k"], ["y"], strides=[2])],
        value("x", 1, 2, 4), value("y", 1, 1, 9), k=np.zeros((2, 1, 3)),
    )  # fmt: skip
    assert flops_of(graph.graph.node[0], shapes_of(graph)) == 48


def test_roofline_is_the_slower_of_two() -> None:
    """472 MFLOP take 1 ms at peak; 12.8 M numbers of 2 bytes take 1 ms at 25.6 GB/s."""
    assert Cost(flops=472_000_000).nano_ms() == pytest.approx(1.0)
    assert Cost(flops=472_000_000).nano_ms(0.5) == pytest.approx(2.0)
    assert Cost(flops=472_000_000, weights=25_600_000).nano_ms() == pytest.approx(2.0)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The tiny preset, float32 and int8."""
    folder = tmp_path_factory.mktemp("graphs")
    export_onnx(CryNet(preset("tiny"), ("a", "b", "c"), seed=3), folder / "m.onnx")
    quantise(folder / "m.onnx", folder / "m.int8.onnx")
    return {
        kind: onnx.load(str(folder / name)) for kind, name in (("fp32", "m.onnx"), ("int8", "m.int8.onnx"))
    }


@pytest.mark.parametrize("kind", ["fp32", "int8"])
def test_parts_in_a_row_are_the_whole(graphs: dict[str, Any], kind: str) -> None:
    entering = borders(graphs["fp32"], plan_of(graphs["fp32"]).components)
    assert list(entering) == ["log_mel", "denoiser", "tokenizer", "transformer", "heads"]
    x = np.random.default_rng(0).normal(size=(2, 16_000)).astype(np.float32)
    options = ort.SessionOptions()
    options.log_severity_level = 3

    def run(part: Any, feed: np.ndarray) -> list[np.ndarray]:
        session = ort.InferenceSession(part.SerializeToString(), options)
        return session.run(None, {session.get_inputs()[0].name: feed})

    expected = run(graphs[kind], x)
    parts = cut(graphs[kind], entering)
    assert sum(len(p.graph.node) for p in parts.values()) == len(graphs[kind].graph.node)
    feed = x
    for name, part in parts.items():
        results = run(part, feed)
        if name != "heads":
            (feed,) = results
    for whole, piece in zip(expected, results, strict=True):
        np.testing.assert_allclose(whole, piece, atol=1e-4)


def test_work_of_a_network_is_that_of_its_shapes(graphs: dict[str, Any]) -> None:
    """The Transformer of `tiny`, by its own numbers: 24 tokens, width 32, 2 layers, 2 heads of 16, 64 wide in between."""
    found = costs(graphs["fp32"], plan_of(graphs["fp32"]).components)
    products = 2 * 24 * (32 * 96 + 32 * 32 + 2 * 32 * 64) * 2 + 2 * 2 * 24 * 24 * 32 * 2
    assert products < found["transformer"].flops < 1.35 * products
    # biases and norms come on top, equal ones once
    matrices = 2 * (32 * 96 + 32 * 32 + 2 * 32 * 64)
    assert matrices < found["transformer"].weights < 1.05 * matrices


def test_ratios_are_those_of_blocks() -> None:
    """Twice as slow in its second half, like everything else: the ratio stays; and p50 is over all calls."""
    slow = [1.0] * 10 + [2.0] * 10
    times = {
        "torch": Times(slow, [3.0] * 20),
        "ORT fp32": Times([0.5 * v for v in slow], [1.5] * 10 + [1.8] * 10),
        "ORT fp32, 2 threads": Times([0.25 * v for v in slow], [9.0] * 20),
    }
    rows = summarise(times, "torch", blocks=2)
    one, two = rows["ORT fp32"], rows["ORT fp32, 2 threads"]
    assert (one.wall_ratio.low, one.wall_ratio.high) == (0.5, 0.5)
    assert (one.ratio.low, one.ratio.high) == (0.5, pytest.approx(0.6))  # CPU time, thread against thread
    assert two.cpu_ratio is None  # the caller's CPU time says nothing about two threads
    assert (two.ratio.median, two.p50) == (0.25, 0.375)
    with pytest.raises(ValueError, match="cannot be cut"):
        summarise(times, "torch", blocks=21)


def test_calls_take_turns() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "abc"}
    times = interleave(calls, repeats=3, warm_up=1)
    assert "".join(order) == "abcbcacababc"
    assert {len(t.wall) for t in times.values()} == {len(t.cpu) for t in times.values()} == {3}


@pytest.mark.parametrize(
    ("merged", "apart", "verdict"),
    [
        (0.24, 1.2, "met"),
        (0.26, 1.2, "met against torch with its adapters apart only"),
        (0.31, 1.2, "missed"),
    ],
)
def test_bars_say_against_which_torch(merged: float, apart: float, verdict: str) -> None:
    rows = {
        kind: {"ratio": {"median": ratio}}
        for kind, ratio in (("ORT fp32", 0.5), ("ORT int8", merged), ("torch, adapters apart", apart))
    }
    first, second = bars({"rows": {"whole": rows}})
    assert first.endswith("the bar is 0.85: met")
    assert second.endswith(f"the bar is 0.25: {verdict}")


def test_a_short_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every part and kind is timed, estimates are called estimates, and without TensorRT it says so."""
    latency.main(
        ["--preset", "tiny", "--repeats", "4", "--blocks", "2", "--json", str(tmp_path / "out.json")]
    )
    said = capsys.readouterr().out
    (found,) = json.loads((tmp_path / "out.json").read_text())
    assert set(found["rows"]) == set(found["work"]) == {
        "whole", "log_mel", "denoiser", "tokenizer", "transformer", "heads",
    }  # fmt: skip
    assert {len(kinds) for kinds in found["rows"].values()} == {5, 6}
    assert "ESTIMATES" in said
    if "absent" in found["tensorrt"]:
        assert "no TensorRT here" in said
    assert found["opset"] == 13
