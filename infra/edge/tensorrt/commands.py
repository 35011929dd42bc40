"""Command lines of `trtexec` by TensorRT version: to build an engine, to run it on given inputs, to time it.

Standard library only, Python 3.6: the device agent uses this file as it is.

What differs (sources: `samples/common/sampleOptions.cpp` and `CHANGELOG.md` of github.com/NVIDIA/TensorRT, and `--help`):

| TensorRT | JetPack | workspace | build only | FP16 | FP32 for single layers |
|---|---|---|---|---|---|
| 8.2 | 4.6 | `--workspace=MiB` | `--buildOnly` | `--fp16` | none: its `trtexec` has no `--layerPrecisions` |
| 8.4, 8.5 | 5 | `--memPoolSize=workspace:MiB` | `--buildOnly` | `--fp16` | `--precisionConstraints=obey --layerPrecisions=…` |
| 8.6 to 10 | 6 | `--memPoolSize=workspace:MiB` | `--skipInference` | `--fp16` | the same |
| 11 | 7 | `--memPoolSize=workspace:MiB` | `--skipInference` | typed graph only | Cast nodes in that graph |

So on 8.2 an FP16 engine has LayerNorm in whatever precision the builder likes; `precisions` therefore names FP32 as the second
choice everywhere, and `parity` decides which engine is used.
"""
# ruff: noqa: UP006, UP035, UP045

import re
from typing import List, NamedTuple, Optional, Sequence, Tuple

from .plan import BuildPlan

FP16 = "fp16"
FP32 = "fp32"
TYPED = "typed"  # the precisions are those of the graph: `model.typed.onnx`

WARM_UP_MS = 500
PERCENTILES = (50, 90, 95, 99)

_OLDEST = (8, 2)
_BANNER = re.compile(r"\[TensorRT v([0-9]+(?:\.[0-9]+)*)\]")


class Version(NamedTuple):
    """A TensorRT version; `str` gives "8.2.1"."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return "{}.{}.{}".format(*self)


def parse_version(text: str) -> Version:
    """A version from "8.5.2", "8.5.2.2", or a banner of `trtexec`: "[TensorRT v8502]", "[TensorRT v100300]".

    Raises:
        ValueError: neither.
    """
    found = _BANNER.search(text)
    digits = found.group(1) if found else text.strip()
    parts = digits.split(".")
    if not all(re.match(r"^[0-9]{1,7}$", part) for part in parts) or len(parts) > 4:
        raise ValueError(f"{text[:80]!r} holds no TensorRT version: expected 8.5.2 or [TensorRT v8502]")
    if len(parts) == 1 and len(digits) >= 4:
        # four digits up to version 9, two for each part from 10 on
        number = int(digits)
        if number < 10000:
            return Version(number // 1000, number // 100 % 10, number % 100)
        return Version(number // 10000, number // 100 % 100, number % 100)
    numbers = [int(part) for part in parts] + [0, 0]
    return Version(numbers[0], numbers[1], numbers[2])


class Dialect(NamedTuple):
    """What one version's `trtexec` understands."""

    memory_pools: bool  # --memPoolSize instead of --workspace
    skip_inference: bool  # --skipInference instead of --buildOnly
    layer_precisions: bool
    strongly_typed: bool  # precisions come from the graph, and --fp16 is an unknown option
    percentiles: bool  # --percentile takes a list


def dialect(version: Version) -> Dialect:
    """The dialect of a version.

    Raises:
        ValueError: older than 8.2, whose parser our graphs are not made for.
    """
    at = (version.major, version.minor)
    if at < _OLDEST:
        raise ValueError(f"TensorRT {version} is older than 8.2, the oldest that graphs are exported for")
    return Dialect(
        memory_pools=at >= (8, 4),
        skip_inference=at >= (8, 6),
        layer_precisions=at >= (8, 4) and version.major < 11,
        strongly_typed=version.major >= 11,
        percentiles=at >= (8, 5),
    )


def precisions(version: Version) -> Tuple[str, ...]:
    """Precisions worth trying, fastest first."""
    return (TYPED, FP32) if dialect(version).strongly_typed else (FP16, FP32)


