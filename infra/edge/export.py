"""From a trained network to one ONNX file: samples in, calibratable logits and energy out.

    waveform (batch, 16000) float32, 16 kHz mono, one second each, any level
      → gate_probability (batch,), gate_logit (batch,), energy (batch,)
      → reason_probabilities (batch, C), reason_logits (batch, C)    only where the reason head is shipped

Probabilities are those of the frame at T = 1. A clip's score comes from its frames' *logits* (`models.pooling`) and is divided by
the site's temperature. Adapters are merged into the weights, query, key and value into one product.
`dynamo=False`: the default exporter does not go below opset 18.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn
from torch.jit import TracerWarning  # type: ignore[attr-defined]

from infra.edge.fuse import fuse_attention
from infra.edge.graph import (
    GATE_OUTPUTS,
    INPUT,
    OPSET,
    REASON_OUTPUTS,
    check_graph,
)
from infra.edge.simplify import simplify
from models.adapters import merge_adapters
from models.config import FRAME_SAMPLES
from models.errors import ExportError, OutputError
from models.network import CryNet

_BATCH = 16


class _Deployed(nn.Module):
    """The network's outputs by name and in the order of the graph."""

    def __init__(self, net: CryNet, *, reason_head: bool) -> None:
        super().__init__()
        self.net = net
        self.reason_head = reason_head

    def forward(self, waveform: Tensor) -> tuple[Tensor, ...]:
        out = self.net(waveform)
        gate = (torch.sigmoid(out.gate_logit), out.gate_logit, out.energy)
        if not self.reason_head:
            return gate
        return (*gate, torch.softmax(out.reason_logits, dim=-1), out.reason_logits)


def output_names(*, reason_head: bool) -> tuple[str, ...]:
    """Outputs of the graph, in order."""
    return GATE_OUTPUTS + REASON_OUTPUTS if reason_head else GATE_OUTPUTS


def export_onnx(net: CryNet, path: Path, *, reason_head: bool = True) -> dict[str, int]:
    """Write the graph to `path`, checked against the target's rules; `net` is left as it is.

    Without `reason_head` neither the reason probabilities nor their logits are outputs; the energy, which is made
    from those logits, stays, because abstention needs it. The same network gives the same bytes.

    Returns:
        How often each operator occurs.

    Raises:
        ExportError: a rule of the target is broken, or a weight is not finite; nothing is left at `path`.
        OutputError: `path` cannot be written.
    """
    bad = [name for name, p in net.named_parameters() if not bool(torch.isfinite(p).all())]
    if bad:
        raise ExportError(
            f"cannot export: {bad[0]} holds a value that is not finite ({len(bad)} such tensors)"
        )
    merged = copy.deepcopy(net).eval()
    merge_adapters(merged)
    fuse_attention(merged)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            temporary = Path(folder) / path.name
            _trace(
                _Deployed(merged, reason_head=reason_head), temporary, output_names(reason_head=reason_head)
            )
            model = onnx.load(str(temporary))
            simplify(model)
            temporary.write_bytes(model.SerializeToString(deterministic=True))
            operators = check_graph(temporary, name=str(path))
            temporary.replace(path)
    except OSError as err:
        raise OutputError(
            f"{path}: cannot be written ({err.strerror or err}); check the path and its rights"
        ) from err
    return operators


def _trace(module: nn.Module, path: Path, names: Sequence[str]) -> None:
    # two rows: a batch of one would let the tracer bake the batch size in unnoticed
    example = torch.zeros(2, FRAME_SAMPLES)
    with warnings.catch_warnings():
        # the exporter that reaches opset 13 is the legacy one, and says so
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        # input checks on the fixed frame length are evaluated once; what else was baked in, `compare` finds
        warnings.filterwarnings("ignore", category=TracerWarning)
        torch.onnx.export(
            module,
            (example,),
            path,
            opset_version=OPSET,
            dynamo=False,
            input_names=[INPUT],
            output_names=list(names),
            dynamic_axes={name: {0: "batch"} for name in (INPUT, *names)},
        )


def compare(
    path: Path, net: CryNet, waves: Sequence[npt.NDArray[np.float32]] | npt.NDArray[np.float32]
) -> float:
    """Largest |ONNX Runtime − torch| over all outputs and one-second frames (n, 16000) of `waves`.

    Raises:
        ExportError: no frames, or the graph's outputs are not those of the network.
    """
    from infra.edge.runtime import Graph

    frames_NT = np.asarray(waves, dtype=np.float32)
    if frames_NT.ndim != 2 or len(frames_NT) == 0:
        raise ExportError(f"comparison needs frames (n, {FRAME_SAMPLES}), got shape {frames_NT.shape}")
    graph = Graph(path.read_bytes(), name=str(path))
    reference = _Deployed(net, reason_head=graph.has_reasons).eval()
    worst = 0.0
    for start in range(0, len(frames_NT), _BATCH):
        batch = frames_NT[start : start + _BATCH]
        with torch.no_grad():
            expected = reference(torch.from_numpy(batch))
        got = graph.run(batch)
        for name, tensor in zip(output_names(reason_head=graph.has_reasons), expected, strict=True):
            if got[name].shape != tuple(tensor.shape):
                raise ExportError(
                    f"{path}: {name} has shape {got[name].shape}, the network gives {tuple(tensor.shape)}"
                )
            difference = np.abs(got[name] - tensor.numpy()).max()
            worst = max(worst, float(difference) if np.isfinite(difference) else float("inf"))
    return worst


def require_agreement(
    path: Path,
    net: CryNet,
    waves: Sequence[npt.NDArray[np.float32]] | npt.NDArray[np.float32],
    tolerance: float = 1e-4,
) -> float:
    """`compare`, refused above `tolerance`.

    Raises:
        ExportError: the graph disagrees with the network.
    """
    worst = compare(path, net, waves)
    if not worst <= tolerance:
        raise ExportError(
            f"{path}: ONNX Runtime and torch differ by {worst:.2e} on {len(waves)} frames, {tolerance:.0e} is "
            "allowed; this graph must not be released"
        )
    return worst
