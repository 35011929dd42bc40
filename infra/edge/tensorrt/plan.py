"""What a device has to know about a graph that it cannot read itself: `tensorrt.json`, a file of the release bundle.

    {"format": "cryfed-tensorrt/1", "input": {"name": "waveform", "samples": 16000, "dynamic_batch": true},
     "outputs": ["gate_probability", …], "fp32_layers": ["/net/…", …],
     "components": {"log_mel": ["/net/…", …], "denoiser": […], "tokenizer": […], "transformer": […], "heads": […]}}

It is computed from the graph when the release is made (`precision.plan_of`) and travels in the bundle, for three reasons: a
device has no ONNX library; the bundle's manifest and signature cover it; and acceptance can compute it again and compare.

Standard library only, Python 3.6.
"""
# ruff: noqa: UP006, UP035

import json
import re
from typing import Any, Dict, List, NamedTuple, Tuple

PLAN_FORMAT = "cryfed-tensorrt/1"
PLAN_NAME = "tensorrt.json"
MAX_PLAN_BYTES = 1 << 20
COMPONENTS = ("log_mel", "denoiser", "tokenizer", "transformer", "heads")

_MAX_SAMPLES = 1 << 24
# what trtexec's own lists are made of (",", ":", "*", "+", quotes) must not occur in a name
_NAME = re.compile(r"^[A-Za-z0-9_./-]{1,200}$")


class BuildPlan(NamedTuple):
    """How to build a graph: its input, its outputs, the layers that stay in FP32, and which node belongs to which component."""

    input_name: str
    samples: int
    dynamic_batch: bool
    outputs: Tuple[str, ...]
    fp32_layers: Tuple[str, ...]
    components: Dict[str, Tuple[str, ...]]

    def to_json(self) -> bytes:
        """The bytes of `tensorrt.json`; equal plans give equal bytes."""
        document = {
            "format": PLAN_FORMAT,
            "input": {
                "name": self.input_name,
                "samples": self.samples,
                "dynamic_batch": self.dynamic_batch,
            },
            "outputs": list(self.outputs),
            "fp32_layers": list(self.fp32_layers),
            "components": {name: list(nodes) for name, nodes in self.components.items()},
        }
        return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode("ascii")


def load_plan(data: bytes) -> BuildPlan:
    """Read `tensorrt.json`, every name and size checked.

    Raises:
        ValueError: too large, not JSON, another format, an unknown or missing key, a name that could not be an argument.
    """
    if len(data) > MAX_PLAN_BYTES:
        raise ValueError(f"{PLAN_NAME} has {len(data)} bytes, {MAX_PLAN_BYTES} are allowed")
    try:
        raw = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as err:
        raise ValueError(f"{PLAN_NAME} is not JSON ({err}); fetch the release again") from None
    document = _keys(raw, ("format", "input", "outputs", "fp32_layers", "components"), "document")
    if document["format"] != PLAN_FORMAT:
        raise ValueError(
            f"{PLAN_NAME} has format {document['format']!r}, this agent reads {PLAN_FORMAT}; update the agent"
        )
    source = _keys(document["input"], ("name", "samples", "dynamic_batch"), "input")
    samples, dynamic = source["samples"], source["dynamic_batch"]
    if type(samples) is not int or not 0 < samples <= _MAX_SAMPLES or type(dynamic) is not bool:
        raise ValueError(f"{PLAN_NAME}: input of {samples!r} samples, dynamic batch {dynamic!r}")
    components = _keys(document["components"], COMPONENTS, "components")
    outputs = _names(document["outputs"], "outputs")
    if not outputs:
        raise ValueError(f"{PLAN_NAME} names no outputs")
    return BuildPlan(
        input_name=_names([source["name"]], "input")[0],
        samples=samples,
        dynamic_batch=dynamic,
        outputs=outputs,
        fp32_layers=_names(document["fp32_layers"], "fp32_layers"),
        components={name: _names(components[name], name) for name in COMPONENTS},
    )


def _keys(raw: Any, keys: Tuple[str, ...], where: str) -> Dict[str, Any]:
    if not isinstance(raw, dict) or set(raw) != set(keys):
        found = sorted(raw) if isinstance(raw, dict) else type(raw).__name__
        raise ValueError(f"{PLAN_NAME}: {where} must have exactly {sorted(keys)}, not {found}")
    return raw


def _names(raw: Any, where: str) -> Tuple[str, ...]:
    if not isinstance(raw, list):
        raise ValueError(f"{PLAN_NAME}: {where} is not a list")
    names: List[str] = []
    for name in raw:
        if not isinstance(name, str) or not _NAME.match(name) or name.endswith("\n"):
            raise ValueError(
                f"{PLAN_NAME}: {where} holds {str(name)[:80]!r}, which is not a plain layer name"
            )
        names.append(name)
    if len(set(names)) != len(names):
        raise ValueError(f"{PLAN_NAME}: {where} names something twice")
    return tuple(names)
