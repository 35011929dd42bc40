"""The real agent, ended by SIGKILL at its n-th step; run as a program: `agent_killed.py CONFIG N kill|power`.

`power` makes of the disk, before the end, what a power cut may leave: files that were not flushed are half there and half
zeros, a rename whose folder was not flushed is gone. With N = 0 nothing ends it, and the steps are printed.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from infra.edge.agent.__main__ import main
from infra.edge.agent.disk import Disk


class Fuse:
    """Counts steps, and burns through at one of them."""

    def __init__(self, at: int, power: bool) -> None:
        self.at, self.power, self.steps = at, power, []  # type: ignore[var-annotated]
        self.unflushed: dict[Path, None] = {}
        self.replaced: tuple[Path, bytes | str | None] | None = None

    def __call__(self, step: str, path: Path) -> None:
        self.steps.append(f"{step} {path.name}")
        if step == "write":
            self.unflushed[path] = None
        elif step == "flushed":
            self.unflushed.pop(path, None)
        elif step == "rename":
            self.replaced = path, _content(path)
        elif step == "synced":
            self.replaced = None
        if len(self.steps) == self.at:
            if self.power:
                self._cut()
            os.kill(os.getpid(), signal.SIGKILL)

    def _cut(self) -> None:
        for path in self.unflushed:
            if path.is_file():
                data = path.read_bytes()
                path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
        if self.replaced is not None:
            path, before = self.replaced
            path.unlink(missing_ok=True)
            if isinstance(before, bytes):
                path.write_bytes(before)
            elif before is not None:
                path.symlink_to(before)


def _content(path: Path) -> bytes | str | None:
    if path.is_symlink():
        return str(path.readlink())
    return path.read_bytes() if path.is_file() else None


if __name__ == "__main__":
    fuse = Fuse(int(sys.argv[2]), sys.argv[3] == "power")
    code = main(["--config", sys.argv[1], "--once"], Disk(on_step=fuse))
    print("\n".join(fuse.steps))
    sys.exit(code)
