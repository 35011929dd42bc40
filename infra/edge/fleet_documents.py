"""A fleet's documents in the object store: read, created once, replaced by compare-and-swap.

    fleets/<fleet>/root/<n>.json             created once (If-None-Match)
    fleets/<fleet>/releases/<digest>.json    created once; renewed (If-Match) when it expired or its key was retired
    fleets/<fleet>/signoffs/<digest>.json    the same
    fleets/<fleet>/desired.json              replaced (If-Match), version one higher each time
    fleets/<fleet>/inventory.json            the same
    fleets/<fleet>/reports/<device>.json     replaced by the device

- Nothing is written that a device would refuse: every envelope is opened with the fleet's roots first.
- Of several writers of one version exactly one wins; the others get a ConflictError and have changed nothing.
- What lies in the store is not believed because it lies there. A document that no role of the fleet ever signed counts as absent,
  so whoever can write into the bucket can get in the way, but not stay in it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from infra.edge.trust.documents import (
    MAX_INVENTORY_BYTES,
    AnyModel,
    DesiredDocument,
    Document,
    Inventory,
    ReleaseDocument,
    SignoffDocument,
    parse,
)
from infra.edge.trust.envelope import MAX_ENVELOPE_BYTES, Envelope
from infra.edge.trust.trusted import TrustedRoot
from infra.store.client import ObjectStore, StoredObject
from infra.store.content import check_digest, check_name
from models.errors import ConflictError, Expired, KeyRevoked, StoreError, TrustError

AnyDocument = TypeVar("AnyDocument", bound=Document)


@dataclass(frozen=True)
class Opened(Generic[AnyModel]):
    """A verified document and the tag that replacing it needs."""

    document: AnyModel
    data: bytes
    etag: str


class FleetDocuments:
    """One fleet's documents in one store."""

    def __init__(self, store: ObjectStore, fleet: str) -> None:
        self.store = store
        self.fleet = check_name("fleet", fleet)

    # ---- roots

    def root(self, version: int) -> bytes | None:
        """Root `version` as it lies there, None where there is none."""
        found = self._find(self._root_key(version))
        return None if found is None else found.data

    def trust(self, first: bytes, *, now: datetime) -> TrustedRoot:
        """Every root that the store has, each accepted by the one before.

        Args:
            first: the envelope of a root that is trusted already, by another way than this store.

        Raises:
            TrustError: a root is not signed as it has to be.
            StoreError: out of reach.
        """
        trust = TrustedRoot(first, self.fleet, now=now)
        while (data := self.root(trust.root.version + 1)) is not None:
            trust.update_root(data)
        return trust

    def create_root(self, envelope: Envelope, *, before: TrustedRoot | None, now: datetime) -> TrustedRoot:
        """Write the fleet's first root, or the next one; returns what to trust from now on.

        Args:
            before: the chain that it continues; None for the first. It is not changed.

        Raises:
            TrustError: devices would not accept it.
            ConflictError: another root of that version was written first.
        """
        data = envelope.to_bytes()
        if before is None:
            after = TrustedRoot(data, self.fleet, now=now)
            if after.root.version != 1:
                raise StoreError(f"the first root of {self.fleet} has version 1, not {after.root.version}")
        else:
            after = before.successor(data)
        if now >= after.root.expires:
            raise Expired(f"root {after.root.version} of {self.fleet} is expired already: make it anew")
        self._create(self._root_key(after.root.version), data, f"root {after.root.version}")
        return after

    # ---- statements on a release

    def find_statement(
        self, trust: TrustedRoot, model: type[AnyDocument], digest: str
    ) -> Opened[AnyDocument] | None:
        """The release statement or sign-off of a release, None where there is none.

        Raises:
            TrustError: there is one that no device would believe.
        """
        found = self._find(self._statement_key(model, digest))
        if found is None:
            return None
        document = trust.open(model, found.data, f"{model.kind()} {digest[:12]}…")
        return Opened(document, found.data, found.etag)

    def statement_version(self, trust: TrustedRoot, model: type[Document], digest: str) -> int:
        """Version of what lies there, 0 where nothing lies there that the fleet ever signed: the next has one more."""
        found = self._find(self._statement_key(model, digest))
        return 0 if found is None else _present(trust, model, found.data).version

    def put_statement(self, trust: TrustedRoot, model: type[AnyDocument], envelope: Envelope) -> AnyDocument:
        """Create a release statement or sign-off, or renew the one that lies there.

        Raises:
            TrustError: no device would believe it.
            ConflictError: its version is not one higher than what lies there, or another writer was first.
        """
        data = envelope.to_bytes()
        document = trust.open(model, data, f"the new {model.kind()}")
        assert isinstance(document, ReleaseDocument | SignoffDocument)
        self._put_next(trust, model, self._statement_key(model, document.release), data, document.version)
        return document

    # ---- desired state

    def find_desired(self, trust: TrustedRoot) -> Opened[DesiredDocument] | None:
        """The desired state, None where there is none yet.

        Raises:
            TrustError: it is not to be believed, or expired.
        """
        found = self._find(self._desired_key)
        if found is None:
            return None
        return Opened(trust.open(DesiredDocument, found.data, "the desired state"), found.data, found.etag)

    def desired_version(self, trust: TrustedRoot) -> int:
        """Version of the desired state that lies there, expired or not; 0 where the fleet never signed it.

        The store may be holding back a newer one. Who has devices' reports takes the highest of both.
        """
        found = self._find(self._desired_key)
        return 0 if found is None else _present(trust, DesiredDocument, found.data).version

    def desired_binds(self, trust: TrustedRoot) -> bool:
        """Whether keys that hold the role now vouch for that version; not where the last signer was retired."""
        found = self._find(self._desired_key)
        return found is None or _present(trust, DesiredDocument, found.data).binding

    def put_desired(
        self, trust: TrustedRoot, envelope: Envelope, *, floor: int = 0, over: str | None = None
    ) -> DesiredDocument:
        """Replace the desired state by the next one.

        Args:
            floor: highest version that a device is known to have accepted; a store that holds an older one was set back.
            over: tag of the desired state that the new one was made from ("": there was none); None: made from nothing, so
                whatever lies there may go.

        Raises:
            TrustError: no device would believe it.
            ConflictError: its version is not one higher than the present one, or another writer was first.
        """
        data = envelope.to_bytes()
        document = trust.open(DesiredDocument, data, "the new desired state")
        self._put_next(
            trust, DesiredDocument, self._desired_key, data, document.version, floor=floor, over=over
        )
        return document

    # ---- inventory and reports

    def inventory(self, trust: TrustedRoot, *, adopt: bool = False) -> Inventory | None:
        """The fleet's devices, None where none was ever added. Raises as `find_inventory`."""
        found = self.find_inventory(trust, adopt=adopt)
        return None if found is None else found.document

    def find_inventory(self, trust: TrustedRoot, *, adopt: bool = False) -> Opened[Inventory] | None:
        """The same with its tag.

        Args:
            adopt: accept what keys signed that the fleet role has lost.

        Raises:
            TrustError: it is not signed by the fleet role, or not as the protocol has it.
        """
        found = self.store.find(self._inventory_key, max_bytes=2 * MAX_INVENTORY_BYTES)
        if found is None:
            return None
        return Opened(self._inventory(trust, found.data, adopt=adopt), found.data, found.etag)

    def put_inventory(self, trust: TrustedRoot, envelope: Envelope, *, over: str | None) -> Inventory:
        """Replace the inventory whose tag is `over`, None where there is none yet.

        Raises:
            TrustError: it would not be believed.
            ConflictError: another writer changed it meanwhile: do it again.
        """
        data = envelope.to_bytes()
        fresh = self._inventory(trust, data)
        if over is None:
            self._create(self._inventory_key, data, "the inventory")
        else:
            self.store.replace_if_match(self._inventory_key, data, over)
        return fresh

    def report(self, device: str) -> bytes | None:
        """A device's report as it lies there; verify it with the device's key from the inventory."""
        found = self._find(self._report_key(device))
        return None if found is None else found.data

    def reports(self) -> Iterator[tuple[str, bytes]]:
        """Device and report of all that reported, in the store's order."""
        prefix = f"fleets/{self.fleet}/reports/"
        found: list[str] = []
        for item in self.store.list(prefix):
            device = item.key.removeprefix(prefix).removesuffix(".json")
            # one device that writes rubbish must not keep the fleet from reading the others
            with contextlib.suppress(StoreError):
                if item.key == self._report_key(device) and item.size <= MAX_ENVELOPE_BYTES:
                    found.append(device)
        for device in found:
            if (data := self.report(device)) is not None:
                yield device, data

    def put_report(self, device: str, envelope: Envelope) -> None:
        """Replace a device's report, as the device does."""
        self.store.put(self._report_key(device), envelope.to_bytes())

    # ---- writing

    def _create(self, key: str, data: bytes, what: str) -> None:
        self.store.require_conditional_writes()
        if self.store.put_if_absent(key, data):
            return
        found = self.store.find(key, max_bytes=MAX_ENVELOPE_BYTES)
        if found is None or found.data != data:  # equal: our own write, whose answer was lost
            raise ConflictError(
                f"{what} of {self.fleet} was written by another just now: look at {key} and decide again"
            )

    def _put_next(
        self,
        trust: TrustedRoot,
        model: type[Document],
        key: str,
        data: bytes,
        version: int,
        *,
        floor: int = 0,
        over: str | None = None,
    ) -> None:
        found = self._find(key)
        if found is not None and found.data == data:
            return
        if over is not None and over != ("" if found is None else found.etag):
            raise ConflictError(f"{key} was changed by another writer since it was read: read it again")
        present = _NOTHING if found is None else _present(trust, model, found.data)
        if version <= floor or (present.binding and version != max(floor, present.version) + 1):
            raise ConflictError(
                f"{key} is at version {max(floor, present.version)}, and version {version} was to follow: another writer was "
                "first, look at it and decide again"
            )
        if found is None:
            self._create(key, data, f"{model.kind()} {version}")
        else:
            self.store.replace_if_match(key, data, found.etag)

    def _find(self, key: str) -> StoredObject | None:
        return self.store.find(key, max_bytes=MAX_ENVELOPE_BYTES)

    def _inventory(self, trust: TrustedRoot, data: bytes, *, adopt: bool = False) -> Inventory:
        key, limit = self._inventory_key, MAX_INVENTORY_BYTES
        payload = trust.vouched("fleet", Inventory.payload_type, data, key, adopt=adopt, max_payload=limit)
        inventory = parse(Inventory, payload, key, max_bytes=limit)
        if inventory.fleet != self.fleet:
            raise StoreError(
                f"{self._inventory_key} is of the fleet {inventory.fleet!r}: it was put there by mistake"
            )
        return inventory

    # ---- keys

    def _root_key(self, version: int) -> str:
        return f"fleets/{self.fleet}/root/{int(version)}.json"

    def _statement_key(self, model: type[Document], digest: str) -> str:
        folder = {ReleaseDocument: "releases", SignoffDocument: "signoffs"}[model]
        return f"fleets/{self.fleet}/{folder}/{check_digest(digest)}.json"

    @property
    def _desired_key(self) -> str:
        return f"fleets/{self.fleet}/desired.json"

    @property
    def _inventory_key(self) -> str:
        return f"fleets/{self.fleet}/inventory.json"

    def _report_key(self, device: str) -> str:
        return f"fleets/{self.fleet}/reports/{check_name('device', device)}.json"


@dataclass(frozen=True)
class _Present:
    """What a successor has to follow. A version is binding only where the role's present keys vouch for it."""

    version: int
    binding: bool


_NOTHING = _Present(0, binding=True)


def _present(trust: TrustedRoot, model: type[Document], data: bytes) -> _Present:
    try:
        return _Present(trust.open(model, data, model.kind()).version, binding=True)
    except (Expired, KeyRevoked) as err:
        # whoever stole a key that was retired since may have signed any version: it tells where devices may be, no more
        document = parse(model, Envelope.parse(data).payload, model.kind())
        return _Present(document.version, binding=isinstance(err, Expired))
    except TrustError:
        return _Present(0, binding=False)
