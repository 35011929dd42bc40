"""From a bundle to something that runs here: what every backend does, and ONNX Runtime. TensorRT: `engine`.

A backend makes what it needs from a verified bundle and runs the golden clips through it (`make`); what that depends on beside
the bundle it tells (`environment`), so that the agent sees when a release has to be made anew.
"""

import abc
import sys
from pathlib import Path
from typing import Any, Dict, NamedTuple

from ..process import ProgramError, run
from .disk import Disk
from .documents import strict_json
from .errors import BuildFailed, Unhealthy
from .health import Health, Measured, judge, read_golden
from .manifest import GOLDEN_INPUTS, MODEL_NAME

ENGINE = "engine.plan"
RUNNER = Path(__file__).with_name("runner_onnxruntime.py")

_MAX_RESULT_BYTES = 256 * 2**20


class Made(NamedTuple):
    """A release that runs here."""

    health: Health
    environment: str  # what it was made for
    info: Dict[str, Any]  # for the report: names → numbers, texts, None


class Backend(abc.ABC):
    """One way to run a release on this device."""

    name = ""

    @abc.abstractmethod
    def make(self, bundle: Path, built: Path, disk: Disk) -> Made:
        """Make what a service needs beside the bundle in the folder `built`, and hold it against the golden clips.

        Raises:
            BuildFailed: it cannot be made.
            Unhealthy: it does not run, or does not agree with the reference.
            OSError: the disk is full or refuses.
        """

    def environment(self) -> str:
        """What `make` depends on beside the bundle; where it has changed, a release has to be made anew."""
        return self.name

    def space(self, model_bytes: int) -> int:
        """Bytes of disk that `make` needs at most, roughly, for a model of so many."""
        return 0 * model_bytes


class Runtime(Backend):
    """A backend that runs the graph as it is."""

    def make(self, bundle: Path, built: Path, disk: Disk) -> Made:
        """See `Backend`."""
        disk.remove(built / ENGINE)  # what another backend left there, a service would take
        self.build(bundle, built, disk)
        golden = read_golden(bundle)
        return Made(judge(golden, self.run(bundle, built)), self.environment(), {})

    def build(self, bundle: Path, built: Path, disk: Disk) -> None:
        """Make what `run` needs; nothing, unless a subclass says otherwise."""

    @abc.abstractmethod
    def run(self, bundle: Path, built: Path) -> Measured:
        """Run the golden clips.

        Raises:
            Unhealthy: it does not run.
        """


class OnnxRuntime(Runtime):
    """ONNX Runtime in a process of its own: the agent imports nothing that is not Python's.

    `python` is an interpreter that has numpy and onnxruntime.
    """

    name = "onnxruntime"

    def __init__(self, python: str = sys.executable, threads: int = 1, timeout: float = 600.0) -> None:
        self._python, self._threads, self._timeout = python, threads, timeout

    def run(self, bundle: Path, built: Path) -> Measured:
        """See `Runtime`."""
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
        if result.exists():
            result.unlink()
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


class Fallback(Backend):
    """The second backend where the first gives nothing usable; the report then says why, under `fallback`."""

    def __init__(self, first: Backend, second: Backend) -> None:
        self._first, self._second = first, second
        self.name = first.name

    def make(self, bundle: Path, built: Path, disk: Disk) -> Made:
        """See `Backend`."""
        environment = self.environment()
        try:
            return self._first.make(bundle, built, disk)._replace(environment=environment)
        except (BuildFailed, Unhealthy) as err:
            why = " ".join(f"{self._first.name}: {err.kind}: {err}".split())
        try:
            made = self._second.make(bundle, built, disk)
        except (BuildFailed, Unhealthy) as err:
            raise type(err)(f"{self._second.name}: {err}; before that {why}") from None
        return made._replace(environment=environment, info=dict(made.info, fallback=why[:400]))

    def environment(self) -> str:
        """Of both."""
        return f"{self._first.environment()}; else {self._second.environment()}"

    def space(self, model_bytes: int) -> int:
        """See `Backend`."""
        return max(self._first.space(model_bytes), self._second.space(model_bytes))


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
