"""Looks like `trtexec` to whoever starts it: command line, exit status, log lines, files. It runs no network.

Its "model" is a small JSON object, its "engine" that object behind a word of its own; the outputs follow from the first
samples of each frame and from `gain`. It shows that the agent calls, waits, reads and refuses as it should, and nothing
about TensorRT.
"""

from __future__ import annotations

import json
import math
import struct
import sys
import time
from pathlib import Path
from typing import Any

FRAME_SAMPLES = 16000
_ENGINE = b"ENGINE "


def outputs(model: bytes, inputs: bytes) -> dict[str, list[Any]]:
    """What the pretended network gives for frames of little-endian float32."""
    rule = json.loads(model)
    gain, drift = rule["gain"], rule.get("drift", 0.0)
    found: dict[str, list[Any]] = {"gate_probability": [], "reason_probabilities": [], "energy": []}
    for start in range(0, len(inputs), 4 * FRAME_SAMPLES):
        samples = struct.unpack_from("<4f", inputs, start)
        found["gate_probability"].append(min(1.0, 1 / (1 + math.exp(-gain * samples[0])) + drift))
        powers = [math.exp(gain * x) for x in samples[1:]]
        found["reason_probabilities"].append([p / sum(powers) for p in powers])
        found["energy"].append(-math.log(sum(powers)))
    return found


def main() -> int:
    """The command line of `trtexec`, as far as the agent uses it."""
    given = dict(a.lstrip("-").partition("=")[::2] for a in sys.argv[1:])
    print("&&&& RUNNING TensorRT.trtexec [TensorRT v8201] #", " ".join(sys.argv))
    if "onnx" in given:
        return _build(given)
    engine = Path(given["loadEngine"]).read_bytes()
    if not engine.startswith(_ENGINE):
        return _fail("[E] Error[1]: [stdArchiveReader.cpp::StdArchiveReader::30] Magic tag does not match")
    name, _, path = given["loadInputs"].partition(":")
    inputs = Path(path).read_bytes()
    wanted = f"{name}:{len(inputs) // (4 * FRAME_SAMPLES)}x{FRAME_SAMPLES}"
    if name != "waveform" or given["shapes"] != wanted:
        return _fail(f"[E] shapes {given['shapes']} do not fit the inputs, which are {wanted}")
    rule = json.loads(engine[len(_ENGINE) :])
    rule["drift"] = rule.pop("engine_drift", 0.0)
    found = outputs(json.dumps(rule).encode(), inputs)
    count = len(found["energy"])
    tensors = [
        {
            "name": name,
            "dimensions": f"{count}x{len(rows[0])}" if isinstance(rows[0], list) else str(count),
            "values": [x for row in rows for x in (row if isinstance(row, list) else [row])],
        }
        for name, rows in found.items()
    ]
    Path(given["exportOutput"]).write_text(json.dumps(tensors))
    times = [{"latencyMs": 8.0 + 0.1 * i, "computeMs": 7.5} for i in range(int(given["iterations"]))]
    Path(given["exportTimes"]).write_text(json.dumps(times))
    print("&&&& PASSED TensorRT.trtexec [TensorRT v8201]")
    return 0


def _build(given: dict[str, str]) -> int:
    model = Path(given["onnx"]).read_bytes()
    rule = json.loads(model)
    if "build_seconds" in rule:
        time.sleep(rule["build_seconds"])
    if rule.get("unsupported"):
        print("[I] [TRT] No importer registered for op: LayerNormalization")
        return _fail(
            "[E] [TRT] ModelImporter.cpp:773: ERROR: No importer registered for op: LayerNormalization"
        )
    Path(given["saveEngine"]).write_bytes(_ENGINE + model)
    print("&&&& PASSED TensorRT.trtexec [TensorRT v8201]")
    return 0


def _fail(line: str) -> int:
    print(line)
    print("&&&& FAILED TensorRT.trtexec [TensorRT v8201]")
    return 1


if __name__ == "__main__":
    sys.exit(main())
