"""From a release's graph to an engine on this device: the fastest precision that agrees with the reference.

    tool = find_trtexec()
    if tool is None: …              # no TensorRT here: ONNX Runtime serves, and the report says so
    built = build(tool, graphs, plan, golden, cache, soc="t210", jetpack="4.6.1", work=folder)
    built.engine, built.precision, built.parity, built.refused

Nothing is accepted that has not run: whether an engine comes out of the cache or of `trtexec`, its outputs on the golden clips
are compared before anything uses it.

Standard library only, Python 3.6.
"""
# ruff: noqa: UP006, UP035, UP045

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ..process import ProgramError, run
from . import commands, logs
from .cache import EngineCache, EngineKey
from .commands import TYPED, Version
from .errors import BuildFailed, EngineError, Unhealthy
from .parity import Outputs, Parity, compare, require
from .plan import BuildPlan

JETSON_TRTEXEC = "/usr/src/tensorrt/bin/trtexec"
BUILD_SECONDS = 3600  # a Nano takes minutes; an hour means that it swaps
RUN_SECONDS = 300
MAX_OUTPUT = 32 << 20
WORKING = "engine-"

_FLOAT = 4


class Tool(NamedTuple):
    """A `trtexec` that answered."""

    path: str
    version: Version


class Golden(NamedTuple):
    """Golden frames and what the reference says about them."""

    waves: bytes  # little-endian float32, frames × samples
    reference: Outputs


class Built(NamedTuple):
    """An accepted engine."""

    engine: Path
    precision: str
    parity: Parity
    cached: bool
    refused: Tuple[str, ...]  # why faster precisions were not taken


def find_trtexec(candidates: Sequence[str] = ("trtexec", JETSON_TRTEXEC)) -> Optional[Tool]:
    """The first `trtexec` that exists; None means that there is no TensorRT here.

    Raises:
        BuildFailed: it exists and does not say its version, or a version that we do not know.
    """
    path = next((found for found in map(shutil.which, candidates) if found), None)
    if path is None:
        return None
    # `--version` alone fails on 11, which then asks for a model
    with tempfile.TemporaryDirectory(prefix="trtexec-") as folder:
        _, text = _run([path, "--help"], RUN_SECONDS, Path(folder) / "help.log")
    version = logs.version_of(text)
    try:
        commands.dialect(version)
    except ValueError as err:
        raise BuildFailed(str(err)) from err
    return Tool(path, version)


def build(
    tool: Tool,
    graphs: Mapping[str, Path],
    plan: BuildPlan,
    golden: Golden,
    cache: EngineCache,
    *,
    soc: str,
    jetpack: str,
    work: Path,
    workspace_mib: int = 512,
    max_batch: int = 8,
    seconds: int = BUILD_SECONDS,
) -> Built:
    """Build, or take from the cache, the fastest engine that the golden clips accept.

    `graphs` holds the release's `model.onnx` under "fp32" and, for TensorRT 11, the typed one under "typed". `work` keeps timing
    caches and the logs of builds; what begins with `WORKING` there is this call's own, and nothing once it has ended.

    Raises:
        BuildFailed: `trtexec` built none of them.
        Unhealthy: it did, and none agrees with the reference.
        OSError: the disk is full or refuses.
    """
    refused: List[str] = []
    unhealthy = False
    for precision in commands.precisions(tool.version):
        graph = graphs.get(TYPED if precision == TYPED else "fp32")
        if graph is None:
            refused.append(f"{precision}: the release has no graph for it")
            continue
        flags = commands.build_flags(
            tool.version, plan, precision, workspace_mib=workspace_mib, max_batch=max_batch
        )
        key = EngineKey(_sha256(graph), soc, jetpack, str(tool.version), tuple(flags))
        try:
            with tempfile.TemporaryDirectory(prefix=WORKING, dir=str(work)) as folder:
                here = Path(folder)
                kept = cache.get(key)
                if kept is not None:
                    try:
                        parity = _accept(tool, kept, plan, golden, here, precision, max_batch)
                        return Built(kept, precision, parity, True, tuple(refused))
                    except EngineError:
                        pass  # accepted once, and not now: what it runs on has changed, so it is made anew
                engine = here / "model.engine"
                command = commands.build_command(
                    tool.path, tool.version, plan, precision, model=str(graph), engine=str(engine),
                    timing_cache=str(work / f"timing-{tool.version}.cache"),
                    workspace_mib=workspace_mib, max_batch=max_batch,
                )  # fmt: skip
                _checked(command, seconds, work / f"{precision}.log")
                if not engine.is_file():
                    raise BuildFailed("trtexec says that it passed and wrote no engine")
                parity = _accept(tool, engine, plan, golden, here, precision, max_batch)
                return Built(cache.put(key, engine), precision, parity, False, tuple(refused))
        except Unhealthy as err:
            unhealthy = True
            refused.append(f"{precision}: {err}")
        except EngineError as err:
            refused.append(f"{precision}: {err}")
    message = f"TensorRT {tool.version} gives no usable engine: " + "; ".join(refused)
    raise (Unhealthy if unhealthy else BuildFailed)(message)


