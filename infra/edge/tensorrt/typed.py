"""The graph with its precisions written into it: what TensorRT 11 takes, which has no `--fp16` any more.

Strongly typed networks compute each layer in the type of its inputs. So every node outside `fp32_layers` gets FP16 inputs
(weights converted, activations through Cast), every other one FP32, and the graph's own input and outputs stay FP32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from infra.edge.tensorrt.precision import fp32_layers
from models.errors import ExportError

_FLOAT, _HALF = TensorProto.FLOAT, TensorProto.FLOAT16
_LARGEST_HALF = 65504.0


def typed_graph(model: Any, keep_fp32: tuple[str, ...] | None = None) -> Any:
    """A strongly typed copy of an exported `onnx.ModelProto`; `keep_fp32` are names of nodes (default: `fp32_layers`).

    Raises:
        ExportError: a weight does not fit into FP16, or a name of `keep_fp32` is no node.
    """
    keep = set(fp32_layers(model.graph) if keep_fp32 is None else keep_fp32)
    unknown = keep - {node.name for node in model.graph.node}
    if unknown:
        raise ExportError(f"no node is called {sorted(unknown)[0]!r} ({len(unknown)} such names)")
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    kind = {v.name: v.type.tensor_type.elem_type for v in _values(inferred.graph)}
    kind.update({tensor.name: tensor.data_type for tensor in model.graph.initializer})
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    del graph.node[:]
    del graph.value_info[:]
    writer = _Writer(graph, kind, {output.name for output in graph.output})
    for node in model.graph.node:
        writer.add(node, _FLOAT if node.name in keep else _HALF)
    writer.finish()
    onnx.checker.check_model(result, full_check=True)
    return result


def _values(graph: Any) -> list[Any]:
    return [*graph.value_info, *graph.input, *graph.output]


class _Writer:
    """Nodes in order, each behind the casts that it needs; every tensor is cast at most once."""

    def __init__(self, graph: Any, kind: dict[str, int], outputs: set[str]) -> None:
        self.graph, self.kind, self.outputs = graph, kind, outputs
        self.weights = {tensor.name: tensor for tensor in graph.initializer}
        self.now: dict[str, int] = {value.name: _FLOAT for value in graph.input}
        self.casts: dict[tuple[str, int], str] = {}

    def add(self, node: Any, wanted: int) -> None:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for position, name in enumerate(node.input):
            if name and self.kind.get(name) == _FLOAT:
                copy.input[position] = self._as(name, wanted)
        late = []
        for position, name in enumerate(node.output):
            if self.kind.get(name) != _FLOAT:
                continue
            self.now[name] = wanted
            if name in self.outputs and wanted != _FLOAT:
                # the graph promises FP32 under this name
                copy.output[position] = f"{name}_half"
                late.append(self._cast(f"{name}_half", name, _FLOAT))
                self.casts[name, _HALF] = f"{name}_half"
                self.now[name] = _FLOAT
        self.graph.node.append(copy)
        self.graph.node.extend(late)

    def finish(self) -> None:
        used = {name for node in self.graph.node for name in node.input}
        kept = [tensor for tensor in self.graph.initializer if tensor.name in used]
        copies = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
        del self.graph.initializer[:]
        self.graph.initializer.extend(copies)

    def _as(self, name: str, wanted: int) -> str:
        if name not in self.weights and self.now[name] == wanted:
            return name
        if name in self.weights and wanted == _FLOAT:
            return name
        if (name, wanted) not in self.casts:
            target = f"{name}_{'half' if wanted == _HALF else 'float'}"
            if name in self.weights:
                self.graph.initializer.append(_to_half(self.weights[name], target))
            else:
                self.graph.node.append(self._cast(name, target, wanted))
            self.casts[name, wanted] = target
        return self.casts[name, wanted]

    def _cast(self, source: str, target: str, wanted: int) -> Any:
        return helper.make_node("Cast", [source], [target], name=f"{target}/Cast", to=wanted)


def _to_half(tensor: Any, name: str) -> Any:
    value = numpy_helper.to_array(tensor)
    largest = float(np.abs(value).max(initial=0.0))
    if not largest <= _LARGEST_HALF:
        raise ExportError(f"weight {tensor.name!r} reaches {largest:.3g}, FP16 ends at {_LARGEST_HALF:.0f}")
    return numpy_helper.from_array(value.astype(np.float16), name)
