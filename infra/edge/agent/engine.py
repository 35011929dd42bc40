"""TensorRT: this device's own engine, by `tensorrt.build`, into a slot.

The folder of the backend keeps what outlives a slot: engines under everything they depend on (`tensorrt.cache`), timing caches,
and the logs of `trtexec`. A slot gets a copy, so that what the cache throws away is nothing that runs.
"""

import errno
import os
import platform
import re
import shutil
from pathlib import Path
from typing import Any, Callable, Dict, NamedTuple

from ..tensorrt import errors as engine
from ..tensorrt.build import BUILD_SECONDS, WORKING, Built, Timing, Tool, build, find_trtexec, measure
from ..tensorrt.cache import EngineCache
from ..tensorrt.commands import TYPED
from ..tensorrt.plan import MAX_PLAN_BYTES, PLAN_NAME, BuildPlan, load_plan
from .build import ENGINE, Backend, Made
from .disk import TEMPORARY, Disk, copy
from .errors import BuildFailed, Unhealthy
from .health import health_of, read_golden
from .manifest import MODEL_NAME, TYPED_NAME

_TIMING_SECONDS = 5
_FULL_BYTES = 2**20  # with less than this free, a failed build is the disk's fault
_L4T = re.compile(r"R([0-9]+) \(release\), REVISION: ([0-9.]+)")


class Board(NamedTuple):
    """What an engine is bound to beside TensorRT: neither can be taken to another."""

    soc: str  # "nvidia,tegra210", or the GPU's name
    jetpack: str  # as its L4T release: "R32.6.1" is JetPack 4.6


def read_board(root: Path = Path("/")) -> Board:
    """What this device is: device tree and L4T release of a Jetson, the driver's GPUs elsewhere."""
    compatible = _text(root / "proc/device-tree/compatible").split("\0")
    chips = [name for name in compatible if name.startswith("nvidia,tegra")]
    gpus = [
        line.partition(":")[2].strip()
        for path in sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
        for line in _text(path).splitlines()
        if line.startswith("Model:")
    ]
    found = _L4T.search(_text(root / "etc/nv_tegra_release"))
    soc = chips[-1] if chips else ", ".join(gpus) or platform.machine()
    return Board(soc, "R{}.{}".format(*found.groups()) if found else "none")


class TensorRT(Backend):
    """TensorRT through `trtexec`; `folder` is the backend's own, `workspace_mib` what a layer may use while it is chosen."""

    name = "tensorrt"

    def __init__(
        self,
        trtexec: str,
        folder: Path,
        workspace_mib: int = 512,
        timeout: float = BUILD_SECONDS,
        board: Callable[[], Board] = read_board,
    ) -> None:
        self._trtexec, self._folder, self._workspace = trtexec, folder, workspace_mib
        self._timeout, self._board = timeout, board
        self._tools = {}  # type: Dict[Any, Tool]  # by size and time of the program: at most one

    def space(self, model_bytes: int) -> int:
        """See `Backend`: an engine is about as large as its model; it lies in the work folder, the cache and the slot."""
        return 4 * model_bytes

    def environment(self) -> str:
        """See `Backend`: TensorRT, board, and what engines are built with; asks `trtexec` only where it has changed."""
        board = self._board()
        try:
            version = str(self._tool().version)
        except BuildFailed:
            version = "none"
        return f"tensorrt {version} on {board.soc}, L4T {board.jetpack}, workspace {self._workspace} MiB"

    def make(self, bundle: Path, built: Path, disk: Disk) -> Made:
        """See `Backend`."""
        golden = read_golden(bundle)
        environment, board, tool = self.environment(), self._board(), self._tool()
        plan = _plan(bundle)
        work = self._folder / "work"
        disk.make_folder(work)
        cache = EngineCache(self._folder / "engines")
        cache.clear_leftovers()
        for left in sorted(work.glob(WORKING + "*")):
            disk.remove(left)
        graphs = {"fp32": bundle / MODEL_NAME, TYPED: bundle / TYPED_NAME}
        try:
            found = build(
                tool,
                {kind: path for kind, path in graphs.items() if path.is_file()},
                plan,
                golden,
                cache,
                soc=board.soc,
                jetpack=board.jetpack,
                work=work,
                workspace_mib=self._workspace,
                seconds=int(self._timeout),
            )
            timing = measure(tool, found.engine, plan, work, seconds=_TIMING_SECONDS)
        except engine.Unhealthy as err:
            raise Unhealthy(str(err)) from None
        except (engine.EngineError, ValueError) as err:
            if shutil.disk_usage(str(work)).free < _FULL_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(work)) from None
            raise BuildFailed(str(err)) from None
        _copy(found.engine, built / ENGINE, disk)
        latency = timing.latency
        backend = f"tensorrt {tool.version} {found.precision}"
        health = health_of(found.parity, latency.p50, latency.p95, backend)
        return Made(health, environment, _info(board, found, timing))

    def _tool(self) -> Tool:
        try:
            facts = Path(shutil.which(self._trtexec) or self._trtexec).stat()
        except OSError as err:
            raise BuildFailed(f"{self._trtexec}: {err.strerror}; check backend.trtexec") from None
        stamp = (facts.st_mtime_ns, facts.st_size)
        if stamp in self._tools:
            return self._tools[stamp]
        try:
            tool = find_trtexec((self._trtexec,))
        except engine.EngineError as err:
            raise BuildFailed(f"{self._trtexec}: {err}") from None
        if tool is None:
            raise BuildFailed(f"{self._trtexec}: not a program; check backend.trtexec")
        self._tools = {stamp: tool}
        return tool


def _plan(bundle: Path) -> BuildPlan:
    try:
        with (bundle / PLAN_NAME).open("rb") as file:
            return load_plan(file.read(MAX_PLAN_BYTES + 1))
    except FileNotFoundError:
        raise BuildFailed(
            f"the release has no {PLAN_NAME}, so no engine can be built of it; export it anew"
        ) from None
    except ValueError as err:
        raise BuildFailed(str(err)) from None


def _copy(source: Path, target: Path, disk: Disk) -> None:
    temporary = target.with_name(target.name + TEMPORARY)
    with source.open("rb") as found, temporary.open("wb") as file:
        copy(found, disk, file, temporary)
    disk.finish(temporary)
    disk.rename(temporary, target)


def _info(board: Board, found: Built, timing: Timing) -> Dict[str, Any]:
    """For people: what it was built for, why not faster, and which part takes how long."""
    info = {"soc": board.soc, "l4t": board.jetpack, "precision": found.precision}  # type: Dict[str, Any]
    if found.refused:
        info["refused"] = " ".join("; ".join(found.refused).split())[:400]
    info.update({f"{part}_ms": round(ms, 4) for part, ms in timing.components.items() if ms > 0})
    return info


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(4096).decode("utf-8", "replace")
    except OSError:
        return ""
