"""One rollout, driven: look at the reports, decide, store the decision, make the desired state agree.

    driver = Driver(store, "ward-7", trust, keys)    # trust: the time → the newest root
    driver.start(release, policy)            # a new rollout, or the one that was interrupted
    while not driver.rollout.phase.over:
        step = driver.step()

Every step may be the last before a kill: the next process takes the rollout from the store, finds a desired state that does not
say yet what it ought to, and writes it. Of two processes that drive one rollout the slower gets a ConflictError.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from infra.edge.fleet import ledger, rollout
from infra.edge.fleet.ledger import Stored
from infra.edge.fleet.reports import Reports
from infra.edge.fleet.rollout import Step
from infra.edge.fleet.state import MAX_DEVICES, Assignment, Phase, Policy, Report, Rollout
from infra.edge.fleet.view import FleetView, look
from infra.edge.fleet_documents import FleetDocuments, Opened
from infra.edge.fleet_home import FleetHome
from infra.edge.fleet_signing import change_inventory, holding, set_desired
from infra.edge.trust.documents import (
    DesiredDocument,
    Inventory,
    ReleaseDocument,
    Ring,
    SignoffDocument,
    parse,
    to_text,
)
from infra.edge.trust.envelope import MAX_ENVELOPE_BYTES
from infra.edge.trust.keys import PrivateKey
from infra.edge.trust.trusted import TrustedRoot, open_signoff
from infra.store.client import ObjectStore
from infra.store.content import check_name
from models.errors import ConfigError, ConflictError, Expired, KeyRevoked, TrustError

_PUBLISH_ATTEMPTS: Final = 5
_RENEW_BEFORE: Final = timedelta(days=15)
"""Half of what a desired state lasts: a device that misses a fortnight of renewals knows that something is wrong."""
_SET_BACK: Final = 1000  # versions: a leap that devices accept, and more than a fleet gets through in months
_AT_ANY_TIME: Final = datetime.min.replace(tzinfo=UTC)


Trust = Callable[[datetime], TrustedRoot]
"""The newest root at a time, its chain checked: `FleetHome.trust`, or whatever else began from a root known beforehand."""


@dataclass(frozen=True)
class Listed:
    """The desired state as a mapping; version 0 and nothing where there is none yet."""

    version: int
    devices: Mapping[str, Assignment]
    expires: datetime = _AT_ANY_TIME
    etag: str = ""


class Driver:
    """Drives the rollouts of one fleet. `keys` are private keys by id, among them those of the fleet role.

    `adopt` takes over what keys signed that the fleet role has lost since: after an exchange of keys, if a person says so.
    """

    def __init__(
        self,
        store: ObjectStore,
        fleet: str,
        trust: Trust,
        keys: Mapping[str, PrivateKey],
        *,
        clock: Callable[[], float] = time.time,
        adopt: bool = False,
    ) -> None:
        self.documents = FleetDocuments(store, fleet)
        self.store, self.fleet = store, fleet
        self._trust, self._all_keys, self._clock, self._adopt = trust, keys, clock, adopt
        trusted = self.trust()
        inventory = self.documents.inventory(trusted, adopt=adopt)
        if inventory is None or not inventory.devices:
            raise ConfigError(f"the fleet {fleet} has no devices: `cryfed keys add-device` adds one")
        self.inventory: Inventory = inventory
        self.reports = Reports(store, inventory)
        self._stored: Stored | None = ledger.load(store, fleet, trusted, adopt=adopt)

    @property
    def rollout(self) -> Rollout:
        """The present rollout, or the last one.

        Raises:
            ConfigError: there never was one.
        """
        if self._stored is None:
            raise ConfigError(f"there has been no rollout on {self.fleet} yet: `cryfed deploy` begins one")
        return self._stored.rollout

    @property
    def last(self) -> Rollout | None:
        """The same, None where there never was one."""
        return None if self._stored is None else self._stored.rollout

    def trust(self) -> TrustedRoot:
        """The newest root that the store has: keys may be exchanged while a rollout runs."""
        return self._trust(self._now())

    def start(self, release: ReleaseDocument, policy: Policy) -> Rollout | None:
        """Begin a rollout, or go on with the one of this release that is not over; None where every device runs it already.

        Raises:
            ConflictError: a rollout of another release is not over.
            ConfigError: no device of the fleet can run the release, or there are too many, or one could not go back to what it
                runs: devices take nothing, not even an old release, that isn't stated and signed off.
        """
        if self._stored is not None and not self._stored.rollout.phase.over:
            running = self._stored.rollout
            if running.release != release.release:
                raise ConflictError(
                    f"rollout {running.id} of {running.title} on {self.fleet} is {running.phase}: let it end, or "
                    "`cryfed fleet stop` it, before another release is rolled out"
                )
            return running
        reports, listed = self.reports.read(), self.listed(self.trust())
        fitting = [d for d, facts in self.inventory.devices.items() if release.runs_on(facts.hardware)]
        if not fitting:
            raise ConfigError(f"no device of {self.fleet} is of the hardware {', '.join(release.hardware)}")
        if len(fitting) > MAX_DEVICES:
            raise ConfigError(f"{len(fitting)} devices; a rollout takes {MAX_DEVICES}: split the fleet")
        there = Assignment(release.release)
        devices = [
            d
            for d in fitting
            if listed.devices.get(d) != there or _release(reports.get(d)) != release.release
        ]
        if not devices:
            return None
        self._require_way_back(devices, reports, listed.devices)
        number = 1 if self._stored is None else self._stored.rollout.number + 1
        title = f"{release.name}@{release.number}"
        self._save(
            rollout.begin(
                fleet=self.fleet,
                number=number,
                release=release.release,
                title=title,
                devices=devices,
                reports=reports,
                assigned=listed.devices,
                policy=policy,
                now=self._clock(),
            )
        )
        return self.rollout

    def step(self) -> Step:
        """Look once, decide, store, publish.

        Raises:
            ConflictError: another process drives this rollout.
            StoreError, TrustError: the store is out of reach, or holds what nobody signed; nothing was decided.
        """
        reports = self.reports.read()
        taken = rollout.advance(self.rollout, reports, self._clock())
        if taken.rollout != self.rollout:
            self._save(taken.rollout)
        if rollout.unpublished(self.rollout):
            version = self._publish(reports)
            self._save(rollout.published(self.rollout, version, reports, self._clock()))
        return replace(taken, rollout=self.rollout)

    def view(self, titles: Mapping[str, str]) -> FleetView:
        """The fleet as it stands, from what was read last; `titles` are name@version by digest, as far as known."""
        listed = self.listed(self.trust())
        return look(
            fleet=self.fleet,
            at=self._clock(),
            version=listed.version,
            expires=to_text(listed.expires) if listed.version else "",
            hardware={d: facts.hardware for d, facts in self.inventory.devices.items()},
            listed=listed.devices,
            reports=self.reports.found,
            doubtful=self.reports.doubtful,
            rollout=self.last,
            titles=titles,
        )

    def stop(self, why: str) -> None:
        """Roll back because a person says so; the next steps do it."""
        self._save(rollout.stop(self.rollout, why, self._clock()))

    def renew(self, *, force: bool = False) -> bool:
        """Sign the same desired state anew where it has less than half of its time left (or by `force`); whether it was.

        Devices refuse an old one, or else whoever owns the store could keep them from ever hearing of a newer.
        """
        trust = self.trust()
        if self._adopt:
            change_inventory(self.documents, trust, self._all_keys.values(), lambda there: there, adopt=True)
        listed = self.listed(trust)
        if not listed.version or (not force and listed.expires - self._now() > _RENEW_BEFORE):
            return False
        self._set(trust, listed.devices, listed, _seen(self.reports.read(), listed.version))
        if self._adopt and self._stored is not None:
            self._save(self._stored.rollout)
        return True

    def listed(self, trust: TrustedRoot) -> Listed:
        """What the desired state says now, expired or not: what it lists is to be carried on.

        Raises:
            TrustError: it was not signed by the fleet role.
        """
        aged = copy.copy(trust)
        if self._now() >= trust.root.expires:
            raise Expired(
                f"root {trust.root.version} of {self.fleet} has expired: `cryfed keys rotate` renews it"
            )
        aged.now = _AT_ANY_TIME
        try:
            found = self.documents.find_desired(aged)
        except KeyRevoked:
            if not self._adopt:
                raise
            found = self._adopted(trust)
        if found is None:
            return Listed(0, {})
        document = found.document
        return Listed(document.version, listing(document), document.expires, found.etag)

    def _adopted(self, trust: TrustedRoot) -> Opened[DesiredDocument]:
        """The desired state that keys signed which the role has lost since."""
        key = f"fleets/{self.fleet}/desired.json"
        found = self.store.find(key, max_bytes=MAX_ENVELOPE_BYTES)
        if found is None:
            raise ConflictError(f"{key} was removed since it was read: read it again")
        payload = trust.vouched("fleet", DesiredDocument.payload_type(), found.data, key, adopt=True)
        return Opened(parse(DesiredDocument, payload, key), found.data, found.etag)

    def _require_way_back(
        self, devices: Sequence[str], reports: Mapping[str, Report], listed: Mapping[str, Assignment]
    ) -> None:
        trust = self.trust()
        old = {_release(reports.get(d)) or (listed[d].release if d in listed else None) for d in devices}
        for digest in sorted(d for d in old if d):
            try:
                stated = self.documents.find_statement(trust, ReleaseDocument, digest)
                signed = self.documents.find_statement(trust, SignoffDocument, digest)
                open_signoff(trust, signed.data if signed else None, digest)
                reason = "" if stated else "nobody states that it is the fleet's"
            except TrustError as err:
                reason = str(err)
            if reason:
                raise ConfigError(
                    f"some devices of {self.fleet} run {digest[:12]}… and could not go back to it ({reason}): have it signed "
                    "anew before anything else is rolled out"
                )

    def _publish(self, reports: Mapping[str, Report]) -> int:
        """Make the desired state say what the rollout wants; its version.

        Another process may decide at any moment (`cryfed fleet stop`), and what it publishes must not be overwritten by what was
        decided before: the desired state is read, then this rollout is seen to be the present one, then exactly what was read is
        replaced. Whoever decides after that has to replace something, too: so a way back is always written, never found done.
        """
        assert self._stored is not None
        mine = {d.id for d in self.rollout.devices}
        back = self.rollout.phase is Phase.ROLLING_BACK
        for attempt in range(1, _PUBLISH_ATTEMPTS + 1):
            trust = self.trust()
            listed = self.listed(trust)
            ledger.require_present(self.store, self._stored)
            others = {d: entry for d, entry in listed.devices.items() if d not in mine}
            wanted = rollout.wanted(self.rollout, others)
            # devices may have seen a higher version than a store that was set back shows
            floor = _seen(reports, listed.version)
            done = wanted == listed.devices and listed.version >= floor and listed.expires > self._now()
            if done and not back:
                return listed.version
            try:
                return self._set(trust, wanted, listed, floor)
            except ConflictError:
                if attempt == _PUBLISH_ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    def _set(self, trust: TrustedRoot, wanted: Mapping[str, Assignment], listed: Listed, floor: int) -> int:
        """Replace the desired state that was read by another; its version."""
        return set_desired(
            self.documents,
            trust,
            rings_of(wanted),
            self._all_keys.values(),
            floor=floor,
            over=listed.etag,
            now=self._now(),
        ).version

    def _save(self, fresh: Rollout) -> None:
        keys = holding(self._all_keys.values(), self.trust().root, "fleet")
        self._stored = ledger.save(self.store, fresh, keys, before=self._stored)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


def open_driver(store: ObjectStore, fleet: str, keys_dir: Path, *, adopt: bool = False) -> Driver:
    """The driver of a fleet whose roots and keys lie in `<keys_dir>/<fleet>`.

    Raises:
        ConfigError: no root of it was ever accepted here, or it has no devices.
        KeyFileError: a key cannot be used.
        TrustError, StoreError: as `Driver`.
    """
    home = FleetHome(keys_dir / check_name("fleet", fleet))
    documents = FleetDocuments(store, fleet)
    return Driver(store, fleet, lambda now: home.trust(documents, now=now), home.keys(), adopt=adopt)


def listing(desired: DesiredDocument) -> dict[str, Assignment]:
    """Device → what it is listed for."""
    return {d: Assignment(ring.release, ring.rollback) for ring in desired.rings for d in ring.devices}


def rings_of(wanted: Mapping[str, Assignment]) -> list[Ring]:
    """The same as rings: one for each release and sense, devices in order, so that equal wishes give equal documents."""
    rings: dict[tuple[str, bool], list[str]] = {}
    for device in sorted(wanted):
        entry = wanted[device]
        rings.setdefault((entry.release, entry.rollback), []).append(device)
    return [
        Ring(release=release, devices=tuple(devices), rollback=rollback)
        for (release, rollback), devices in sorted(rings.items())
    ]


def _release(report: Report | None) -> str | None:
    return None if report is None else report.release


def _seen(reports: Mapping[str, Report], version: int) -> int:
    """A version that devices have seen, though the store may show an older one: what two of them say, within bounds.

    One device by itself is not believed: a version of its own invention would shut out all later ones.
    """
    said = sorted((r.desired for r in reports.values()), reverse=True)
    second = said[1] if len(said) > 1 else version
    return second if second <= version + _SET_BACK else version
