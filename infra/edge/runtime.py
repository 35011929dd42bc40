"""ONNX Runtime behind one small class: frames in, named outputs out. No torch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from infra import quiet
from infra.edge.graph import GATE_OUTPUTS, INPUT, REASON_OUTPUTS
from models.config import FRAME_SAMPLES
from models.errors import BundleError

_BATCH = 64  # an hour-long recording must not become one batch


class Graph:
    """A loaded `model.onnx`.

    Raises:
        BundleError: ONNX Runtime cannot load it, or its inputs and outputs are not ours.
    """

    def __init__(self, model: bytes, *, name: str = "model.onnx", threads: int = 1) -> None:
        quiet.apply()  # its telemetry starts with the import
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as err:  # ONNX Runtime's errors share no public base
            reason = str(err).splitlines()[0] if str(err) else repr(err)
            raise BundleError(f"{name}: ONNX Runtime cannot load it ({reason})") from err
        inputs = [i.name for i in self._session.get_inputs()]
        outputs = {o.name: o.shape for o in self._session.get_outputs()}
        if inputs != [INPUT] or not set(GATE_OUTPUTS) <= set(outputs):
            raise BundleError(
                f"{name}: inputs {inputs} and outputs {sorted(outputs)} are not those of a cry model"
            )
        self.has_reasons = set(REASON_OUTPUTS) <= set(outputs)
        self.n_reasons = int(outputs["reason_logits"][1]) if self.has_reasons else 0
        self._names = list(GATE_OUTPUTS + REASON_OUTPUTS if self.has_reasons else GATE_OUTPUTS)

    def run(self, frames_NT: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        """One-second frames (n, 16000) → outputs by name, each (n, …)."""
        if frames_NT.ndim != 2 or frames_NT.shape[1] != FRAME_SAMPLES:
            raise ValueError(f"frames must be (n, {FRAME_SAMPLES}), got {frames_NT.shape}")
        parts = [
            self._session.run(
                self._names, {INPUT: np.ascontiguousarray(frames_NT[i : i + _BATCH], np.float32)}
            )
            for i in range(0, len(frames_NT), _BATCH)
        ]
        return {name: np.concatenate([p[k] for p in parts]) for k, name in enumerate(self._names)}
