"""Medians with their range, processes that are timed round by round in turn, and what a process tree costs.

Several children run the same job by different means. Each does one round, then waits: so rounds of one kind lie between rounds of
the others, and a machine that grows slower does so for all of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import psutil

Json = dict[str, Any]

# Ray has its workers give way to all other processes (niceness 15), and two threads of torch that spin stall each other when a
# third wants their core: what else runs on the machine should cost every kind the same
_ALIKE = {"RAY_worker_niceness": "0", "OMP_WAIT_POLICY": "PASSIVE"}

# processes may end while they are looked at
_GONE = (psutil.NoSuchProcess, psutil.ZombieProcess, FileNotFoundError, ProcessLookupError)


@dataclass(frozen=True)
class Spread:
    """A quantity measured several times."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Of at least one value."""
        found = sorted(values)
        return cls(median(found), found[0], found[-1], len(found))

    def to_dict(self) -> Json:
        """Plain JSON types."""
        return asdict(self)

    def __str__(self) -> str:
        if self.count == 1:
            return _short(self.median)
        return f"{_short(self.median)} ({_short(self.low)} … {_short(self.high)})"


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def repeat(work: Callable[[], object], times: int) -> Spread:
    """Milliseconds of a call, after one that does not count."""
    work()
    return Spread.of(_milliseconds(work) for _ in range(times))


def _milliseconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return 1000.0 * (time.perf_counter() - started)


class Child:
    """A process that runs a job (`benchmarks.children`), one round for each line that it is sent.

    Raises:
        RuntimeError: it ended before it was done; the message holds the end of its log.
    """

    def __init__(self, kind: str, job: Path, log: Path) -> None:
        self.kind, self._job, self._log = kind, job, log
        self.digest = ""

    def first(self) -> float:
        """Start the process; seconds until the end of its first round."""
        started = time.monotonic()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.children", self.kind, str(self._job)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env={**os.environ, **_ALIKE},
            )  # fmt: skip
        self._await("round")
        return time.monotonic() - started

    def step(self) -> float:
        """Seconds of the next round."""
        assert self._process.stdin is not None
        started = time.monotonic()
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        self._await("round")
        return time.monotonic() - started

    def finish(self) -> Json:
        """Let it leave after its last round; its last event."""
        done = self._await("done")
        self.digest = done["theta_digest"]
        self.close()
        return done

    def close(self) -> None:
        """End it, done or not."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def tree(self) -> list[psutil.Process]:
        """The process and all below it."""
        top = psutil.Process(self._process.pid)
        return [top, *top.children(recursive=True)]

    def cpu(self) -> float:
        """CPU seconds so far, of the whole tree."""
        total = 0.0
        for process in self.tree():
            with suppress(*_GONE):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def peak_mib(self) -> dict[str, float]:
        """Largest resident set so far, MiB: of the process itself, and of the largest actor below it."""
        peaks = {"process": 0.0}
        for place, process in enumerate(self.tree()):
            with suppress(*_GONE):
                role = "process" if place == 0 else "actor"
                if place == 0 or "ClientAppActor" in " ".join(process.cmdline()):
                    peaks[role] = max(peaks.get(role, 0.0), _high_water_mib(process.pid))
        return peaks

    def _await(self, event: str) -> Json:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            found: Json = json.loads(line)
            if found["event"] == event:
                return found
        end = self._log.read_text(errors="replace").splitlines()[-15:]
        raise RuntimeError(f"the process {self.kind!r} ended before {event!r}:\n" + "\n".join(end))


def _high_water_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024.0
    return 0.0


@dataclass
class Series:
    """What one kind took in one repetition."""

    first: float = 0.0  # seconds from start to the end of the first round
    rounds: list[float] = field(default_factory=list)  # seconds, from the second on
    cpu: float = 0.0  # CPU seconds of these rounds
    peak_mib: dict[str, float] = field(default_factory=dict)
    digest: str = ""

    @property
    def seconds(self) -> float:
        """Mean of a round."""
        return sum(self.rounds) / len(self.rounds)

    @property
    def cold_start(self) -> float:
        """Seconds before the first round could have begun."""
        return self.first - self.seconds


def interleave(children: Sequence[Child], rounds: int) -> dict[str, Series]:
    """Time `rounds` rounds of every child, one of each in turn, and let them end; the order changes with every turn.

    The children are those of `Child`, their first round done by nobody else.
    """
    found = {child.kind: Series(first=child.first()) for child in children}
    for turn in range(rounds):
        at = turn % len(children)
        for child in [*children[at:], *children[:at]]:
            before = child.cpu()
            found[child.kind].rounds.append(child.step())
            found[child.kind].cpu += child.cpu() - before
    for child in children:
        found[child.kind].peak_mib = child.peak_mib()
        child.finish()
        found[child.kind].digest = child.digest
    return found
