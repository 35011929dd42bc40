"""What a graph must keep to, so that the oldest target parses it: TensorRT 8.2 on JetPack 4.6, opset 13.

The list holds those operators of that parser which a feed-forward network can need. Left out on purpose although the
parser knows them: control flow (If, Loop, Scan), random operators, NonMaxSuppression. Not in the parser at all, and
what a careless export would bring in: LayerNormalization, Gelu, Trilu, STFT, DFT, MelWeightMatrix, Mod, OneHot,
NonZero, IsInf, Reciprocal (source: the support matrix of onnx-tensorrt, `docs/operators.md`).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from models.errors import ExportError

OPSET = 13
INPUT = "waveform"
GATE_OUTPUTS = ("gate_probability", "gate_logit", "energy")
REASON_OUTPUTS = ("reason_probabilities", "reason_logits")

# fmt: off
OPERATORS = frozenset({
    # arithmetic
    "Abs", "Add", "Ceil", "Clip", "Cos", "CumSum", "Div", "Exp", "Floor", "Log", "Max", "Mean",
    "Min", "Mul", "Neg", "Pow", "Sign", "Sin", "Sqrt", "Sub", "Sum",
    # comparison and choice
    "And", "ArgMax", "ArgMin", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual",
    "Not", "Or", "Where",
    # activation
    "Elu", "Erf", "HardSigmoid", "LeakyRelu", "LogSoftmax", "PRelu", "Relu", "Selu", "Sigmoid",
    "Softmax", "Softplus", "Softsign", "Tanh",
    # linear
    "Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul",
    # pooling and normalisation
    "AveragePool", "BatchNormalization", "GlobalAveragePool", "GlobalMaxPool",
    "InstanceNormalization", "MaxPool",
    # reduction
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
    # shape
    "Cast", "Concat", "Constant", "ConstantOfShape", "DepthToSpace", "Expand", "Flatten",
    "Gather", "GatherElements", "Identity", "Pad", "Range", "Reshape", "Resize", "Shape",
    "Size", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
})
# fmt: on

# int64 is for shapes; the parser casts it down. It would clamp float64 silently, so that is refused.
_TENSOR_TYPES = {1: "float32", 6: "int32", 7: "int64", 9: "bool"}


def check_graph(path: Path, *, name: str | None = None, opset: int = OPSET) -> dict[str, int]:
    """Assert opset, operators, tensor types and self-containment; returns how often each operator occurs.

    Raises:
        ExportError: not a valid ONNX file, or a rule of the target is broken; the message names the node, and the
            file by `name` (default: its path).
    """
    import onnx

    label = name or str(path)
    try:
        model = onnx.load(str(path), load_external_data=False)
        onnx.checker.check_model(model)
    except Exception as err:  # protobuf's DecodeError and onnx's own share no base
        raise ExportError(
            f"{label}: not a valid ONNX file ({str(err).splitlines()[0] if str(err) else err!r})"
        ) from err
    domains = {entry.domain: entry.version for entry in model.opset_import}
    foreign = sorted(d for d in domains if d not in ("", "ai.onnx"))
    if foreign:
        raise ExportError(
            f"{label}: operators of {', '.join(foreign)} are not in TensorRT's parser; use standard ones"
        )
    version = domains.get("", domains.get("ai.onnx", 0))
    if version != opset:
        raise ExportError(
            f"{label}: opset {version}, the oldest target takes {opset}; export with dynamo=False"
        )
    if model.functions:
        raise ExportError(f"{label}: model-local functions are unknown before opset 15; inline them")
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    for tensor in graph.initializer:
        _check_tensor(label, tensor)
    for node in graph.node:
        _check_node(label, node, weights)
    return dict(sorted(Counter(node.op_type for node in graph.node).items()))


def _check_node(label: str, node: Any, weights: set[str]) -> None:
    where = f"{label}: node {node.name or node.output[0]!r}"
    if node.op_type not in OPERATORS:
        raise ExportError(
            f"{where} is {node.op_type}, which TensorRT 8.2 does not have: write it with primitive operators in "
            "the network, or extend the list in infra/edge/graph.py if the parser of every target knows it"
        )
    if node.op_type in ("Conv", "ConvTranspose") and node.input[1] not in weights:
        raise ExportError(
            f"{where}: TensorRT 8.2 needs the weights of {node.op_type} as a constant of the graph"
        )
    for attribute in node.attribute:
        if attribute.HasField("t"):
            _check_tensor(label, attribute.t)


def _check_tensor(label: str, tensor: Any) -> None:
    if tensor.data_type not in _TENSOR_TYPES:
        known = ", ".join(_TENSOR_TYPES.values())
        raise ExportError(
            f"{label}: tensor {tensor.name!r} has ONNX type {tensor.data_type}; only {known} are accepted"
        )
    if tensor.data_location == 1:  # EXTERNAL
        raise ExportError(f"{label}: tensor {tensor.name!r} lies in another file; a release is one file")
