"""A real TensorRT parser and builder without a GPU: TensorRT for RTX, which builds ahead of time for a GPU that is not there.

It answers one question: do NVIDIA's own ONNX parser and builder take this graph? Its engines are for RTX cards (compute
capability 7.5 and up) and run on no Jetson; those build their own (`build`). The wheels `tensorrt-rtx-cu12-libs` and
`tensorrt-rtx-cu12-bindings` are part of the `dev` extra; without them `available` says so.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from infra.edge.tensorrt.plan import BuildPlan
from models.errors import ExportError

MODULE = "tensorrt_rtx_bindings"
CAPABILITY = "SM86"


def available() -> str | None:
    """None if it can be used here, else why not."""
    if importlib.util.find_spec(MODULE) is None:
        return f"{MODULE} is not installed: pip install tensorrt-rtx-cu12-libs tensorrt-rtx-cu12-bindings"
    try:
        importlib.import_module(MODULE)
    except (ImportError, OSError) as err:
        return f"{MODULE} cannot be loaded: {err}"
    return None


def parse(model: bytes) -> int:
    """Parse an ONNX graph; how many layers the network has.

    Raises:
        ExportError: the parser refuses it, or there is none.
    """
    return int(_parsed(model)[-1].num_layers)


def build(model: bytes, plan: BuildPlan, *, max_batch: int = 8, capability: str = CAPABILITY) -> bytes:
    """Build an engine for a compute capability; no GPU is used.

    Raises:
        ExportError: parser or builder refuse the graph, or they are not there.
    """
    trt, log, builder, network = _parsed(model)
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, capability), 0)
    if plan.dynamic_batch:
        profile = builder.create_optimization_profile()
        one, most = (1, plan.samples), (max_batch, plan.samples)
        profile.set_shape(plan.input_name, one, one, most)
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ExportError(f"TensorRT's builder refuses the graph: {log.said()}")
    return bytes(engine)


def _parsed(model: bytes) -> tuple[Any, Any, Any, Any]:
    why = available()
    if why is not None:
        raise ExportError(why)
    trt: Any = importlib.import_module(MODULE)
    log = _logger(trt)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        errors = [str(parser.get_error(k).desc()) for k in range(parser.num_errors)]
        raise ExportError(f"TensorRT's parser refuses the graph: {'; '.join(errors[:3]) or log.said()}")
    return trt, log, builder, network


def _logger(trt: Any) -> Any:
    class Logger(trt.ILogger):
        """Keeps errors for the exception's message instead of printing them."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(message)

        def said(self) -> str:
            return "; ".join(self.errors[:3]) or "it gives no reason"

    return Logger()
