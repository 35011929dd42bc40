"""What a rollout remembers: a plain value, and the JSON that carries it over a kill.

Times are seconds since the epoch on the deployer's clock; no device's clock is trusted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from infra.edge.fleet.abort import AbortRule
from infra.edge.fleet.rings import Ring
from models.errors import StoreError

MAX_DEVICES = 5_000
"""Their state and the desired state have to fit into signed documents of 1 MiB."""
MAX_MESSAGE = 300


class Phase(StrEnum):
    """Where a rollout stands. The last two are its ends."""

    ROLLING = "rolling"
    ROLLING_BACK = "rolling back"
    CONFIRMED = "confirmed"
    ROLLED_BACK = "rolled back"

    @property
    def over(self) -> bool:
        """Whether nothing more happens."""
        return self in (Phase.CONFIRMED, Phase.ROLLED_BACK)


class Result(StrEnum):
    """What came of asking one device."""

    RUNNING = "running"  # the new release
    INSTALLING = "installing"
    FAILED = "failed"  # counts against the build
    UNABLE = "unable"  # disk, network: says nothing about the build
    LOST = "lost"  # began to install and came to no end: counts against the build

    @property
    def bad(self) -> bool:
        """Whether it counts as a failure of the build."""
        return self in (Result.FAILED, Result.LOST)

    @property
    def judged(self) -> bool:
        """Whether it says anything about the build."""
        return self in (Result.RUNNING, Result.FAILED, Result.LOST)


@dataclass(frozen=True)
class Report:
    """A device's own report, its signature checked; `version` rises with every one that it writes."""

    device: str
    version: int
    desired: int  # version of the desired state that it acts on
    release: str | None
    state: str
    slot: str | None = None
    error: str | None = None  # kind
    message: str = ""
    p50_ms: float | None = None
    p95_ms: float | None = None
    backend: str | None = None
    issued: str = ""


@dataclass(frozen=True)
class Assignment:
    """What the desired state lists a device for."""

    release: str
    rollback: bool = False


@dataclass(frozen=True)
class Device:
    """One device of a rollout: what it was before, and what came of it."""

    id: str
    present: (
        bool  # it had reported, without an error, when the rollout began; or it waits for its first release
    )
    release: str | None = None  # what it ran before
    p50_ms: float | None = None  # with that
    p95_ms: float | None = None
    report: int = 0  # version of its last report before
    assigned: Assignment | None = None  # by the desired state before
    result: Result | None = None
    kind: str | None = None  # of its error
    message: str = ""
    new_p50_ms: float | None = None
    new_p95_ms: float | None = None
    changed: float = 0.0  # when `result` last changed
    restored: bool = False  # runs its old release again, by its own report

    @property
    def ratio(self) -> float | None:
        """p95 with the new build / p95 with the old one."""
        if self.p95_ms and self.new_p95_ms:
            return self.new_p95_ms / self.p95_ms
        return None

    @property
    def surely_slower(self) -> float | None:
        """By how much both its p50 and its p95 grew: what else the device was busy with moves the tail alone."""
        if self.ratio is None or not self.p50_ms or self.new_p50_ms is None:
            return None
        return min(self.ratio, self.new_p50_ms / self.p50_ms)


@dataclass(frozen=True)
class Policy:
    """How long a rollout waits, and what it tolerates. Stored with it, so that a resumed one goes on by the same rules."""

    rule: AbortRule = field(default_factory=AbortRule)
    patience_s: float = 900.0  # for a ring's devices to answer, and for one to install
    soak_s: float = 0.0  # that a ring runs before the next one opens
    quorum: float = 0.8  # share of the devices present that have to have answered


@dataclass(frozen=True)
class Event:
    """One decision, for people and for the record."""

    at: float
    decision: str
    ring: str
    why: str


@dataclass(frozen=True)
class Rollout:
    """A rollout. Values of this class never change; `infra.edge.fleet.rollout` makes the next one."""

    fleet: str
    number: int
    release: str  # digest
    title: str  # name@version, for people
    rings: tuple[Ring, ...]
    devices: tuple[Device, ...]  # in the order of asking
    policy: Policy
    began: float
    phase: Phase = Phase.ROLLING
    ring: int = 0
    asked: tuple[int | None, ...] = (
        None,
    )  # desired version that opened each ring so far; None: not published yet
    undone: int | None = None  # desired version that rolled back
    opened: float = 0.0  # when the ring (or the way back) was published
    why: str = ""
    events: tuple[Event, ...] = ()

    @property
    def id(self) -> str:
        """What tells it from every other rollout."""
        return f"{self.fleet}/{self.number}"

    @property
    def asked_devices(self) -> tuple[Device, ...]:
        """Devices of all rings opened so far."""
        return self.devices[: self.rings[self.ring].until]

    def to_json(self) -> dict[str, Any]:
        """As stored: digests once, in a list that devices index, and no field that has its default."""
        digests = sorted(
            {d.release for d in self.devices if d.release}
            | {d.assigned.release for d in self.devices if d.assigned}
        )
        index = {digest: i for i, digest in enumerate(digests)}
        raw = asdict(replace(self, devices=()))
        raw["phase"] = str(self.phase)
        raw["digests"] = digests
        raw["devices"] = [_compact(d, index) for d in self.devices]
        return raw


