"""The int8 variant of a release's graph, for ONNX Runtime on a CPU, and what it costs in accuracy.

Dynamic quantisation: weights of the large products as signed 8-bit numbers with one scale per output channel, activations
measured and rounded as they come. Only products of tokenizer and Transformer are quantised. Convolutions stay float32 (with
ONNX Runtime's integer convolution the whole took 1.4 to 1.7 times as long), and so do the heads, which cost nothing.

The variant has operators that no TensorRT has (DynamicQuantizeLinear, MatMulInteger): it is for devices that run ONNX Runtime,
beside `model.onnx` and never instead of it. On a GPU, int8 needs calibrated Q/DQ nodes, and a Nano has no int8 at all.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from infra.edge.bundle import Bundle, describe_files, write_bundle
from infra.edge.graph import check_graph
from infra.edge.release import MODEL_NAME
from infra.edge.tensorrt.precision import components_of
from models.errors import ExportError, OutputError

if TYPE_CHECKING:
    from infra.data.manifest import Manifest
    from infra.edge.evaluate import Part
    from infra.settings import LimitSettings
    from models.bootstrap import Interval

INT8_NAME = "model.int8.onnx"
QUANTISED = ("tokenizer", "transformer")

# what the upper ends of the intervals may reach; a variant of which this cannot be shown is not one
MAX_AUROC_LOSS = 0.01
MAX_F1_LOSS = 0.02


@dataclass(frozen=True)
class Quantised:
    """What became of a graph."""

    products: int  # matrix products with 8-bit weights
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True)
class Accuracy:
    """int8 against float32 on the same clips; losses are float32 − int8, paired over resampled groups.

    `reason_macro_f1_loss` is None without a reason head. `decisions` is the share of clips with the same gate decision and, among
    cries that both accept, the same reason; both at the site's own calibration.
    """

    clips: int
    groups: int
    part: str
    gate_auroc: float
    gate_auroc_loss: Interval
    reason_macro_f1: float | None
    reason_macro_f1_loss: Interval | None
    decisions: float
    max_gate_difference: float  # largest |Δ p(cry)| of a clip, calibrated

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        loss = self.reason_macro_f1_loss
        return {
            **asdict(self),
            "gate_auroc_loss": self.gate_auroc_loss.to_dict(),
            "reason_macro_f1_loss": None if loss is None else loss.to_dict(),
        }


def quantise(source: Path, target: Path) -> Quantised:
    """Write the int8 variant of an exported graph to `target`; the same graph gives the same bytes.

    Raises:
        ExportError: `source` is not a graph of ours, or nothing in it can be quantised.
        OutputError: `target` cannot be written.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    check_graph(source)
    graph = onnx.load(str(source)).graph
    owned = components_of(graph)
    weights = {tensor.name for tensor in graph.initializer}
    inside = {name for component in QUANTISED for name in owned[component]}
    chosen = [
        n.name for n in graph.node if n.op_type == "MatMul" and n.name in inside and n.input[1] in weights
    ]
    if not chosen:
        raise ExportError(f"{source}: no matrix product with constant weights to quantise; export it anew")
    log, level = logging.getLogger(), logging.getLogger().level
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
            temporary = Path(folder) / target.name
            log.setLevel(logging.ERROR)  # it advises a preprocessing that our graphs do not need
            quantize_dynamic(
                str(source),
                str(temporary),
                op_types_to_quantize=["MatMul"],
                nodes_to_quantize=chosen,
                per_channel=True,
                weight_type=QuantType.QInt8,
            )
            model = onnx.load(str(temporary))
            temporary.write_bytes(model.SerializeToString(deterministic=True))
            temporary.replace(target)
    except OSError as err:
        raise OutputError(
            f"{target}: cannot be written ({err.strerror or err}); check the path and its rights"
        ) from err
    finally:
        log.setLevel(level)
    done = sum(node.op_type == "MatMulInteger" for node in model.graph.node)
    if done != len(chosen):
        raise ExportError(
            f"{source}: {done} of {len(chosen)} products were quantised; this variant is not used"
        )
    return Quantised(done, source.stat().st_size, target.stat().st_size)


