"""Programs that a device starts: bounded in time, ended with all their children, what they say in a file.

Standard library only, Python 3.6: a device has this file beside `agent` and `tensorrt`.
"""

import contextlib
import os
import signal
import subprocess
from pathlib import Path
from typing import List, NamedTuple, Optional

_TAIL_BYTES = 4000


class ProgramError(Exception):
    """A program cannot be started, or does not end in time."""


class Finished(NamedTuple):
    """How a program ended."""

    code: int
    tail: str  # the end of what it said


def run(argv: List[str], log: Path, timeout: float, cwd: Optional[Path] = None) -> Finished:
    """Run a program to its end; what it says goes into `log`.

    Raises:
        ProgramError: it cannot be started, or is not done after `timeout` seconds (it and its children are ended then).
    """
    with log.open("wb") as sink:
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                cwd=None if cwd is None else str(cwd),
                start_new_session=True,
            )
        except OSError as err:
            raise ProgramError(
                f"{argv[0]} cannot be started ({err.strerror}); check the configuration"
            ) from None
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise ProgramError(f"{argv[0]} was not done after {timeout:.0f} s") from None
        finally:
            _end(process)
    return Finished(code, tail(log))


def tail(log: Path) -> str:
    """The end of a log, as text."""
    with log.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - _TAIL_BYTES))
        return file.read(_TAIL_BYTES).decode("utf-8", "replace")


def _end(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # its children too, which may outlive it
    process.wait()
