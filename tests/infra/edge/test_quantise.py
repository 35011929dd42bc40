"""The int8 variant: what of a graph it changes, what it costs, and that a costly one is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from cryfed.cli.main import app
from infra.data.manifest import load_manifest
from infra.edge.bundle import Bundle
from infra.edge.graph import check_graph
from infra.edge.quantise import (
    Accuracy,
    measure_accuracy,
    quantise,
    require_accurate,
    with_graph,
)
from infra.edge.runtime import Graph
from infra.settings import LimitSettings
from models.bootstrap import Interval
from models.errors import ExportError, OutputError

LIMITS = LimitSettings()


@pytest.fixture(scope="module")
def variant(tiny_graph: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_graph` in int8."""
    path = tmp_path_factory.mktemp("int8") / "model.int8.onnx"
    quantise(tiny_graph, path)
    return path


def test_products_of_tokenizer_and_transformer_are_8_bit(tiny_graph: Path, tmp_path: Path) -> None:
    done = quantise(tiny_graph, tmp_path / "m.onnx")
    # the tokenizer's projection, and qkv, o, ff1, ff2 of two layers
    assert done.products == 1 + 2 * 4
    assert done.bytes_after < done.bytes_before - 3 * 10_000
    graph = onnx.load(str(tmp_path / "m.onnx")).graph
    kinds = [n.op_type for n in graph.node]
    assert kinds.count("MatMulInteger") == done.products
    # scores and mix, whose factors are both activations; and the heads' four layers, written apart by the quantiser
    assert kinds.count("MatMul") + kinds.count("Gemm") == 2 * 2 + 4
    assert kinds.count("ConvInteger") == 0
    scales = [t for t in graph.initializer if t.name.endswith("_scale") and t.dims]
    assert {len(t.dims) for t in scales} == {1}
    assert max(t.dims[0] for t in scales) == 96  # one for each of qkv's channels


def test_same_graph_same_bytes(tiny_graph: Path, variant: Path, tmp_path: Path) -> None:
    quantise(tiny_graph, tmp_path / "elsewhere/again.onnx")
    assert (tmp_path / "elsewhere/again.onnx").read_bytes() == variant.read_bytes()
    assert str(tmp_path).encode() not in variant.read_bytes()


def test_close_and_not_equal(tiny_graph: Path, variant: Path, waves: np.ndarray) -> None:
    whole, eight = (Graph(p.read_bytes()).run(waves[::4]) for p in (tiny_graph, variant))
    for name in ("gate_probability", "reason_probabilities"):
        assert 0 < np.abs(whole[name] - eight[name]).max() < 0.05


def test_it_is_not_for_tensorrt(variant: Path) -> None:
    with pytest.raises(ExportError, match="ONNX type 3"):
        check_graph(variant)
    with pytest.raises(ExportError):
        quantise(variant, variant.with_name("twice.onnx"))


def test_unwritable(tiny_graph: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        quantise(tiny_graph, tmp_path / "file/m.onnx")


def test_accuracy_is_that_of_the_same_clips(
    make_bundle: Callable[..., Bundle], corpus: Path, variant: Path, tiny_graph: Path
) -> None:
    bundle, manifest = make_bundle(), load_manifest(corpus, limits=LIMITS)
    found = measure_accuracy(bundle, variant, manifest, resamples=50)
    assert (found.clips, found.part) == (29, "all")
    assert found.gate_auroc_loss.groups == found.groups == 12
    assert 0 < found.max_gate_difference < 0.05
    same = measure_accuracy(bundle, tiny_graph, manifest, resamples=50)
    assert (same.max_gate_difference, same.decisions) == (0.0, 1.0)
    assert same.gate_auroc_loss.value == same.gate_auroc_loss.high == 0.0
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_broken_variant_shows(
    make_bundle: Callable[..., Bundle], corpus: Path, variant: Path, tmp_path: Path
) -> None:
    """Weights of every product shuffled: losses are losses of this graph and not of the bundle's."""
    model = onnx.load(str(variant))
    for weight in model.graph.initializer:
        if weight.name.endswith("_quantized"):
            weight.raw_data = bytes(reversed(weight.raw_data))
    broken = tmp_path / "broken.onnx"
    onnx.save(model, str(broken))
    manifest = load_manifest(corpus, limits=LIMITS)
    good, bad = (measure_accuracy(make_bundle(), v, manifest, resamples=20) for v in (variant, broken))
    assert bad.max_gate_difference > 3 * good.max_gate_difference


def accuracy(**changes: Interval | None) -> Accuracy:
    small = Interval(0.001, -0.002, 0.004, 0.95, 40, 1000, 1000)
    found = Accuracy(300, 40, "test", 0.98, small, 0.9, small, 0.99, 0.01)
    return replace(found, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("high", "accepted"), [(0.0099, True), (0.0101, False), (float("nan"), False)])
def test_the_upper_end_decides(high: float, accepted: bool) -> None:
    loss = replace(accuracy().gate_auroc_loss, high=high)
    if accepted:
        require_accurate(accuracy(gate_auroc_loss=loss))
        require_accurate(accuracy(gate_auroc_loss=loss, reason_macro_f1_loss=None))
    else:
        with pytest.raises(ExportError, match="of the gate's AUROC on 300 clips of 40 groups"):
            require_accurate(accuracy(gate_auroc_loss=loss))


def test_reasons_have_a_bound_of_their_own() -> None:
    with pytest.raises(ExportError, match="of the reasons' macro-F1"):
        require_accurate(accuracy(reason_macro_f1_loss=replace(accuracy().gate_auroc_loss, high=0.021)))


def test_another_graph_is_another_release(
    make_bundle: Callable[..., Bundle], variant: Path, tmp_path: Path
) -> None:
    bundle = make_bundle()
    other = with_graph(bundle, variant, tmp_path / "other")
    assert other.digest != bundle.digest
    assert other.read() == variant.read_bytes()
    assert other.manifest.reasons == bundle.manifest.reasons


def test_command_line(make_bundle: Callable[..., Bundle], corpus: Path, tmp_path: Path) -> None:
    """12 groups of 29 clips prove nothing about a loss of a hundredth, and an untrained network has no accuracy to keep."""
    bundle, out = make_bundle(), tmp_path / "out/model.int8.onnx"
    arguments = ["quantise", "--bundle", str(bundle.folder), "--manifest", str(corpus), "--out", str(out)]
    found = CliRunner().invoke(app, [*arguments, "--resamples", "20"])
    report = json.loads(found.stdout)
    assert report["products"] == 9
    assert report["accuracy"]["clips"] == 29
    refused = report["accuracy"]["gate_auroc_loss"]["high"] > 0.01 or (
        report["accuracy"]["reason_macro_f1_loss"]["high"] > 0.02
    )
    assert found.exit_code == int(refused)
    assert out.exists() is not refused
