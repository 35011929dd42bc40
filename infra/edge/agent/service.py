"""The service that uses the current slot: restarted after a swap, and asked whether it answers."""

import time
from pathlib import Path
from typing import Sequence

from ..process import ProgramError, run
from .errors import Unhealthy

_RESTART_TIMEOUT_S = 120.0


class Service:
    """Two command lines, either of which may be empty: no restart is needed, or no answer awaited."""

    def __init__(
        self, restart: Sequence[str], probe: Sequence[str], timeout: float, logs: Path, pause: float = 1.0
    ) -> None:
        self._restart, self._probe = list(restart), list(probe)
        self._timeout, self._logs, self._pause = timeout, logs, pause

    def restart(self) -> None:
        """Restart it, and wait until it answers.

        Raises:
            Unhealthy: it does not restart, or does not answer in time.
        """
        try:
            if self._restart:
                done = run(self._restart, self._logs / "restart.log", _RESTART_TIMEOUT_S)
                if done.code != 0:
                    raise Unhealthy(f"the restart ended with {done.code}: {_line(done.tail)}")
            if self._probe:
                self._wait()
        except ProgramError as err:
            raise Unhealthy(f"the service: {err}") from None

    def _wait(self) -> None:
        deadline = time.monotonic() + self._timeout
        while True:
            left = deadline - time.monotonic()
            done = run(self._probe, self._logs / "probe.log", max(left, 0.1))
            if done.code == 0:
                return
            if time.monotonic() + self._pause > deadline:
                raise Unhealthy(
                    f"the service did not answer within {self._timeout:.0f} s: the probe ended with {done.code}: "
                    f"{_line(done.tail)}"
                )
            time.sleep(self._pause)


def _line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"