def build_flags(
    version: Version, plan: BuildPlan, precision: str, *, workspace_mib: int = 512, max_batch: int = 8
) -> List[str]:
    """Every option that the engine depends on, without paths: this is what a cache files it under.

    Raises:
        ValueError: the version has no such precision, or a size makes no sense.
    """
    if precision not in precisions(version):
        raise ValueError(
            f"TensorRT {version} has no precision {precision!r}: choose {' or '.join(precisions(version))}"
        )
    if workspace_mib < 1 or max_batch < 1:
        raise ValueError(f"workspace of {workspace_mib} MiB and batch of {max_batch} must both be at least 1")
    spoken = dialect(version)
    flags = [
        f"--memPoolSize=workspace:{workspace_mib}" if spoken.memory_pools else f"--workspace={workspace_mib}",
        "--profilingVerbosity=detailed",
    ]
    if plan.dynamic_batch:
        flags += [
            f"--minShapes={_shape(plan, 1)}",
            f"--optShapes={_shape(plan, 1)}",
            f"--maxShapes={_shape(plan, max_batch)}",
        ]
    if precision == FP32:
        flags.append("--noTF32")  # TF32 has FP16's ten bits of mantissa
    elif precision == FP16:
        flags.append("--fp16")
        if spoken.layer_precisions and plan.fp32_layers:
            # the output type too: a square computed in FP32 and stored in FP16 overflows all the same
            each = ",".join(f"{name}:fp32" for name in plan.fp32_layers)
            flags += [
                "--precisionConstraints=obey",
                f"--layerPrecisions={each}",
                f"--layerOutputTypes={each}",
            ]
    return flags


def build_command(
    trtexec: str,
    version: Version,
    plan: BuildPlan,
    precision: str,
    *,
    model: str,
    engine: str,
    timing_cache: Optional[str] = None,
    layers: Optional[str] = None,
    workspace_mib: int = 512,
    max_batch: int = 8,
) -> List[str]:
    """Build `engine` from the ONNX file `model` and stop; `layers` is where a description of the engine's layers goes.

    Raises:
        ValueError: as `build_flags`, or a path that cannot be an argument.
    """
    command = [
        _path(trtexec),
        f"--onnx={_path(model)}",
        f"--saveEngine={_path(engine)}",
        "--skipInference" if dialect(version).skip_inference else "--buildOnly",
    ]
    if timing_cache is not None:
        command.append(f"--timingCacheFile={_path(timing_cache)}")
    if layers is not None:
        command.append(f"--exportLayerInfo={_path(layers)}")
    return command + build_flags(version, plan, precision, workspace_mib=workspace_mib, max_batch=max_batch)


def run_command(
    trtexec: str, plan: BuildPlan, *, engine: str, inputs: str, outputs: str, batch: int
) -> List[str]:
    """Run an engine once on `inputs` (raw little-endian float32, batch × samples); `outputs` becomes a JSON file.

    Raises:
        ValueError: an impossible batch or path.
    """
    if batch < 1 or (batch > 1 and not plan.dynamic_batch):
        raise ValueError(f"batch of {batch}: this engine takes {'at least ' * plan.dynamic_batch}1")
    command = [
        _path(trtexec),
        f"--loadEngine={_path(engine)}",
        f"--loadInputs={plan.input_name}:{_path(inputs, in_spec=True)}",
        f"--exportOutput={_path(outputs)}",
        # one pass is enough, and three seconds of it are the default
        "--iterations=1",
        "--duration=0",
        "--warmUp=0",
    ]
    return command + ([f"--shapes={_shape(plan, batch)}"] if plan.dynamic_batch else [])


def time_command(
    trtexec: str,
    version: Version,
    plan: BuildPlan,
    *,
    engine: str,
    times: str,
    profile: Optional[str] = None,
    seconds: int = 10,
) -> List[str]:
    """Time an engine at batch 1 for `seconds`: every query into `times`, the mean of every layer into `profile`.

    The profiler runs apart from the timing, which it would slow down.

    Raises:
        ValueError: an impossible path or duration.
    """
    if seconds < 1:
        raise ValueError(f"cannot time for {seconds} seconds: at least 1")
    command = [
        _path(trtexec),
        f"--loadEngine={_path(engine)}",
        f"--exportTimes={_path(times)}",
        f"--warmUp={WARM_UP_MS}",
        f"--duration={seconds}",
        "--percentile=" + (",".join(map(str, PERCENTILES)) if dialect(version).percentiles else "95"),
    ]
    if plan.dynamic_batch:
        command.append(f"--shapes={_shape(plan, 1)}")
    if profile is not None:
        command += ["--dumpProfile", "--separateProfileRun", f"--exportProfile={_path(profile)}"]
    return command


def describe(command: Sequence[str], limit: int = 400) -> str:
    """A command for messages, cut where long lists of layers would fill the screen."""
    text = " ".join(part if len(part) <= 80 else part[:77] + "…" for part in command)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _shape(plan: BuildPlan, batch: int) -> str:
    return f"{plan.input_name}:{batch}x{plan.samples}"


def _path(path: str, in_spec: bool = False) -> str:
    # within --loadInputs a comma begins the next input; NUL ends an argument
    if not path or "\0" in path or (in_spec and re.search(r"[,:']", path)):
        raise ValueError(f"{path!r} cannot be given to trtexec; choose a plain path")
    return path
