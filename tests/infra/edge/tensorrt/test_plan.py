"""`tensorrt.json`: what a device is told about a graph, and what it refuses to be told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infra.edge.tensorrt.plan import BuildPlan, load_plan
from infra.edge.tensorrt.precision import require_plan
from models.errors import ExportError


def test_there_and_back(tiny_plan: BuildPlan) -> None:
    assert load_plan(tiny_plan.to_json()) == tiny_plan
    assert (tiny_plan.input_name, tiny_plan.samples, tiny_plan.dynamic_batch) == ("waveform", 16_000, True)
    assert len(tiny_plan.outputs) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "cryfed-tensorrt/2"}, "update the agent"),
        ({"extra": 1}, "must have exactly"),
        ({"outputs": []}, "names no outputs"),
        ({"outputs": "gate"}, "not a list"),
        ({"fp32_layers": ["/a:fp16,*"]}, "not a plain layer name"),
        ({"fp32_layers": ["/a\n"]}, "not a plain layer name"),
        ({"fp32_layers": ["/a", "/a"]}, "twice"),
        ({"fp32_layers": [1]}, "not a plain layer name"),
        ({"components": {}}, "must have exactly"),
        ({"input": {"name": "w", "samples": True, "dynamic_batch": True}}, "samples"),
        ({"input": {"name": "w", "samples": 1 << 40, "dynamic_batch": True}}, "samples"),
        ({"input": {"name": "w", "samples": 16, "dynamic_batch": 1}}, "samples"),
    ],
)
def test_refused(tiny_plan: BuildPlan, change: dict[str, Any], message: str) -> None:
    document = {**json.loads(tiny_plan.to_json()), **change}
    with pytest.raises(ValueError, match=message):
        load_plan(json.dumps(document).encode())


@pytest.mark.parametrize("data", [b"", b"[" * 100_000, b"\xff\xfe", b"[]", b"null", b" " * (1 << 21)])
def test_not_a_plan(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"tensorrt\.json"):
        load_plan(data)


def test_a_plan_of_another_graph_is_found_out(
    tiny_plan: BuildPlan, tiny_graph: Path, gate_graph: Path
) -> None:
    assert require_plan(tiny_plan.to_json(), tiny_graph) == tiny_plan
    with pytest.raises(ExportError, match="is not that of its graph"):
        require_plan(tiny_plan.to_json(), gate_graph)
    unprotected = tiny_plan._replace(fp32_layers=tiny_plan.fp32_layers[1:])
    with pytest.raises(ExportError, match=r"\(fp32_layers\)"):
        require_plan(unprotected.to_json(), tiny_graph)