def _accept(
    tool: Tool, engine: Path, plan: BuildPlan, golden: Golden, work: Path, precision: str, max_batch: int
) -> Parity:
    parity = check(tool, engine, plan, golden, work, max_batch=max_batch)
    require(parity, f"the {precision} engine")
    return parity


def check(
    tool: Tool, engine: Path, plan: BuildPlan, golden: Golden, work: Path, *, max_batch: int = 8
) -> Parity:
    """Run the golden frames through an engine and compare.

    Raises:
        BuildFailed: it does not run.
        Unhealthy: outputs of another size, or golden frames that are none.
    """
    stride = _FLOAT * plan.samples
    if not golden.waves or len(golden.waves) % stride:
        raise Unhealthy(f"golden frames of {len(golden.waves)} bytes are not whole frames of {stride}")
    batch = max_batch if plan.dynamic_batch else 1
    found: Dict[str, List[float]] = {name: [] for name in plan.outputs}
    source, target = work / "frames.bin", work / "outputs.json"
    for start in range(0, len(golden.waves), batch * stride):
        chunk = golden.waves[start : start + batch * stride]
        source.write_bytes(chunk)
        if target.exists():
            target.unlink()  # what an earlier batch gave must not answer for this one
        _checked(
            commands.run_command(
                tool.path, plan, engine=str(engine), inputs=str(source), outputs=str(target),
                batch=len(chunk) // stride,
            ),
            RUN_SECONDS,
            work / "run.log",
        )  # fmt: skip
        outputs = logs.outputs_of(_read(target))
        for name in plan.outputs:
            if name not in outputs:
                raise Unhealthy(f"the engine has no output {name!r}")
            found[name] += outputs[name]
    return compare(golden.reference, found)


class Timing(NamedTuple):
    """How long an engine takes at batch 1, and where."""

    latency: logs.Latency
    components: Dict[
        str, float
    ]  # mean ms by component; profiled apart, so they need not add up to the latency


def measure(tool: Tool, engine: Path, plan: BuildPlan, work: Path, *, seconds: int = 10) -> Timing:
    """Time an engine and profile its layers.

    Raises:
        BuildFailed: it does not run, or the files are not there.
    """
    times, profile = work / "times.json", work / "profile.json"
    _checked(
        commands.time_command(
            tool.path, tool.version, plan, engine=str(engine), times=str(times), profile=str(profile),
            seconds=seconds,
        ),
        RUN_SECONDS + 3 * seconds,
        work / "time.log",
    )  # fmt: skip
    latency = logs.latency_of_times(_read(times), commands.WARM_UP_MS)
    return Timing(latency, logs.by_component(logs.layers_of_profile(_read(profile)), plan.components))


def _checked(command: Sequence[str], seconds: float, log: Path) -> str:
    code, text = _run(command, seconds, log)
    logs.require_passed(text, code)
    return text


def _run(command: Sequence[str], seconds: float, log: Path) -> Tuple[int, str]:
    """Return code and what was said, bounded; the log stays for people."""
    try:
        done = run(list(command), log, seconds)
    except ProgramError as err:
        raise BuildFailed(f"{err}: {commands.describe(command)}") from None
    with log.open("rb") as said:
        # the verdict stands at the end
        said.seek(max(0, said.seek(0, os.SEEK_END) - MAX_OUTPUT))
        return done.code, said.read().decode("utf-8", "replace")


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(logs.MAX_JSON_BYTES + 1)
    except OSError as err:
        raise BuildFailed(f"{path.name}: trtexec did not write it ({err.strerror})") from err


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()
