"""A fleet at a glance: what every device ought to run, what it says it runs, and how the rollout stands. A plain value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from infra.edge.fleet.abort import slow_at, stop_at
from infra.edge.fleet.rings import Ring
from infra.edge.fleet.rollout import Tally, tally
from infra.edge.fleet.state import Assignment, Device, Report, Rollout


@dataclass(frozen=True)
class DeviceView:
    """One device."""

    id: str
    hardware: str
    ring: str  # of the rollout; empty: not part of it
    desired: str | None  # digests
    reported: str | None
    state: str  # its own word; "never reported"
    error: str | None
    message: str
    p50_ms: float | None
    p95_ms: float | None
    ratio: float | None  # p95 with the new build / its own with the old one
    backend: str | None
    issued: str  # of its report, on its own clock

    @property
    def agrees(self) -> bool:
        """Whether it runs what it ought to, without an error."""
        return self.error is None and self.state == "running" and self.desired in (None, self.reported)


@dataclass(frozen=True)
class RingView:
    """One ring: its own devices, not those of the rings before."""

    name: str
    devices: int
    opened: bool
    skipped: bool
    again: bool  # the second sample, asked where one device failed
    tally: Tally
    stop_at: int  # failures, of this ring and those before


@dataclass(frozen=True)
class Spread:
    """Order statistics of some milliseconds (or ratios)."""

    n: int
    median: float
    p90: float
    worst: float


@dataclass(frozen=True)
class VersionView:
    """One release on the fleet."""

    digest: str
    title: str
    desired: int
    reported: int
    p95_ms: Spread | None  # over the devices that run it


@dataclass(frozen=True)
class FailedView:
    """A device that counted against the build."""

    id: str
    ring: str
    kind: str
    message: str
    at: float


@dataclass(frozen=True)
class FleetView:
    """What the table and the page show."""

    fleet: str
    at: float  # seconds since the epoch
    version: int  # of the desired state
    expires: str
    rollout: Rollout | None
    rings: tuple[RingView, ...]
    versions: tuple[VersionView, ...]
    failures: tuple[tuple[str, int], ...]  # kind of error → devices
    failed: tuple[FailedView, ...]  # of this rollout, whatever they say since
    devices: tuple[DeviceView, ...]
    ratios: tuple[float, ...]
    slow: tuple[int, int | None]  # devices slower than tolerated; how many would stop it
    doubtful: Mapping[str, str]  # device → why its report is not believed

    @property
    def agreeing(self) -> int:
        """Devices that run what they ought to."""
        return sum(d.agrees for d in self.devices)


def look(
    *,
    fleet: str,
    at: float,
    version: int,
    expires: str,
    hardware: Mapping[str, str],
    listed: Mapping[str, Assignment],
    reports: Mapping[str, Report],
    doubtful: Mapping[str, str],
    rollout: Rollout | None,
    titles: Mapping[str, str],
) -> FleetView:
    """Put together what is known.

    Args:
        hardware: device → hardware, every device of the inventory.
        titles: release digest → name@version, as far as known.
    """
    place = _places(rollout)
    members = {d.id: d for d in rollout.devices} if rollout else {}
    devices = tuple(
        sorted(
            (
                _device(d, hardware[d], place.get(d, ""), listed.get(d), reports.get(d), members.get(d))
                for d in hardware
            ),
            key=lambda d: (d.agrees, d.error is None, d.id),
        )
    )
    ratios = tuple(sorted(d.ratio for d in devices if d.ratio is not None))
    rule = rollout.policy.rule if rollout else None
    return FleetView(
        fleet=fleet,
        at=at,
        version=version,
        expires=expires,
        rollout=rollout,
        rings=_rings(rollout),
        versions=_versions(devices, titles),
        failures=tuple(Counter(d.error for d in devices if d.error).most_common()),
        failed=tuple(
            FailedView(d.id, place[d.id], d.kind or "", d.message, d.changed)
            for d in members.values()
            if d.result is not None and d.result.bad
        ),
        devices=devices,
        ratios=ratios,
        slow=(sum(r > rule.slower for r in ratios), slow_at(len(ratios), rule)) if rule else (0, None),
        doubtful=dict(doubtful),
    )


def _device(
    device: str,
    hardware: str,
    ring: str,
    entry: Assignment | None,
    report: Report | None,
    member: Device | None,
) -> DeviceView:
    ratio = member.ratio if member else None
    desired = entry.release if entry else None
    if report is None:
        return DeviceView(
            device, hardware, ring, desired, None, "never reported", None, "", None, None, ratio, None, ""
        )
    return DeviceView(
        id=device,
        hardware=hardware,
        ring=ring,
        desired=desired,
        reported=report.release,
        state=report.state,
        error=report.error,
        message=report.message,
        p50_ms=report.p50_ms,
        p95_ms=report.p95_ms,
        ratio=ratio,
        backend=report.backend,
        issued=report.issued,
    )


def _places(rollout: Rollout | None) -> dict[str, str]:
    places, start = {}, 0
    for ring, skipped in _steps(rollout):
        if not skipped:
            places.update({d.id: ring.name for d in rollout.devices[start : ring.until]} if rollout else {})
            start = ring.until
    return places


def _steps(rollout: Rollout | None) -> list[tuple[Ring, bool]]:
    """The rings with whether they were passed over."""
    if rollout is None:
        return []
    entered = {e.ring for e in rollout.events} | {rollout.rings[rollout.ring].name}
    return [(ring, ring.in_doubt and ring.name not in entered) for ring in rollout.rings]


def _rings(rollout: Rollout | None) -> tuple[RingView, ...]:
    if rollout is None:
        return ()
    views, start = [], 0
    for number, (ring, skipped) in enumerate(_steps(rollout)):
        members = () if skipped else rollout.devices[start : ring.until]
        opened = number <= rollout.ring and not skipped
        counted = tally(members if opened else ())
        views.append(
            RingView(
                name=ring.name,
                devices=len(members),
                opened=opened,
                skipped=skipped,
                again=ring.in_doubt,
                tally=counted,
                stop_at=stop_at(ring.until, rollout.policy.rule),
            )
        )
        start = start if skipped else ring.until
    return tuple(views)


def _versions(devices: Sequence[DeviceView], titles: Mapping[str, str]) -> tuple[VersionView, ...]:
    digests = Counter[str]()
    for d in devices:
        digests.update({x for x in (d.desired, d.reported) if x})
    return tuple(
        VersionView(
            digest=digest,
            title=titles.get(digest, digest[:12]),
            desired=sum(d.desired == digest for d in devices),
            reported=sum(d.reported == digest for d in devices),
            p95_ms=spread([d.p95_ms for d in devices if d.reported == digest and d.p95_ms is not None]),
        )
        for digest in sorted(digests, key=lambda x: (titles.get(x, ""), x), reverse=True)
    )


def spread(values: Sequence[float]) -> Spread | None:
    """Order statistics, None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    last = len(ordered) - 1
    return Spread(len(ordered), ordered[last // 2], ordered[round(0.9 * last)], ordered[-1])
