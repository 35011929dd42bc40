"""Looks like `trtexec` to whoever starts it: command line, exit status, log lines, files. It runs no network.

    trtexec.py VERSION --onnx=… | --loadEngine=…

Its "model" is a small JSON object, its "engine" that object behind a word of its own and the version, which another version
refuses; the outputs follow from the first samples of each frame and from `gain`. It shows that the agent calls, waits, reads
and refuses as it should, and nothing about TensorRT. Options by version: `tests/infra/edge/tensorrt/lookalike.py`.
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
BANNERS = {"8.2.1": "v8201", "8.5.2": "v8502", "10.3.0": "v100300", "11.1.0": "v110100"}
STAMP = "[10/05/2025-10:46:31] [E] "


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
    version = sys.argv[1]
    given = dict(a.lstrip("-").partition("=")[::2] for a in sys.argv[2:])
    name = f"TensorRT.trtexec [TensorRT {BANNERS[version]}] # trtexec {' '.join(sys.argv[2:])[:200]}"
    print(f"&&&& RUNNING {name}", flush=True)
    if "help" in given:
        return 0
    error = _build(given, version) if "onnx" in given else _run(given, version)
    if error:
        print(STAMP + error)
    print(f"&&&& {'FAILED' if error else 'PASSED'} {name}")
    return int(error is not None)


def _run(given: dict[str, str], version: str) -> str | None:
    head, _, model = Path(given["loadEngine"]).read_bytes().partition(b"\n")
    if head != b"ENGINE " + version.encode():
        return "Error[1]: [stdArchiveReader.cpp::StdArchiveReader::30] Magic tag does not match"
    if "exportTimes" in given:
        rows = [{"startComputeMs": 500 + 20 * i, "latencyMs": 8.0 + 0.1 * i} for i in range(51)]
        Path(given["exportTimes"]).write_text(json.dumps(rows))
        profile = [{"count": 51}, {"name": "/net/gate/Gemm", "averageMs": 7.5}]
        Path(given["exportProfile"]).write_text(json.dumps(profile))
        return None
    name, _, path = given["loadInputs"].partition(":")
    inputs = Path(path).read_bytes()
    wanted = f"{name}:{len(inputs) // (4 * FRAME_SAMPLES)}x{FRAME_SAMPLES}"
    if name != "waveform" or given["shapes"] != wanted:
        return f"shapes {given['shapes']} do not fit the inputs, which are {wanted}"
    found = outputs(model, inputs)
    tensors = [
        {
            "name": name,
            "dimensions": f"{len(rows)}x{len(rows[0]) if isinstance(rows[0], list) else 1}",
            "values": [x for row in rows for x in (row if isinstance(row, list) else [row])],
        }
        for name, rows in found.items()
    ]
    Path(given["exportOutput"]).write_text(json.dumps(tensors))
    return None


def _build(given: dict[str, str], version: str) -> str | None:
    rule = json.loads(Path(given["onnx"]).read_bytes())
    time.sleep(rule.get("build_seconds", 0))
    if rule.get("unsupported") or version in rule.get("unsupported_by", []):
        return "ModelImporter.cpp:773: ERROR: No importer registered for op: LayerNormalization"
    rule["drift"] = rule.get(
        "fp16_drift" if "fp16" in given else "engine_drift", rule.get("engine_drift", 0.0)
    )
    engine = b"ENGINE " + version.encode() + b"\n" + json.dumps(rule).encode()
    Path(given["saveEngine"]).write_bytes(engine)
    return None


if __name__ == "__main__":
    sys.exit(main())
