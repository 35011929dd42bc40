"""Devices that answer as told, for the state machine alone: no store, no signatures."""

from __future__ import annotations

import json
from collections.abc import Callable, Set
from dataclasses import replace

from infra.edge.fleet import rollout, state
from infra.edge.fleet.rollout import Decision, Step
from infra.edge.fleet.state import Assignment, Policy, Report, Rollout

OLD, NEW = "0" * 64, "1" * 64

Answer = Callable[[str, str], Report | None]
"""(device, release) → its next report, None where it stays silent."""


def healthy(
    device: str, *, release: str = OLD, desired: int = 1, version: int = 1, p95_ms: float = 10.0
) -> Report:
    """A report of a device that runs a release."""
    return Report(device, version, desired, release, "running", p50_ms=0.8 * p95_ms, p95_ms=p95_ms)


def refusing(bad: Set[str], kind: str = "Unhealthy") -> Answer:
    """Devices of which these refuse the new release, and go on with the old one."""

    def answer(device: str, release: str) -> Report | None:
        if release == NEW and device in bad:
            return Report(device, 0, 0, OLD, "refused", error=kind, message="max |Δp| 0.4")
        return healthy(device, release=release)

    return answer


def silent(device: str, release: str) -> None:
    """No device says anything."""


class Fleet:
    """A fleet, its desired state, and a rollout over it; `answer` says what a device does when asked for a release."""

    def __init__(
        self,
        size: int,
        answer: Answer,
        *,
        policy: Policy | None = None,
        number: int = 1,
    ) -> None:
        self.ids = [f"d{i:04d}" for i in range(size)]
        self.answer = answer
        self.reports = {d: healthy(d) for d in self.ids}
        self.version = 1
        self.listed = {d: Assignment(OLD) for d in self.ids}
        self.now = 1000.0
        self.policy, self.number = policy or Policy(), number
        self.decisions: list[Decision] = []
        self.rollout: Rollout

    def begin(self) -> Rollout:
        """Begin the rollout with what the devices report now."""
        self.rollout = rollout.begin(
            fleet="ward",
            number=self.number,
            release=NEW,
            title="infant-cry@2",
            devices=self.ids,
            reports=self.reports,
            assigned=self.listed,
            policy=self.policy,
            now=self.now,
        )
        return self.rollout

    def publish(self) -> None:
        """Make the desired state what the rollout wants, and let the devices act on it."""
        wanted = rollout.wanted(self.rollout, {})
        if wanted != self.listed:
            before, self.listed = self.listed, wanted
            self.version += 1
            changed = [d for d in self.ids if wanted.get(d) != before.get(d)]
            self.rollout = rollout.published(self.rollout, self.version, self.reports, self.now)
            for device in changed:
                if device in wanted:
                    self.act(device, wanted[device])
        else:
            self.rollout = rollout.published(self.rollout, self.version, self.reports, self.now)

    def act(self, device: str, entry: Assignment) -> None:
        """One device reads the desired state."""
        said = self.answer(device, entry.release)
        if said is not None:
            self.reports[device] = replace(
                said,
                desired=self.version,
                version=self.reports[device].version + 1 if device in self.reports else 1,
            )

    def step(self) -> Step:
        """One look: advance, store, publish; the rollout goes through its JSON every time, as over a kill."""
        taken = rollout.advance(self.rollout, self.reports, self.now)
        self.decisions.append(taken.decision)
        self.rollout = state.parse(json.loads(json.dumps(taken.rollout.to_json())), "test")
        assert self.rollout == taken.rollout
        if rollout.unpublished(self.rollout):
            self.publish()
        return taken

    def run(self, looks: int = 60, seconds: float = 30.0) -> Rollout:
        """Look until it is over."""
        self.begin()
        for _ in range(looks):
            if self.rollout.phase.over:
                break
            self.step()
            self.now += seconds
        return self.rollout

    def run_quickly(self) -> Rollout:
        """`run` without the detour over JSON at every look."""
        self.begin()
        while not self.rollout.phase.over:
            self.rollout = rollout.advance(self.rollout, self.reports, self.now).rollout
            if rollout.unpublished(self.rollout):
                self.publish()
            self.now += 30
        return self.rollout

    def running(self, release: str) -> int:
        """How many devices run a release by their own word."""
        return sum(r.release == release for r in self.reports.values())
