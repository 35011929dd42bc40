"""Runs the golden clips through ONNX Runtime: a program of its own, which needs numpy and onnxruntime.

    python3 runner_onnxruntime.py --model model.onnx --inputs golden/inputs.f32 --outputs out.json [--threads 1]

`inputs` holds frames of 16,000 little-endian float32; `outputs` gets
`{"outputs": {name: [per frame]}, "latency_ms": [per frame], "backend": "onnxruntime 1.x"}`, whole or not at all.
Frames go one at a time, as on a ward, so that the times are those of a frame.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

FRAME_SAMPLES = 16000
WANTED = ("gate_probability", "reason_probabilities", "energy")


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="golden clips through ONNX Runtime")
    for name in ("model", "inputs", "outputs"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()

    import numpy as np
    import onnxruntime as ort

    if hasattr(ort, "disable_telemetry_events"):
        ort.disable_telemetry_events()
    options = ort.SessionOptions()
    options.intra_op_num_threads = arguments.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(arguments.model, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    names = [output.name for output in session.get_outputs() if output.name in WANTED]

    frames = np.fromfile(arguments.inputs, dtype="<f4").reshape(-1, FRAME_SAMPLES)
    outputs = {name: [] for name in names}  # type: dict
    times = []
    session.run(names, {given.name: frames[:1]})  # the first run plans memory, and is no frame's time
    for i in range(len(frames)):
        begun = time.perf_counter()
        results = session.run(names, {given.name: frames[i : i + 1]})
        times.append(1000 * (time.perf_counter() - begun))
        for name, values in zip(names, results):
            outputs[name].append(values[0].tolist())
    target = Path(arguments.outputs)
    temporary = target.with_name(target.name + ".tmp")
    with temporary.open("w") as file:
        backend = "onnxruntime " + ort.__version__
        json.dump({"outputs": outputs, "latency_ms": times, "backend": backend}, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
