"""From a bundle to something that runs here: an engine by `trtexec` where there is one, else ONNX Runtime as it is.

A backend makes what it needs from a verified bundle (`build`) and runs the golden clips through it (`run`). Its command
lines come from functions of their own (`Commands`), so that a builder that knows more of a TensorRT version can take
their place.
"""

import abc
import hashlib
import secrets
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple

from .disk import Disk, read_json
from .documents import canonical_json, strict_json
from .errors import BuildFailed, ConfigError, Unhealthy
from .manifest import GOLDEN_INPUTS, MODEL_NAME
from .process import ProgramError, run
from .slots import digest_file

FRAME_SAMPLES = 16000
FRAME_BYTES = 4 * FRAME_SAMPLES
INPUT = "waveform"
ENGINE = "engine.plan"
RUNNER = Path(__file__).with_name("runner_onnxruntime.py")

_MAX_RESULT_BYTES = 256 * 2**20
_BATCH = 64


class Measured(NamedTuple):
    """What a backend made of the golden clips."""

    outputs: Dict[str, Any]  # name → N numbers, or N lists of numbers
    latencies_ms: List[float]  # one frame at a time
    backend: str


class Backend(abc.ABC):
    """One way to run a release on this device."""

    name = ""

    @abc.abstractmethod
    def build(self, bundle: Path, built: Path, disk: Disk) -> None:
        """Make what `run` needs in the folder `built`, unless it is there.

        Raises:
            BuildFailed: it cannot be made.
        """

    @abc.abstractmethod
    def run(self, bundle: Path, built: Path) -> Measured:
        """Run the golden clips.

        Raises:
            Unhealthy: it does not run.
        """

    def space(self, model_bytes: int) -> int:
        """Bytes of disk that `build` needs at most, roughly, for a model of so many."""
        return 0 * model_bytes


class OnnxRuntime(Backend):
    """ONNX Runtime in a process of its own: the agent imports nothing that is not Python's.

    `python` is an interpreter that has numpy and onnxruntime.
    """

    name = "onnxruntime"

    def __init__(self, python: str = sys.executable, threads: int = 1, timeout: float = 600.0) -> None:
        self._python, self._threads, self._timeout = python, threads, timeout

    def build(self, bundle: Path, built: Path, disk: Disk) -> None:
        """Nothing is to be made."""

    def run(self, bundle: Path, built: Path) -> Measured:
        """See `Backend`."""
        result = built / "golden.json"
        argv = [
            self._python,
            str(RUNNER),
            "--model",
            str(bundle / MODEL_NAME),
            "--inputs",
            str(bundle / GOLDEN_INPUTS),
            "--outputs",
            str(result),
            "--threads",
            str(self._threads),
        ]
        _remove(result)
        try:
            done = run(argv, built / "golden.log", self._timeout)
        except ProgramError as err:
            raise Unhealthy(str(err)) from None
        if done.code != 0:
            raise Unhealthy(f"ONNX Runtime ended with {done.code}: {_last_lines(done.tail)}")
        raw = _read(result)
        if not isinstance(raw, dict) or not {"outputs", "latency_ms", "backend"} <= set(raw):
            raise Unhealthy("ONNX Runtime's runner left no outputs, latency_ms and backend")
        return Measured(raw["outputs"], [float(x) for x in raw["latency_ms"]], str(raw["backend"]))


class Commands(NamedTuple):
    """The command lines of a TensorRT version."""

    build: Callable[[str, Path, Path, List[str]], List[str]]  # (trtexec, model, engine, flags)
    run: Callable[
        [str, Path, Path, Path, Path, int], List[str]
    ]  # (trtexec, engine, inputs, outputs, times, frames)


def build_command(trtexec: str, model: Path, engine: Path, flags: List[str]) -> List[str]:
    """`trtexec` from ONNX to an engine for 1 to 64 frames at once, best at one."""
    shapes = [
        f"--{kind}Shapes={INPUT}:{n}x{FRAME_SAMPLES}" for kind, n in (("min", 1), ("opt", 1), ("max", _BATCH))
    ]
    return [trtexec, f"--onnx={model}", f"--saveEngine={engine}", *shapes, *flags]


def run_command(
    trtexec: str, engine: Path, inputs: Path, outputs: Path, times: Path, frames: int
) -> List[str]:
    """`trtexec` on the frames of one file, at once."""
    return [
        trtexec,
        f"--loadEngine={engine}",
        f"--shapes={INPUT}:{frames}x{FRAME_SAMPLES}",
        f"--loadInputs={INPUT}:{inputs}",
        f"--exportOutput={outputs}",
        f"--exportTimes={times}",
        "--iterations=1" if frames > 1 else "--iterations=50",
        "--duration=0",
        "--warmUp=200",
    ]


TRTEXEC = Commands(build_command, run_command)


