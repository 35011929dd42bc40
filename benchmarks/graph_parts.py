"""An exported graph cut into its components, each a graph of its own that can be timed alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx


def borders(model: Any, components: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The tensor between each two components: the component that reads it → its value info, at a free batch.

    Raises:
        ValueError: more than one tensor leads into a component, so that they are no chain.
    """
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    info = {v.name: v for v in [*inferred.value_info, *inferred.input, *inferred.output]}
    weights = {t.name for t in inferred.initializer}
    found: dict[str, Any] = {}
    for component, names in components.items():
        inside = set(names)
        nodes = [n for n in inferred.node if n.name in inside]
        made = {output for n in nodes for output in n.output}
        entering = {i for n in nodes for i in n.input if i and i not in made and i not in weights}
        if len(entering) != 1:
            raise ValueError(f"{sorted(entering)} lead into {component}, one tensor should")
        found[component] = info[entering.pop()]
    return found


def cut(model: Any, entering: Mapping[str, Any]) -> dict[str, Any]:
    """One model a component, from the tensor that enters it to the one that enters the next, or to the graph's outputs.

    `entering` is `borders` of the float32 graph: an int8 variant has the same tensors there.

    Raises:
        ValueError: such a tensor does not exist in this graph.
    """
    graph = model.graph
    makers = {output: node for node in graph.node for output in node.output}
    parts = {}
    names = list(entering)
    for place, component in enumerate(names):
        start = entering[component]
        last = place + 1 == len(names)
        ends = list(graph.output) if last else [entering[names[place + 1]]]
        missing = [v.name for v in ends if v.name not in makers]
        if missing:
            raise ValueError(f"{missing[0]!r} is not a tensor of this graph")
        wanted: set[str] = set()
        waiting = [v.name for v in ends]
        while waiting:
            tensor = waiting.pop()
            node = makers.get(tensor)
            if node is None or tensor == start.name or node.output[0] in wanted:
                continue
            wanted.add(node.output[0])
            waiting += [name for name in node.input if name]
        nodes = [node for node in graph.node if node.output[0] in wanted]
        used = {name for node in nodes for name in node.input}
        weights = [t for t in graph.initializer if t.name in used]
        part = onnx.helper.make_graph(nodes, component, [start], ends, weights)
        parts[component] = onnx.helper.make_model(
            part, opset_imports=list(model.opset_import), ir_version=model.ir_version
        )
    return parts
