"""Small rewrites of an exported graph, none of which changes a result.

torch writes fixed buffers as Constant nodes, shares equal tensors through Identity nodes, and writes c / x as Reciprocal.
TensorRT 8.2 has no Reciprocal, and takes the weights of a convolution only as constants.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def simplify(model: Any) -> None:
    """Apply all of the rewrites below to an `onnx.ModelProto`, in place."""
    constants_to_initializers(model.graph)
    drop_identities_of_weights(model.graph)
    divide_instead_of_reciprocal(model.graph)


def constants_to_initializers(graph: Any) -> None:
    """Constant nodes that hold a tensor become initializers."""
    kept = []
    for node in graph.node:
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            tensor = graph.initializer.add()
            tensor.CopyFrom(value)
            tensor.name = node.output[0]
        else:
            kept.append(node)
    _replace_nodes(graph, kept)


def drop_identities_of_weights(graph: Any) -> None:
    """Uses of Identity(weight) become uses of the weight."""
    weights = {tensor.name for tensor in graph.initializer}
    results = {output.name for output in graph.output}
    alias: dict[str, str] = {}
    kept = []
    for node in graph.node:  # in topological order, so chains resolve as they come
        if node.op_type == "Identity" and node.input[0] in weights and node.output[0] not in results:
            alias[node.output[0]] = alias.get(node.input[0], node.input[0])
            weights.add(node.output[0])
        else:
            kept.append(node)
    for node in kept:
        for position, name in enumerate(node.input):
            node.input[position] = alias.get(name, name)
    _replace_nodes(graph, kept)


def divide_instead_of_reciprocal(graph: Any) -> None:
    """Reciprocal(x) becomes Div(1, x)."""
    from onnx import numpy_helper

    nodes = [node for node in graph.node if node.op_type == "Reciprocal"]
    if not nodes:
        return
    one = "one"
    graph.initializer.append(numpy_helper.from_array(np.array(1.0, np.float32), one))
    for node in nodes:
        operand = node.input[0]
        node.op_type = "Div"
        del node.input[:]
        node.input.extend([one, operand])


def _replace_nodes(graph: Any, nodes: list[Any]) -> None:
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