class TensorRT(Backend):
    """TensorRT through its own `trtexec`; engines are made on the device, for it alone.

    An engine is made again when the model, the command line or the program changes.
    """

    name = "tensorrt"

    def __init__(
        self,
        trtexec: str,
        flags: List[str],
        commands: Commands = TRTEXEC,
        timeout: float = 3600.0,
    ) -> None:
        self._trtexec, self._flags, self._commands, self._timeout = trtexec, flags, commands, timeout

    def space(self, model_bytes: int) -> int:
        """See `Backend`: an engine is about as large as its model, and is written beside the last one."""
        return 3 * model_bytes

    def build(self, bundle: Path, built: Path, disk: Disk) -> None:
        """See `Backend`."""
        model, engine, record = bundle / MODEL_NAME, built / ENGINE, built / "build.json"
        key = self._key(model)
        try:
            if engine.is_file() and read_json(record, 2**16) == {"key": key, "engine": digest_file(engine)}:
                return
        except ConfigError:
            pass
        disk.remove(record)
        # another name each time: a program that outlived a killed agent may still be writing to the last one
        for left in sorted(built.glob(ENGINE + "*")):
            disk.remove(left)
        fresh = built / f"{ENGINE}.{key[:8]}.{secrets.token_hex(4)}"
        argv = self._commands.build(self._trtexec, model, fresh, self._flags)
        try:
            done = run(argv, built / "build.log", self._timeout)
        except ProgramError as err:
            raise BuildFailed(str(err)) from None
        disk.step("write", fresh)
        if done.code != 0 or not fresh.is_file() or fresh.stat().st_size == 0:
            raise BuildFailed(f"trtexec ended with {done.code}: {_reason(done.tail)}")
        disk.finish(fresh)
        disk.rename(fresh, engine)
        disk.write_json(record, {"key": key, "engine": digest_file(engine)})

    def run(self, bundle: Path, built: Path) -> Measured:
        """See `Backend`: batches for the outputs, single frames for the times."""
        data = (bundle / GOLDEN_INPUTS).read_bytes()
        frames = len(data) // FRAME_BYTES
        outputs = {}  # type: Dict[str, List[Any]]
        for first in range(0, frames, _BATCH):
            count = min(_BATCH, frames - first)
            part = data[first * FRAME_BYTES : (first + count) * FRAME_BYTES]
            for name, rows in self._batch(built, part, count)[0].items():
                outputs.setdefault(name, []).extend(rows)
        latencies = self._batch(built, data[:FRAME_BYTES], 1)[1]
        return Measured(outputs, latencies, self.name)

    def _batch(self, built: Path, data: bytes, count: int) -> "tuple[Dict[str, List[Any]], List[float]]":
        inputs, results, times = built / "inputs.raw", built / "outputs.json", built / "times.json"
        for path in (results, times):
            _remove(path)
        inputs.write_bytes(data)
        argv = self._commands.run(self._trtexec, built / ENGINE, inputs, results, times, count)
        try:
            done = run(argv, built / "golden.log", self._timeout)
        except ProgramError as err:
            raise Unhealthy(str(err)) from None
        finally:
            _remove(inputs)
        if done.code != 0:
            raise Unhealthy(f"trtexec ended with {done.code}: {_reason(done.tail)}")
        return parse_outputs(_read(results), count), parse_times(_read(times))

    def _key(self, model: Path) -> str:
        program = Path(self._trtexec)
        try:
            facts = program.stat()
            version = [facts.st_size, int(facts.st_mtime)]
        except OSError as err:
            raise BuildFailed(f"{program}: {err.strerror}; check backend.trtexec") from None
        line = self._commands.build(self._trtexec, Path(MODEL_NAME), Path(ENGINE), self._flags)
        return hashlib.sha256(canonical_json([digest_file(model), line, version])).hexdigest()


def parse_outputs(raw: Any, count: int) -> Dict[str, List[Any]]:
    """`trtexec --exportOutput`: name → `count` numbers, or `count` lists of numbers.

    Raises:
        Unhealthy: not of that form.
    """
    found = {}  # type: Dict[str, List[Any]]
    try:
        for entry in raw:
            values = [float(x) for x in entry["values"]]
            width, rest = divmod(len(values), count)
            if rest or not width:
                raise ValueError(f"{len(values)} values for {count} frames")
            rows = [values[i * width : (i + 1) * width] for i in range(count)]
            dimensions = str(entry["dimensions"]).split("x")
            found[str(entry["name"])] = list(rows) if len(dimensions) > 1 else [row[0] for row in rows]
    except (KeyError, TypeError, ValueError) as err:
        raise Unhealthy(f"trtexec's outputs cannot be read ({err})") from None
    return found


def parse_times(raw: Any) -> List[float]:
    """`trtexec --exportTimes`: milliseconds of each inference.

    Raises:
        Unhealthy: not of that form.
    """
    try:
        return [float(entry["latencyMs"]) for entry in raw]
    except (KeyError, TypeError, ValueError) as err:
        raise Unhealthy(f"trtexec's times cannot be read ({err})") from None


def _reason(log: str) -> str:
    """The errors of a TensorRT log, or its end."""
    errors = [line.split("[E]", 1)[1].strip() for line in log.splitlines() if "[E]" in line]
    return "; ".join(errors[-3:])[:400] if errors else _last_lines(log)


def _last_lines(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return "; ".join(lines[-2:])[-400:] or "it said nothing"


def _read(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_RESULT_BYTES + 1)
        if len(data) > _MAX_RESULT_BYTES:
            raise ValueError("too large")
        return strict_json(data)
    except (OSError, ValueError) as err:
        raise Unhealthy(f"{path.name}: the outputs cannot be read ({err})") from None


def _remove(path: Path) -> None:
    if path.exists():
        path.unlink()
