"""A site's own account of what its infants' privacy has cost, over all runs: append-only, synced before anything is spent.

    charge   {"entry": "charge", "run", "round", "attempt", "steps", "sampling_rate", "noise_multiplier", "delta"}
    update   {"entry": "update", "run", "round", "attempt", "digest"}

One JSON object a line. `charge` is written before a round is trained and stands whatever happens next: a process killed
between the two has paid for nothing. `update` names the update that the charge paid for, before it leaves; sending that one
again is free, training again is another attempt and costs again, for its noise is fresh.

A line that cannot be read (torn by a crash, or damaged) counts as the costliest charge known. The total is the accountant's, over
all charges at the budget's δ, for an infant that took part in all of them. Steps and noise of a later run are taken not to have
been chosen by looking at an earlier one's results. A ledger that is deleted is forgotten: keep it with the recordings.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from infra.federation.privacy.accountant import Spend, compose, epsilon
from models.errors import ConfigError, FederationError, OutputError

_LOCK_WAIT_S = 20.0


@dataclass(frozen=True)
class Budget:
    """What a site allows in all: (ε, δ) for any of its infants."""

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < math.inf or not 0 < self.delta < 1:
            raise ConfigError(
                f"a privacy budget needs a finite epsilon > 0 and 0 < delta < 1, got {self.epsilon} and {self.delta}"
            )


@dataclass(frozen=True)
class Charge:
    """One line of the ledger that costs."""

    run: str
    round: int
    attempt: int
    spend: Spend


@dataclass
class _Pages:
    """What the file says."""

    charges: list[Charge] = field(default_factory=list)
    updates: dict[tuple[str, int], str] = field(default_factory=dict)
    unreadable: int = 0


class PrivacyLedger:
    """The ledger of one site; any number of processes may hold it.

    Args:
        path: its file; the folder must exist.
        budget: what the site allows.
    """

    def __init__(self, path: Path, budget: Budget) -> None:
        self._path = path
        self._budget = budget

    def charge(self, run: str, round_number: int, spend: Spend) -> int:
        """Pay for one training of a round, before it is done; returns the attempt, from 1.

        Raises:
            FederationError: it would exceed the budget (nothing is written), or another process holds the ledger.
            OutputError: the ledger cannot be read or written; then nothing may be trained.
        """
        with self._locked():
            pages = self._read()
            before, after = self._total(pages), self._total(pages, spend)
            if after > self._budget.epsilon:
                raise FederationError(self._refusal(run, round_number, before, after))
            attempt = 1 + sum((c.run, c.round) == (run, round_number) for c in pages.charges)
            self._append(
                {
                    "entry": "charge",
                    "run": run,
                    "round": round_number,
                    "attempt": attempt,
                    "steps": spend.steps,
                    "sampling_rate": spend.sampling_rate,
                    "noise_multiplier": spend.noise_multiplier,
                    "delta": self._budget.delta,
                }
            )
        return attempt

    def record_update(self, run: str, round_number: int, attempt: int, digest: str) -> None:
        """Name the stored update that an attempt paid for, before it leaves.

        Raises:
            FederationError: that attempt was never paid for, or another process holds the ledger.
            OutputError: as `charge`; then the update may not leave.
        """
        with self._locked():
            paid = {(c.run, c.round, c.attempt) for c in self._read().charges}
            if (run, round_number, attempt) not in paid:
                raise FederationError(
                    f"{self._path} holds no charge for attempt {attempt} of round {round_number} of run {run[:12]}: "
                    "charge it first; this update must not leave the site"
                )
            self._append(
                {"entry": "update", "run": run, "round": round_number, "attempt": attempt, "digest": digest}
            )

    def paid_update(self, run: str, round_number: int) -> str | None:
        """Digest of the update that may be sent again at no cost, or None: then the round has to be charged."""
        with self._locked():
            return self._read().updates.get((run, round_number))

    def spent(self, *more: Spend) -> float:
        """ε of everything so far at the budget's δ, and of `more` if it came on top."""
        with self._locked():
            return self._total(self._read(), *more)

    def summary(self) -> dict[str, Any]:
        """What a site prints, JSON types: budget, total, and a line per run. A single run's ε is that of the run alone."""
        with self._locked():
            pages = self._read()
        runs: dict[str, list[Charge]] = {}
        for charge in pages.charges:
            runs.setdefault(charge.run, []).append(charge)
        spent = self._total(pages)
        return {
            "unit": "infant",
            "epsilon": spent,
            "delta": self._budget.delta,
            "budget": self._budget.epsilon,
            "left": max(0.0, self._budget.epsilon - spent),
            "unreadable_lines": pages.unreadable,
            "runs": [
                {
                    "run": run,
                    "rounds": len({c.round for c in charges}),
                    "attempts": len(charges),
                    "steps": sum(c.spend.steps for c in charges),
                    "noise_multiplier": sorted({c.spend.noise_multiplier for c in charges}),
                    "sampling_rate": sorted({c.spend.sampling_rate for c in charges}),
                    "epsilon": compose([c.spend for c in charges], self._budget.delta),
                }
                for run, charges in runs.items()
            ],
        }

    def _total(self, pages: _Pages, *more: Spend) -> float:
        spends = [c.spend for c in pages.charges] + list(more)
        if pages.unreadable and spends:
            costliest = max(
                set(spends),
                key=lambda s: epsilon(s.steps, s.sampling_rate, s.noise_multiplier, self._budget.delta),
            )
            spends += [costliest] * pages.unreadable
        return compose(spends, self._budget.delta)

    def _refusal(self, run: str, round_number: int, before: float, after: float) -> str:
        epsilon, delta = self._budget.epsilon, self._budget.delta
        return (
            f"round {round_number} of run {run[:12]} would take the privacy of this site's infants to ε = {after:.2f} at "
            f"δ = {delta:g}, its budget is {epsilon:g}: {before:.2f} are spent, {max(0.0, epsilon - before):.2f} are left. "
            "Raise noise_multiplier, or take fewer steps or rounds; raising the budget is the site's own decision"
        )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            with FileLock(self._path.with_name(self._path.name + ".lock"), timeout=_LOCK_WAIT_S):
                yield
        except Timeout:
            raise FederationError(
                f"another process holds the privacy ledger {self._path}: wait for it, or stop it"
            ) from None
        except OSError as err:
            raise OutputError(
                f"cannot read or write the privacy ledger {self._path}: {err.strerror}; nothing may be trained without it"
            ) from None

    def _read(self) -> _Pages:
        pages = _Pages()
        raw = self._path.read_bytes() if self._path.exists() else b""
        for line in raw.split(b"\n"):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
                which = (_text(entry["run"]), _whole(entry["round"]))
                if entry["entry"] == "charge":
                    spend = Spend(
                        _whole(entry["steps"]),
                        float(entry["sampling_rate"]),
                        float(entry["noise_multiplier"]),
                    )
                    pages.charges.append(Charge(*which, _whole(entry["attempt"]), spend))
                elif entry["entry"] == "update":
                    pages.updates[which] = _text(entry["digest"])
                else:
                    pages.unreadable += 1
            except (ValueError, KeyError, TypeError, ConfigError):
                pages.unreadable += 1
        return pages

    def _append(self, entry: Mapping[str, Any]) -> None:
        """One write at the end of the file, synced; a line torn earlier is ended first, so that it stays apart."""
        new = not self._path.exists()
        fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(fd).st_size
            torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
            data = (
                (b"\n" if torn else b"") + json.dumps(entry, sort_keys=True, allow_nan=False).encode() + b"\n"
            )
            while data:
                data = data[os.write(fd, data) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        if new:
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def table(summary: Mapping[str, Any]) -> str:
    """`PrivacyLedger.summary` for a person."""
    lines = [
        f"privacy of each infant: ε = {summary['epsilon']:.2f} of {summary['budget']:g} spent at δ = {summary['delta']:g}, "
        f"{summary['left']:.2f} left",
        f"{'run':<14}{'rounds':>8}{'attempts':>10}{'steps':>8}{'noise':>8}{'ε alone':>10}",
    ]
    for run in summary["runs"]:
        noise = "/".join(f"{sigma:g}" for sigma in run["noise_multiplier"])
        lines.append(
            f"{run['run'][:12]:<14}{run['rounds']:>8}{run['attempts']:>10}{run['steps']:>8}{noise:>8}{run['epsilon']:>10.2f}"
        )
    if summary["unreadable_lines"]:
        lines.append(
            f"{summary['unreadable_lines']} unreadable lines, each counted as the costliest charge known"
        )
    return "\n".join(lines)


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no whole number")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
