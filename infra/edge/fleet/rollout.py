"""The rollout as a state machine: no I/O, no clock of its own. Reports and the time go in, the next state comes out.

                        ┌────────── wait, hold ──────────┐
    begin ─▶ ROLLING ───┴─ widen (publish) ──────────────┴─▶ CONFIRMED      every ring has passed its test
                │
                └─ roll back (publish) ─▶ ROLLING_BACK ─▶ ROLLED_BACK       every device asked is on its old release, or away

- What the desired state ought to say is a function of the rollout (`wanted`). The caller stores the rollout first and then makes
  the store agree, so a kill between the two is repaired by whoever goes on.
- A ring counts from the moment its desired state is `published`; only reports that act on it (or a later one) are about it.
- A failure stays one, whatever the device says later; a success may still become a failure.
- Silence is no success: a device that said `installing` and came to no end is lost and counts against the build; one that never
  answered is away, counts for nothing, and too many of those hold the ring.
- A device that is away keeps its place in the desired state and takes what that says when it comes back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from infra.edge.fleet import rings
from infra.edge.fleet.abort import slow_at, stop_at, too_slow
from infra.edge.fleet.state import (
    MAX_MESSAGE,
    Assignment,
    Device,
    Event,
    Phase,
    Policy,
    Report,
    Result,
    Rollout,
)

NOT_THE_BUILDS_FAULT: Final = frozenset({"NoSpace", "StoreUnreachable", "TooSlow"})
"""Kinds of refusal that say something about a device's disk or network, and nothing about the release."""

SLOWER: Final = "Slower"
"""Kind of failure of a device whose p50 and p95 both more than doubled (`AbortRule.device_slower`)."""

LOST: Final = "Lost"


class Decision(StrEnum):
    """What a step came to."""

    PUBLISH = "publish"  # the desired state does not say yet what it ought to
    WAIT = "wait"
    HOLD = "hold"  # patience is over and too few have answered: a person decides, or more devices come back
    WIDEN = "widen"
    ROLL_BACK = "roll back"
    END = "end"


@dataclass(frozen=True)
class Step:
    """A decision with its reason, and the rollout after it."""

    rollout: Rollout
    decision: Decision
    why: str


@dataclass(frozen=True)
class Tally:
    """How the devices asked so far stand."""

    asked: int
    running: int
    failed: int  # lost ones too
    installing: int
    unable: int
    silent: int

    @property
    def judged(self) -> int:
        """Devices that say something about the build."""
        return self.running + self.failed

    def __str__(self) -> str:
        parts = ("running", "failed", "installing", "unable", "silent")
        said = ", ".join(f"{getattr(self, p)} {p}" for p in parts if getattr(self, p))
        return f"{self.asked} asked: {said}"


def begin(
    *,
    fleet: str,
    number: int,
    release: str,
    title: str,
    devices: Iterable[str],
    reports: Mapping[str, Report],
    assigned: Mapping[str, Assignment],
    policy: Policy,
    now: float,
) -> Rollout:
    """A rollout of `release` to `devices`; those that run it already need not be among them.

    Args:
        reports: every device's last report, where it has one; a device without one, or with an error, is asked last.
        assigned: what the desired state lists each device for now.

    Raises:
        ValueError: no device.
    """
    known = {d: _before(d, reports.get(d), assigned.get(d)) for d in devices}
    away = [d.id for d in known.values() if not d.present]
    placed = rings.order(known, f"{fleet}/{number}", last=away)
    return Rollout(
        fleet=fleet,
        number=number,
        release=release,
        title=title,
        rings=rings.plan(len(placed)),
        devices=tuple(known[d] for d in placed),
        policy=policy,
        began=now,
    )


def wanted(rollout: Rollout, others: Mapping[str, Assignment]) -> dict[str, Assignment]:
    """What the desired state ought to list, device by device; `others` are devices that the rollout does not touch."""
    listed = dict(others)
    asked = {d.id for d in rollout.asked_devices}
    for device in rollout.devices:
        if rollout.phase in (Phase.ROLLING, Phase.CONFIRMED):
            entry = Assignment(rollout.release) if device.id in asked else device.assigned
        elif device.id not in asked:
            entry = device.assigned
        else:
            old = _old(device)
            entry = None if old is None else Assignment(old, rollback=True)
        if entry is not None:
            listed[device.id] = entry
        else:
            listed.pop(device.id, None)
    return listed


def unpublished(rollout: Rollout) -> bool:
    """Whether the last decision still has to reach the desired state."""
    if rollout.phase is Phase.ROLLING:
        return rollout.asked[-1] is None
    return rollout.phase is Phase.ROLLING_BACK and rollout.undone is None


