"""What the devices say: every report of a fleet, its signature checked, only those fetched again that changed."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from infra.edge.fleet.state import MAX_MESSAGE, Report
from infra.edge.trust.documents import Inventory, ReportDocument, parse, to_text
from infra.edge.trust.envelope import MAX_ENVELOPE_BYTES, Envelope, verify
from infra.edge.trust.keys import read_public
from infra.store.client import ObjectInfo, ObjectStore
from models.errors import TrustError, WrongSoftware

_THREADS: Final = 8  # below the store client's pool of connections


class Reports:
    """The last credible report of every device in the inventory.

    - A report that is not signed by its device's own key, or is of another device, changes nothing: `doubtful` says why.
    - One of a lower version than was read before is an old one put back, and changes nothing either.
    """

    def __init__(self, store: ObjectStore, inventory: Inventory) -> None:
        self._store, self._inventory = store, inventory
        self._prefix = f"fleets/{inventory.fleet}/reports/"
        self._tags: dict[str, str] = {}
        self.found: dict[str, Report] = {}
        self.doubtful: dict[str, str] = {}

    def read(self) -> dict[str, Report]:
        """Look once; device → report.

        Raises:
            StoreError: out of reach.
        """
        with ThreadPoolExecutor(_THREADS) as pool:
            for device, tag, data in pool.map(self._fetch, list(self._changed())):
                if data is not None:
                    self._take(device, data)
                self._tags[device] = tag
        return dict(self.found)

    def _changed(self) -> Iterable[tuple[str, ObjectInfo]]:
        for item in self._store.list(self._prefix):
            device = item.key.removeprefix(self._prefix).removesuffix(".json")
            if device in self._inventory.devices and self._tags.get(device) != item.etag:
                yield device, item

    def _fetch(self, asked: tuple[str, ObjectInfo]) -> tuple[str, str, bytes | None]:
        device, item = asked
        if item.size > MAX_ENVELOPE_BYTES:
            self.doubtful[device] = f"a report of {item.size} bytes"
            return device, item.etag, None
        found = self._store.find(item.key, max_bytes=MAX_ENVELOPE_BYTES)
        return (device, item.etag, None) if found is None else (device, found.etag, found.data)

    def _take(self, device: str, data: bytes) -> None:
        try:
            report = open_report(self._inventory, device, data)
        except TrustError as err:
            self.doubtful[device] = str(err)[:MAX_MESSAGE]
            return
        before = self.found.get(device)
        if before is not None and report.version < before.version:
            self.doubtful[device] = f"report {report.version} after {before.version}: an old one was put back"
            return
        self.doubtful.pop(device, None)
        self.found[device] = report


def open_report(inventory: Inventory, device: str, data: bytes) -> Report:
    """A device's report from its envelope.

    Raises:
        TrustError: not signed by the key that the inventory has for it, or not its own.
    """
    where = f"the report of {device}"
    key = read_public(inventory.devices[device].key)
    payload = verify(
        Envelope.parse(data, where), ReportDocument.payload_type(), [key], 1, role="device", where=where
    )
    document = parse(ReportDocument, payload, where)
    if (document.fleet, document.device) != (inventory.fleet, device):
        raise WrongSoftware(
            f"{where} is that of {document.device} in {document.fleet}: it was put there by mistake"
        )
    health, error = document.health, document.error
    return Report(
        device=device,
        version=document.version,
        desired=document.desired,
        release=document.release,
        state=document.state,
        slot=document.slot,
        error=error.kind if error else None,
        message=error.message[:MAX_MESSAGE] if error else "",
        p50_ms=health.p50_ms if health else None,
        p95_ms=health.p95_ms if health else None,
        backend=health.backend if health else None,
        issued=to_text(document.issued),
    )