def _compact(device: Device, index: Mapping[str, int]) -> dict[str, Any]:
    kept = {f.name: getattr(device, f.name) for f in fields(device) if getattr(device, f.name) != f.default}
    if device.release:
        kept["release"] = index[device.release]
    if device.assigned:
        kept["assigned"] = (index[device.assigned.release], device.assigned.rollback)
    if device.result:
        kept["result"] = str(device.result)
    return kept


class _Stored(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}\z")]


class _Ring(_Stored):
    name: str
    until: int = Field(ge=1)
    in_doubt: bool


class _Device(_Stored):
    id: str = Field(min_length=1, max_length=64)
    present: bool
    release: int | None = Field(None, ge=0)
    p50_ms: float | None = Field(None, ge=0)
    p95_ms: float | None = Field(None, ge=0)
    report: int = 0
    assigned: tuple[Annotated[int, Field(ge=0)], bool] | None = None
    result: Result | None = None
    kind: str | None = None
    message: str = ""
    new_p50_ms: float | None = Field(None, ge=0)
    new_p95_ms: float | None = Field(None, ge=0)
    changed: float = 0.0
    restored: bool = False


class _Rule(_Stored):
    base_rate: float
    level: float
    slower: float
    device_slower: float


class _Policy(_Stored):
    rule: _Rule
    patience_s: float
    soak_s: float
    quorum: float


class _Event(_Stored):
    at: float
    decision: str
    ring: str
    why: str


class _Rollout(_Stored):
    fleet: str
    number: int = Field(ge=1)
    release: _Digest
    title: str
    digests: tuple[_Digest, ...]
    rings: tuple[_Ring, ...] = Field(min_length=1)
    devices: tuple[_Device, ...] = Field(min_length=1, max_length=MAX_DEVICES)
    policy: _Policy
    began: float
    phase: Literal["rolling", "rolling back", "confirmed", "rolled back"]
    ring: int = Field(ge=0)
    asked: tuple[int | None, ...]
    undone: int | None
    opened: float
    why: str
    events: tuple[_Event, ...]


def parse(raw: Mapping[str, Any], where: str) -> Rollout:
    """A rollout from its JSON.

    Raises:
        StoreError: it is none.
    """
    try:
        m = _Rollout.model_validate(raw)
        rule = AbortRule(**m.policy.rule.model_dump())
        devices = tuple(_expand(d, m.digests) for d in m.devices)
    except (ValidationError, ValueError, IndexError) as err:
        raise StoreError(
            f"{where} is not the state of a rollout ({str(err)[:300]}): it was altered or written by another version of cryfed"
        ) from None
    if (
        m.ring >= len(m.rings)
        or len(m.asked) != m.ring + 1
        or m.rings[-1].until != len(devices)
        or len({d.id for d in devices}) != len(devices)
    ):
        raise StoreError(
            f"{where} contradicts itself (rings, devices): it was altered; restore it from a copy"
        )
    return Rollout(
        **{
            **m.model_dump(include={"fleet", "number", "release", "title", "began", "ring", "asked", "undone", "opened", "why"}),
            "rings": tuple(Ring(**r.model_dump()) for r in m.rings),
            "devices": devices,
            "policy": Policy(**{**m.policy.model_dump(), "rule": rule}),
            "phase": Phase(m.phase),
            "events": tuple(Event(**e.model_dump()) for e in m.events),
        }
    )  # fmt: skip


def _expand(stored: _Device, digests: tuple[str, ...]) -> Device:
    plain = stored.model_dump(exclude={"release", "assigned"})
    release = None if stored.release is None else digests[stored.release]
    assigned = (
        None if stored.assigned is None else Assignment(digests[stored.assigned[0]], stored.assigned[1])
    )
    return Device(**plain, release=release, assigned=assigned)
