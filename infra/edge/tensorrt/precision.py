"""Which nodes of an exported graph must not run in FP16, and to which component each node belongs.

Both are found in the graph. LayerNorm is found by its shape, not by its name (opset 13 has no operator for it):

    ReduceMean(x) → Sub(x, ·) → Pow(·, 2) → ReduceMean → Add(ε) → Sqrt → Div(Sub, ·) → Mul(γ) → Add(β)

FP32 are

- every LayerNorm: the square overflows 65,504 for a deviation above 256 (NVIDIA/TensorRT issues 1262, 2564, 3657);
- everything up to the logarithm of the mel power: the square of a quiet sample (10⁻⁴) is below FP16's smallest number, and the
  level of the whole frame is divided by it; together this is 2 % of the work at `paper` size;
- everything after the last LayerNorm: a mean over tokens and two small heads, whose exponentials overflow from 11.1 on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import numpy_helper

from infra.edge.tensorrt.plan import COMPONENTS, BuildPlan, load_plan
from models.errors import ExportError

_PREFIXES = {
    "front_end": "log_mel",
    "denoiser": "denoiser",
    "tokenizer": "tokenizer",
    "transformer": "transformer",
    "gate_head": "heads",
    "reason_head": "heads",
}


@dataclass(frozen=True)
class LayerNorm:
    """The nodes of one LayerNorm, by name and in the order of the pattern; γ and β where there are any."""

    nodes: tuple[str, ...]

    @property
    def last(self) -> str:
        """The node that gives its result."""
        return self.nodes[-1]


class Wiring:
    """Who makes and who uses a tensor of a graph.

    Raises:
        ExportError: nodes without a name, or two of one name: layers of an engine could not be told apart.
    """

    def __init__(self, graph: Any) -> None:
        names = [node.name for node in graph.node]
        if not all(names) or len(set(names)) != len(names):
            raise ExportError("nodes of the graph lack a name of their own; export it with `export_onnx`")
        self.nodes = {node.name: node for node in graph.node}
        self.maker = {output: node for node in graph.node for output in node.output}
        self.users: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                self.users.setdefault(name, []).append(node)
        self.weights = {tensor.name: tensor for tensor in graph.initializer}

    def only_user(self, tensor: str, operator: str) -> Any | None:
        """The one node of that operator that uses a tensor, or None."""
        found = [node for node in self.users.get(tensor, []) if node.op_type == operator]
        return found[0] if len(found) == 1 else None

    def constant(self, tensor: str) -> float | None:
        """The value of a weight with one element, or None."""
        if tensor not in self.weights:
            return None
        value = numpy_helper.to_array(self.weights[tensor])
        return float(value.reshape(-1)[0]) if value.size == 1 else None

    def upstream(self, seeds: Iterable[str]) -> set[str]:
        """Names of all nodes that the named ones depend on, and themselves."""
        found, waiting = set[str](), list(seeds)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                inputs = self.nodes[name].input
                waiting += [self.maker[tensor].name for tensor in inputs if tensor in self.maker]
        return found

    def downstream(self, seed: str) -> set[str]:
        """Names of all nodes that depend on the named one, without itself."""
        found, waiting = set[str](), [seed]
        while waiting:
            for output in self.nodes[waiting.pop()].output:
                for node in self.users.get(output, []):
                    if node.name not in found:
                        found.add(node.name)
                        waiting.append(node.name)
        return found


def find_layer_norms(graph: Any) -> tuple[LayerNorm, ...]:
    """Every decomposed LayerNorm of an `onnx.GraphProto`, in the order of the graph.

    Raises:
        ExportError: nodes cannot be told apart by name.
    """
    wiring = Wiring(graph)
    found = (_norm_at(wiring, node) for node in graph.node if node.op_type == "Div")
    return tuple(norm for norm in found if norm is not None)


def _norm_at(wiring: Wiring, divide: Any) -> LayerNorm | None:
    """The LayerNorm around a Div of a deviation by a standard deviation, if it is one."""
    deviation, root = (wiring.maker.get(name) for name in divide.input)
    if deviation is None or root is None or (deviation.op_type, root.op_type) != ("Sub", "Sqrt"):
        return None
    mean, plus = wiring.maker.get(deviation.input[1]), wiring.maker.get(root.input[0])
    if mean is None or plus is None or (mean.op_type, plus.op_type) != ("ReduceMean", "Add"):
        return None
    variance = next((wiring.maker[n] for n in plus.input if n in wiring.maker), None)
    if variance is None or variance.op_type != "ReduceMean" or mean.input[0] != deviation.input[0]:
        return None
    square = wiring.maker.get(variance.input[0])
    if square is None or not _squares(wiring, square, deviation.output[0]):
        return None
    nodes = [mean, deviation, square, variance, plus, root, divide]
    for operator in ("Mul", "Add"):
        following = wiring.only_user(nodes[-1].output[0], operator)
        if following is None or not any(name in wiring.weights for name in following.input):
            break
        nodes.append(following)
    return LayerNorm(tuple(node.name for node in nodes))


def _squares(wiring: Wiring, node: Any, tensor: str) -> bool:
    if node.op_type == "Pow":
        return node.input[0] == tensor and wiring.constant(node.input[1]) == 2.0
    return node.op_type == "Mul" and list(node.input) == [tensor, tensor]


def fp32_layers(graph: Any) -> tuple[str, ...]:
    """Names of the nodes that must not run in FP16 (the module says which and why), in the order of the graph.

    Raises:
        ExportError: no LayerNorm or no single logarithm is found: the rules would silently protect nothing.
    """
    wiring = Wiring(graph)
    norms = find_layer_norms(graph)
    logs = [node.name for node in graph.node if node.op_type == "Log"]
    if not norms or len(logs) != 1:
        raise ExportError(
            f"the graph has {len(norms)} LayerNorms and {len(logs)} logarithms where a cry model has several and one; "
            "which layers need FP32 cannot be told"
        )
    keep = {name for norm in norms for name in norm.nodes}
    keep |= wiring.upstream(logs)
    keep |= wiring.downstream(norms[-1].last)
    return tuple(node.name for node in graph.node if node.name in keep)


def components_of(graph: Any) -> dict[str, tuple[str, ...]]:
    """Nodes by component, in the order of the graph; a node that belongs to none by its name goes with what follows it."""
    result: dict[str, list[str]] = {name: [] for name in COMPONENTS}
    following = "heads"
    for node in reversed(graph.node):
        parts = node.name.split("/")
        following = next((_PREFIXES[part] for part in parts if part in _PREFIXES), following)
        result[following].append(node.name)
    return {name: tuple(reversed(nodes)) for name, nodes in result.items()}


def plan_of(model: Any) -> BuildPlan:
    """What a device needs to know about an exported `onnx.ModelProto`.

    Raises:
        ExportError: not a graph of ours, or a node's name could not be an argument of `trtexec`.
    """
    graph = model.graph
    if len(graph.input) != 1 or len(graph.input[0].type.tensor_type.shape.dim) != 2:
        raise ExportError(f"the graph has {len(graph.input)} inputs; a cry model has one, (batch, samples)")
    batch, samples = graph.input[0].type.tensor_type.shape.dim
    plan = BuildPlan(
        input_name=graph.input[0].name,
        samples=int(samples.dim_value),
        dynamic_batch=bool(batch.dim_param),
        outputs=tuple(output.name for output in graph.output),
        fp32_layers=fp32_layers(graph),
        components=components_of(graph),
    )
    try:
        return load_plan(plan.to_json())
    except ValueError as err:
        raise ExportError(f"the graph cannot be described to a device: {err}") from err


def plan_of_file(path: Path) -> BuildPlan:
    """`plan_of` a file that `check_graph` has accepted.

    Raises:
        ExportError: as `plan_of`.
    """
    return plan_of(onnx.load(str(path), load_external_data=False))


def require_plan(data: bytes, path: Path, *, name: str = "release") -> BuildPlan:
    """Read a bundle's `tensorrt.json` and hold it against the graph beside it.

    Raises:
        ExportError: it is malformed, or says something else about the graph than the graph does.
    """
    try:
        found = load_plan(data)
    except ValueError as err:
        raise ExportError(f"{name}: {err}") from err
    expected = plan_of_file(path)
    if found != expected:
        different = [f for f, a, b in zip(found._fields, found, expected, strict=True) if a != b]
        raise ExportError(
            f"{name}: tensorrt.json is not that of its graph ({', '.join(different)}); make the release anew"
        )
    return found


def kinds(plan: BuildPlan) -> Mapping[str, int]:
    """How many layers each component has, for a person to read."""
    return {name: len(nodes) for name, nodes in plan.components.items()}
