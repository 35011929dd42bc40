#!/usr/bin/env -S python3 -I -S
"""NOT TensorRT. It takes the command line of `trtexec`, refuses options that the given version does not have, and leaves the
files and exit codes that `trtexec` would; "engine" files are notes of how they were asked for, and outputs are those of the test.

So it shows that our commands are spelled as the version wants them, and that refusals, exit codes and files are read as they are
written. It shows nothing about whether TensorRT builds our graphs (`test_rtx.py`), or how well its engines agree (`test_gpu.py`).
"""

# ruff: noqa: SIM905

import json
import sys
import time
from pathlib import Path

# transcribed from `--help` and the change log of each version
COMMON = (
    "help onnx saveEngine loadEngine minShapes optShapes maxShapes shapes timingCacheFile profilingVerbosity noTF32 loadInputs "
    "iterations warmUp duration percentile dumpProfile separateProfileRun exportTimes exportOutput exportProfile exportLayerInfo"
).split()
LAYERS = ["fp16", "precisionConstraints", "layerPrecisions", "layerOutputTypes"]
OPTIONS = {
    "8.2.1": [*COMMON, "workspace", "buildOnly", "fp16", "precisionConstraints"],
    "8.5.2": [*COMMON, "workspace", "memPoolSize", "buildOnly", *LAYERS],
    "10.3.0": [*COMMON, "memPoolSize", "skipInference", "stronglyTyped", *LAYERS],
    "11.1.0": [*COMMON, "memPoolSize", "skipInference", "stronglyTyped"],
}


def main() -> int:
    here = Path(sys.argv[0])
    scenario = json.loads(here.with_suffix(".json").read_text())
    with here.with_suffix(".calls").open("a") as log:
        log.write(json.dumps(sys.argv[1:]) + "\n")
    banner = f"TensorRT.trtexec [TensorRT {scenario['banner']}] # {' '.join(sys.argv)[:200]}"
    print(f"&&&& RUNNING {banner}")
    options = dict(part[2:].partition("=")[::2] for part in sys.argv[1:])
    unknown = [name for name in options if name not in OPTIONS[scenario["version"]]]
    for name in unknown:
        print(f"[10/05/2025-10:46:31] [E] Unknown option: --{name} {options[name]}")
    time.sleep(scenario.get("sleep", 0))
    if unknown or (not unknown and "help" not in options and not act(options, scenario)):
        print(f"&&&& FAILED {banner}")
        return 1
    if "help" not in options:
        print(f"&&&& PASSED {banner}")
    return 0


def act(options: dict, scenario: dict) -> bool:
    if "saveEngine" in options:
        return build(options, scenario)
    engine = json.loads(Path(options["loadEngine"]).read_text())
    if "exportOutput" in options:
        name, _, path = options["loadInputs"].partition(":")
        asked = options.get("shapes", f"{name}:1x16000").partition(":")[2]
        frames, samples = map(int, asked.split("x"))
        if Path(path).stat().st_size != 4 * frames * samples or frames > engine["max_batch"]:
            print("[10/05/2025-10:46:31] [E] Cannot assign input: wrong size")
            return False
        outputs(options, scenario, engine, frames)
    if "exportTimes" in options:
        Path(options["exportTimes"]).write_text(scenario["times"])
    if "exportProfile" in options:
        Path(options["exportProfile"]).write_text(scenario["profile"])
    return True


def build(options: dict, scenario: dict) -> bool:
    text = Path(options["onnx"]).read_bytes()
    precision = "fp16" if "fp16" in options else "fp32" if "noTF32" in options else "typed"
    if precision in scenario.get("refuse", []):
        print(
            "[10/05/2025-10:46:31] [E] Error[10]: Could not find any implementation for node {ForeignNode[x]}."
        )
        print("[10/05/2025-10:46:31] [E] Engine could not be created from network")
        return False
    most = int(options.get("maxShapes", "x:1x1").partition(":")[2].partition("x")[0])
    note = {"precision": precision, "max_batch": most, "bytes": len(text)}
    if not scenario.get("forget_engine"):
        Path(options["saveEngine"]).write_text(json.dumps(note))
    return True


def outputs(options: dict, scenario: dict, engine: dict, frames: int) -> None:
    """The next `frames` of the test's outputs, with the error that this precision is to have."""
    here = Path(sys.argv[0]).with_suffix(".at")
    at = int(here.read_text()) if here.exists() else 0
    error = scenario.get("errors", {}).get(engine["precision"], 0.0)
    total = len(scenario["outputs"]["gate_probability"])
    result = []
    for name, values in scenario["outputs"].items():
        width = len(values) // total
        chosen = [v + error for v in values[at * width : (at + frames) * width]]
        # default precision of a C++ stream: six digits
        result.append(
            {"name": name, "dimensions": f"{frames}x{width}", "values": [float(f"{v:.6g}") for v in chosen]}
        )
    here.write_text(str((at + frames) % total))
    if not scenario.get("forget_outputs"):
        Path(options["exportOutput"]).write_text(
            json.dumps(result).replace("NaN", scenario.get("nan", "nan"))
        )


if __name__ == "__main__":
    sys.exit(main())