def published(rollout: Rollout, version: int, reports: Mapping[str, Report], now: float) -> Rollout:
    """The desired state of this version says what `wanted` wants; the ring, or the way back, counts from here.

    Args:
        reports: as read before it was published; what a device refused until then is not about this ring.
    """
    if not unpublished(rollout):
        return rollout
    if rollout.phase is Phase.ROLLING_BACK:
        return replace(rollout, undone=version, opened=now)
    # a ring that was passed over opens with the one that follows it: its devices are asked now, and not before
    opened = sum(v is not None for v in rollout.asked)
    before = rollout.rings[opened - 1].until if opened else 0
    fresh = {d.id for d in rollout.asked_devices[before:]}
    devices = tuple(
        replace(d, report=max(d.report, reports[d.id].version)) if d.id in fresh and d.id in reports else d
        for d in rollout.devices
    )
    asked = tuple(version if v is None else v for v in rollout.asked)
    return replace(rollout, devices=devices, asked=asked, opened=now)


def advance(rollout: Rollout, reports: Mapping[str, Report], now: float) -> Step:
    """Take in the latest reports and the time; decide."""
    if rollout.phase.over:
        return Step(rollout, Decision.END, rollout.why)
    if unpublished(rollout):
        return Step(rollout, Decision.PUBLISH, f"{rollout.phase}, {_ring(rollout)}")
    if rollout.phase is Phase.ROLLING_BACK:
        return _go_back(rollout, reports, now)
    return _judge(_take_in(rollout, reports, now), now)


def stop(rollout: Rollout, why: str, now: float) -> Rollout:
    """Roll back because a person says so."""
    return rollout if rollout.phase is not Phase.ROLLING else _roll_back(rollout, why, now).rollout


def tally(devices: Iterable[Device]) -> Tally:
    """Count results."""
    found = list(devices)
    results = [d.result for d in found]
    return Tally(
        asked=len(found),
        running=results.count(Result.RUNNING),
        failed=sum(r is not None and r.bad for r in results),
        installing=results.count(Result.INSTALLING),
        unable=results.count(Result.UNABLE),
        silent=results.count(None),
    )


def _judge(rollout: Rollout, now: float) -> Step:
    asked, ring, policy = rollout.asked_devices, rollout.rings[rollout.ring], rollout.policy
    count = tally(asked)
    if count.failed >= stop_at(ring.until, policy.rule):
        return _roll_back(rollout, _failures(rollout, count, ring.until), now)
    waited = now - rollout.opened
    expected = [d for d in asked if d.present or d.result is not None]
    unsettled = sum(d.result in (None, Result.INSTALLING, Result.UNABLE) for d in expected)
    if (unsettled and waited < policy.patience_s) or count.installing:
        return Step(rollout, Decision.WAIT, str(count))
    if count.failed >= stop_at(max(count.judged, 1), policy.rule):
        return _roll_back(rollout, _failures(rollout, count, count.judged), now)
    ratios = [d.ratio for d in asked if d.result is Result.RUNNING and d.ratio is not None]
    if too_slow(ratios, policy.rule):
        slow = sum(r > policy.rule.slower for r in ratios)
        return _roll_back(
            rollout,
            f"the p95 grew by more than {policy.rule.slower - 1:.0%} on {slow} of {len(ratios)} devices "
            f"(median ratio {sorted(ratios)[len(ratios) // 2]:.2f}; {slow_at(len(ratios), policy.rule)} are enough)",
            now,
        )
    enough = policy.quorum * sum(d.present for d in asked)
    if count.judged < max(enough, 1):
        return Step(
            rollout,
            Decision.HOLD,
            f"only {count.judged} of {count.asked} devices have answered, {max(enough, 1):.0f} are needed ({count})",
        )
    if waited < policy.soak_s:
        return Step(rollout, Decision.WAIT, f"{count}; the ring runs for {policy.soak_s - waited:.0f} s more")
    return _widen(rollout, count, now)


def _widen(rollout: Rollout, count: Tally, now: float) -> Step:
    following = rollout.ring + 1
    while following < len(rollout.rings) and rollout.rings[following].in_doubt and not count.failed:
        following += 1
    if following == len(rollout.rings):
        why = f"every ring passed; {count}"
        done = replace(_log(rollout, Decision.END, why, now), phase=Phase.CONFIRMED, why=why)
        return Step(done, Decision.END, why)
    why = f"{_ring(rollout)} passed; {count}"
    logged = _log(rollout, Decision.WIDEN, why, now)
    unpublished_yet = [None] * (following - rollout.ring)
    wider = replace(logged, ring=following, asked=(*rollout.asked, *unpublished_yet))
    return Step(wider, Decision.WIDEN, why)


def _roll_back(rollout: Rollout, why: str, now: float) -> Step:
    back = replace(_log(rollout, Decision.ROLL_BACK, why, now), phase=Phase.ROLLING_BACK, why=why)
    return Step(back, Decision.ROLL_BACK, why)


