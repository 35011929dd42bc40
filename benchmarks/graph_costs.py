"""Work of an exported graph, counted from its shapes: operations and bytes, and what a Jetson Nano could do at best.

A multiply-add is two operations. Convolutions and products are counted exactly, every other node as one operation for each
element that it writes. Bytes are weights once and the tensors that cross a component's border; what stays inside is taken to
stay in cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import onnx

# https://developer.nvidia.com/embedded/jetson-nano: 128 Maxwell cores, 472 GFLOPS in FP16, 25.6 GB/s
NANO_FLOPS = 472e9
NANO_BYTES = 25.6e9
NANO_SHARE = 0.54  # of the peak, what ResNet-50 reaches on it

_FREE = frozenset(
    {"Reshape", "Squeeze", "Unsqueeze", "Identity", "Split", "Slice", "Transpose", "Concat", "Cast"}
)


@dataclass(frozen=True)
class Cost:
    """Of one part at batch 1. `weights` is a number of elements, `border` too: bytes depend on the precision."""

    flops: int = 0
    weights: int = 0
    border: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.weights + other.weights, self.border + other.border)

    def bytes(self, width: int) -> int:
        """Bytes moved at `width` bytes a number."""
        return width * (self.weights + self.border)

    def nano_ms(self, share: float = 1.0) -> float:
        """An ESTIMATE, not a measurement: the roofline of a Nano in FP16, the slower of arithmetic and memory."""
        return 1e3 * max(self.flops / (share * NANO_FLOPS), self.bytes(2) / NANO_BYTES)


def shapes_of(model: Any, batch: int = 1) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of a graph at a batch size.

    Raises:
        ValueError: a shape cannot be inferred.
    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in [*fixed.graph.input, *fixed.graph.output]:
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_value = batch
    inferred = onnx.shape_inference.infer_shapes(fixed, strict_mode=True, data_prop=True).graph
    found = {t.name: tuple(t.dims) for t in inferred.initializer}
    for value in [*inferred.value_info, *inferred.input, *inferred.output]:
        dims = value.type.tensor_type.shape.dim
        if any(not d.HasField("dim_value") for d in dims):
            raise ValueError(f"the shape of {value.name!r} cannot be inferred")
        found[value.name] = tuple(d.dim_value for d in dims)
    return found


def flops_of(node: Any, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Operations of one node."""
    size = math.prod(shapes[node.output[0]])
    if node.op_type == "MatMul":
        return 2 * size * shapes[node.input[0]][-1]
    if node.op_type == "Gemm":
        flipped = any(a.name == "transA" and a.i for a in node.attribute)
        return 2 * size * shapes[node.input[0]][0 if flipped else 1]
    if node.op_type == "Conv":
        return 2 * size * math.prod(shapes[node.input[1]][1:])  # (out, in / groups, kernel …)
    if node.op_type == "ConvTranspose":
        return 2 * math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])
    if node.op_type.startswith("Reduce"):
        return math.prod(shapes[node.input[0]])
    return 0 if node.op_type in _FREE else size


def costs(model: Any, components: Mapping[str, Iterable[str]]) -> dict[str, Cost]:
    """Cost of every component at batch 1.

    Raises:
        ValueError: a shape cannot be inferred.
    """
    shapes = shapes_of(model)
    graph = model.graph
    weights = {t.name: math.prod(t.dims) for t in graph.initializer}
    owner = {name: component for component, names in components.items() for name in names}
    maker = {output: owner[node.name] for node in graph.node for output in node.output}
    results = {output.name for output in graph.output}
    found = dict.fromkeys(components, Cost())
    seen: set[tuple[str, str]] = set()
    for node in graph.node:
        here = owner[node.name]
        found[here] += Cost(flops=flops_of(node, shapes))
        for name in node.input:
            if not name or (here, name) in seen:
                continue
            seen.add((here, name))
            if name in weights:
                found[here] += Cost(weights=weights[name])
            elif maker.get(name) != here:
                size = math.prod(shapes[name])
                found[here] += Cost(border=size)
                if name in maker:
                    found[maker[name]] += Cost(border=size)
        found[here] += Cost(border=sum(math.prod(shapes[n]) for n in node.output if n in results))
    return found
