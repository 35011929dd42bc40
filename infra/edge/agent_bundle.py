"""What a device gets: the agent and the part of TensorRT that runs there, as one folder that needs nothing else of cryfed.

    OUT/edge/__init__.py, process.py, agent/…, tensorrt/…    python3 -m edge.agent, from OUT
    OUT/cryfed-agent.service                                  the unit
    OUT/SHA256SUMS                                            sha256sum -c, after the way to the device

Both packages import each other relatively, so that the same files work here (`infra.edge.agent`) and there (`edge.agent`).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from infra.digest import digest_file
from models.errors import OutputError

PACKAGE: Final = "edge"
UNIT: Final = "cryfed-agent.service"
SUMS: Final = "SHA256SUMS"
TENSORRT: Final = ("__init__", "errors", "plan", "commands", "logs", "parity", "cache", "build")
"""Modules of `infra.edge.tensorrt` that run on a device; the others need ONNX."""

_HERE = Path(__file__).parent


def device_files() -> dict[str, Path]:
    """Name in the tree → where it lies here."""
    modules = [*(_HERE / "agent").glob("*.py"), *(_HERE / "tensorrt" / f"{name}.py" for name in TENSORRT)]
    sources = [_HERE / "__init__.py", _HERE / "process.py", *modules]
    found = {f"{PACKAGE}/{path.relative_to(_HERE).as_posix()}": path for path in sorted(sources)}
    return {**found, UNIT: _HERE / "agent" / UNIT}


def write_agent(folder: Path) -> dict[str, str]:
    """Write the tree into a folder that is empty or not there; returns name → SHA-256.

    Raises:
        OutputError: there is something in it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise OutputError(f"{folder}: not empty; what lies there would be taken for a part of the agent")
        digests = {}
        for name, source in device_files().items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            digests[name] = digest_file(target)
        (folder / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in digests.items()))
    except OSError as err:
        raise OutputError(f"{folder}: cannot be written ({err.strerror or err}); check its rights") from err
    return digests