def _go_back(rollout: Rollout, reports: Mapping[str, Report], now: float) -> Step:
    asked = {d.id for d in rollout.asked_devices}
    devices = tuple(
        replace(d, restored=True) if d.id in asked and _is_back(rollout, d, reports.get(d.id)) else d
        for d in rollout.devices
    )
    rollout = replace(rollout, devices=devices)
    rest = [d for d in rollout.asked_devices if not d.restored and _old(d) is not None]
    touched = [d for d in rest if d.result is not None]
    # a device that never answered may have begun since: it is waited for as long as one that has
    if rest and now - rollout.opened < rollout.policy.patience_s:
        return Step(
            rollout,
            Decision.WAIT,
            f"{len(rest)} devices are not back yet, {len(touched)} of them were touched",
        )
    back = sum(d.restored for d in rollout.asked_devices)
    said = [f"{back} of {len(rollout.asked_devices)} devices asked are on what they ran before"]
    if rest:
        said.append(f"{len(rest)} are away and go back when they return")
    if orphans := sum(_old(d) is None and d.result is Result.RUNNING for d in rollout.asked_devices):
        said.append(f"{orphans} ran nothing before and keep what they have")
    logged = _log(rollout, Decision.END, "; ".join(said), now)
    return Step(replace(logged, phase=Phase.ROLLED_BACK), Decision.END, f"{rollout.why}; {'; '.join(said)}")


def _is_back(rollout: Rollout, device: Device, report: Report | None) -> bool:
    return (
        report is not None
        and report.desired >= (rollout.undone or 0)
        and report.release == _old(device)
        and report.state != "installing"
    )


def _take_in(rollout: Rollout, reports: Mapping[str, Report], now: float) -> Rollout:
    updated = list(rollout.devices)
    start, patience_s = 0, rollout.policy.patience_s
    for ring, version in zip(rollout.rings, rollout.asked, strict=False):
        for i in range(start, ring.until):
            report = reports.get(updated[i].id)
            if report is not None and version is not None:
                updated[i] = _hear(rollout, updated[i], report, version, now)
            if updated[i].result is Result.INSTALLING and now - updated[i].changed >= patience_s:
                lost = f"began to install {now - updated[i].changed:.0f} s ago and has not come to an end"
                updated[i] = replace(updated[i], result=Result.LOST, kind=LOST, message=lost, changed=now)
        start = max(start, ring.until)
    return replace(rollout, devices=tuple(updated))


def _hear(rollout: Rollout, device: Device, report: Report, version: int, now: float) -> Device:
    if device.result is not None and device.result.bad:
        return device
    result, kind, message = _result(rollout, device, report, version)
    if result is None:
        return device
    heard = device
    if result is Result.RUNNING:
        heard = replace(device, new_p50_ms=report.p50_ms, new_p95_ms=report.p95_ms)
        slower = heard.surely_slower
        if slower is not None and slower > rollout.policy.rule.device_slower:
            result, kind = Result.FAILED, SLOWER
            message = f"p50 {heard.new_p50_ms:.1f} ms, p95 {heard.new_p95_ms:.1f} ms: {slower:.1f} times its own before"
    if (result, kind) == (device.result, device.kind):
        return heard
    return replace(heard, result=result, kind=kind, message=message[:MAX_MESSAGE], changed=now)


def _result(
    rollout: Rollout, device: Device, report: Report, version: int
) -> tuple[Result | None, str | None, str]:
    if report.desired < version:
        # it refuses the desired state itself, so its report cannot name that version; it is a new report, though
        if report.state == "refused" and report.error and report.version > device.report:
            return _blame(report)
        return None, None, ""
    if report.state == "installing":
        return Result.INSTALLING, None, ""
    if report.state == "running" and report.release == rollout.release:
        return Result.RUNNING, None, ""
    if report.error:
        return _blame(report)
    if report.state == "rolled back":
        return Result.FAILED, "RolledBack", report.message
    return None, None, ""  # it has seen the desired state and has not begun


def _blame(report: Report) -> tuple[Result, str | None, str]:
    unable = report.error in NOT_THE_BUILDS_FAULT
    return (Result.UNABLE if unable else Result.FAILED), report.error, report.message


def _before(device: str, report: Report | None, assigned: Assignment | None) -> Device:
    if report is None:
        return Device(device, present=False, assigned=assigned)
    healthy = report.error is None and report.state == "running"
    return Device(
        device,
        present=healthy or report.release is None,
        release=report.release,
        p50_ms=report.p50_ms if healthy else None,
        p95_ms=report.p95_ms if healthy else None,
        report=report.version,
        assigned=assigned,
    )


def _old(device: Device) -> str | None:
    return device.release or (device.assigned.release if device.assigned else None)


def _failures(rollout: Rollout, count: Tally, n: int) -> str:
    kinds: dict[str, int] = {}
    for d in rollout.asked_devices:
        if d.result is not None and d.result.bad:
            kinds[d.kind or "?"] = kinds.get(d.kind or "?", 0) + 1
    named = ", ".join(f"{k} ×{v}" for k, v in sorted(kinds.items(), key=lambda kv: -kv[1])[:4])
    bound = stop_at(max(n, 1), rollout.policy.rule)
    return f"{count.failed} of {count.asked} devices failed ({named}); {bound} of {n} are enough to stop, in {_ring(rollout)}"


def _ring(rollout: Rollout) -> str:
    return f"ring {rollout.rings[rollout.ring].name}"


def _log(rollout: Rollout, decision: Decision, why: str, now: float) -> Rollout:
    event = Event(now, str(decision), rollout.rings[rollout.ring].name, why)
    return replace(rollout, events=(*rollout.events, event))