def measure_accuracy(
    bundle: Bundle,
    variant: Path,
    manifest: Manifest,
    *,
    part: Part = "auto",
    limits: LimitSettings | None = None,
    resamples: int = 1000,
    on_done: Callable[[int, int], None] | None = None,
) -> Accuracy:
    """Score every clip of a part with the release's graph and with a variant of it, each as a device would.

    Raises:
        ManifestError: no labelled clip in that part.
        ExportError: a clip that one of them scores and the other does not.
    """
    from infra.edge.evaluate import score_manifest
    from infra.evaluation.protocol import EvaluationConfig, make_bench
    from models.metrics import auroc, confusion, macro_f1

    with tempfile.TemporaryDirectory(prefix="int8-") as folder:
        other = with_graph(bundle, variant, Path(folder))
        found = [
            score_manifest(b, manifest, part=part, limits=limits, on_done=on_done) for b in (bundle, other)
        ]
    if list(found[0].scores.clip_id) != list(found[1].scores.clip_id):
        raise ExportError(f"{variant}: it does not score the same clips as the release's own graph")
    release = bundle.manifest
    calibrations = {site: c.calibration() for site, c in release.calibrations.items()}
    config = EvaluationConfig(resamples=resamples)
    benches = [
        make_bench(f.scores, calibrations, config, release.default_calibration.calibration()) for f in found
    ]
    ours, theirs = benches
    truth = ours.scores.gate == 1

    def gate_loss(w: Any) -> Any:
        return auroc(ours.scores.gate_logit, truth, w) - auroc(theirs.scores.gate_logit, truth, w)

    cries, c = ours.cries, len(ours.reasons)
    has_reasons = bool(c) and bool(cries.any())
    named = [b.reason_p[cries].argmax(1) for b in benches] if has_reasons else []
    reason = ours.scores.reason[cries].astype(int)

    def f1(k: int, w: Any) -> Any:
        return macro_f1(confusion(reason, named[k], c, w))

    def reason_loss(w: Any) -> Any:
        return f1(0, w) - f1(1, w)

    same = ours.called == theirs.called
    if c:
        same &= ~ours.called | (ours.reason_p.argmax(1) == theirs.reason_p.argmax(1))
    return Accuracy(
        clips=len(ours.scores),
        groups=len({str(g) for g in ours.scores.group}),
        part=found[0].part,
        gate_auroc=float(auroc(ours.scores.gate_logit, truth)),
        gate_auroc_loss=ours.interval(gate_loss),
        reason_macro_f1=float(f1(0, None)) if has_reasons else None,
        reason_macro_f1_loss=ours.interval(reason_loss, cries) if has_reasons else None,
        decisions=float(np.mean(same)),
        max_gate_difference=float(np.abs(ours.gate_p - theirs.gate_p).max()),
    )


def require_accurate(accuracy: Accuracy) -> None:
    """Refuse a variant whose loss may be larger than allowed.

    Raises:
        ExportError: the upper end of an interval is above its bound, or there are too few groups for an interval.
    """
    check = partial(_bounded, clips=accuracy.clips)
    check("the gate's AUROC", accuracy.gate_auroc_loss, MAX_AUROC_LOSS)
    if accuracy.reason_macro_f1_loss is not None:
        check("the reasons' macro-F1", accuracy.reason_macro_f1_loss, MAX_F1_LOSS)


def _bounded(what: str, loss: Interval, bound: float, *, clips: int) -> None:
    if not loss.high <= bound:  # NaN, where there is no interval, is no proof either
        raise ExportError(
            f"int8 loses {loss.value:.4f} ({loss.low:.4f} to {loss.high:.4f}) of {what} on {clips} clips of {loss.groups} "
            f"groups; at most {bound} can be accepted, at the upper end: use float32, or judge it on more clips"
        )


def with_graph(bundle: Bundle, graph: Path, folder: Path) -> Bundle:
    """The same release around another graph, to be scored and never to be published.

    Raises:
        BundleError: the graph cannot be read.
        OutputError: the folder cannot be written.
    """
    files = {MODEL_NAME: graph}
    manifest = bundle.manifest.model_copy(update={"files": describe_files(files)})
    return write_bundle(folder, manifest, files)
