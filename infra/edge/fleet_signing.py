"""What the people and flows of a fleet sign, made and written: roots, release statements, sign-offs, desired states.

Each function makes the document that follows what lies in the store, signs it with the keys given, and writes it by a conditional
write. Asked again with nothing changed it returns what is there, so a flow that was killed can simply run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from infra.digest import canonical_json, digest_bytes
from infra.edge.fleet_documents import FleetDocuments
from infra.edge.trust.documents import (
    MAX_INVENTORY_BYTES,
    ROLES,
    DesiredDocument,
    Document,
    Inventory,
    ManifestReference,
    ReleaseDocument,
    Ring,
    Role,
    RoleKeys,
    RootDocument,
    SignoffDocument,
)
from infra.edge.trust.envelope import Envelope, countersign, sign
from infra.edge.trust.keys import PrivateKey, PublicKey
from infra.edge.trust.trusted import MAX_LEAP, TrustedRoot, open_manifest
from infra.store import registry
from infra.store.registry import Release
from models.errors import ConfigError, KeyFileError, TrustError

ROOT_DAYS: Final = 365.0
RELEASE_DAYS: Final = 365.0
SIGNOFF_DAYS: Final = 365.0
DESIRED_DAYS: Final = 30.0
"""How long a device may be kept in the dark before it notices; the deploy flow has to renew it more often than that."""

AnyDocument = TypeVar("AnyDocument", bound=Document)


def first_root(
    fleet: str,
    holders: Mapping[Role, Sequence[PublicKey]],
    thresholds: Mapping[Role, int],
    *,
    now: datetime,
    days: float = ROOT_DAYS,
) -> RootDocument:
    """Root 1 of a fleet.

    Raises:
        ConfigError: a role without keys, or a threshold that its keys cannot reach.
    """
    for role in ROLES:
        if not 1 <= thresholds[role] <= len(set(holders[role])):
            raise ConfigError(
                f"role {role}: {thresholds[role]} signatures of {len(set(holders[role]))} keys are not possible; name "
                "more keys or a lower threshold"
            )
    keys = {key.keyid: key.pem for role in ROLES for key in holders[role]}
    roles = {
        role: RoleKeys(keys=tuple(key.keyid for key in holders[role]), threshold=thresholds[role])
        for role in ROLES
    }
    return _made(RootDocument, fleet=fleet, version=1, keys=keys, roles=roles, now=now, days=days)


def next_root(
    root: RootDocument,
    role: Role | None = None,
    *,
    retire: Iterable[str] = (),
    add: Sequence[PublicKey] = (),
    threshold: int | None = None,
    now: datetime,
    days: float = ROOT_DAYS,
) -> RootDocument:
    """The root that follows, with keys of a role exchanged; without a role the same keys for a new term.

    Raises:
        ConfigError: a key to retire does not hold the role, or too few would be left.
    """
    roles, keys = dict(root.roles), dict(root.keys)
    if role is not None:
        held, gone = roles[role], set(retire)
        if unknown := gone - set(held.keys):
            raise ConfigError(
                f"{sorted(unknown)[0][:16]} does not hold the role {role} in root {root.version}; `cryfed keys show` "
                "lists who does"
            )
        left = [k for k in held.keys if k not in gone]
        listed = tuple(dict.fromkeys([*left, *(key.keyid for key in add)]))
        needed = held.threshold if threshold is None else threshold
        if not 1 <= needed <= len(listed):
            raise ConfigError(
                f"role {role}: {needed} signatures of {len(listed)} keys are not possible; add a key or lower the threshold"
            )
        roles[role] = RoleKeys(keys=listed, threshold=needed)
        keys.update({key.keyid: key.pem for key in add})
    used = {k for held in roles.values() for k in held.keys}
    return _made(
        RootDocument,
        fleet=root.fleet,
        version=root.version + 1,
        keys={k: pem for k, pem in keys.items() if k in used},
        roles=roles,
        now=now,
        days=days,
    )


def sign_root(draft: RootDocument | Envelope, keys: Iterable[PrivateKey]) -> Envelope:
    """A root, or a draft that others signed already, with these keys' signatures added."""
    if isinstance(draft, Envelope):
        return countersign(draft, list(keys))
    return sign(RootDocument.payload_type(), draft.to_bytes(), list(keys))


def missing_signatures(
    envelope: Envelope, before: RootDocument | None, after: RootDocument
) -> dict[int, tuple[int, list[str]]]:
    """Version of each root whose root keys have to sign → how many are missing, and who could."""
    missing = {}
    for root in (before, after):
        if root is None:
            continue
        keys = root.role_keys("root")
        signed = envelope.signers(keys)
        lacking = root.threshold("root") - len(signed)
        if lacking > 0:
            missing[root.version] = (lacking, sorted(k.keyid for k in keys if k.keyid not in signed))
    return missing


def holding(keys: Iterable[PrivateKey], root: RootDocument, role: Role) -> list[PrivateKey]:
    """Those of `keys` that hold a role, enough of them to sign.

    Raises:
        KeyFileError: too few.
    """
    held = [key for key in keys if key.keyid in root.roles[role].keys]
    if len(held) < root.threshold(role):
        raise KeyFileError(
            f"{len(held)} key(s) here hold the role {role} of {root.fleet}, {root.threshold(role)} have to sign: "
            f"`cryfed keys show` lists who does"
        )
    return held


def state_release(
    documents: FleetDocuments,
    trust: TrustedRoot,
    release: Release,
    keys: Iterable[PrivateKey],
    *,
    hardware: tuple[str, ...] = ("any",),
    now: datetime,
    days: float = RELEASE_DAYS,
) -> ReleaseDocument:
    """Say of a published release that it is ours; one that is said so already is left alone, one that lapsed is renewed.

    Raises:
        TrustError: the manifest in the store is not one that a device would take.
        KeyFileError: the keys do not hold the role.
        ConflictError: another writer was first.
        StoreError: no such manifest.
    """
    there = _valid(documents, trust, ReleaseDocument, release.manifest_digest)
    if there is not None and (there.name, there.number, there.hardware) == (
        release.name,
        release.version,
        hardware,
    ):
        return there
    # the bytes that devices will fetch, which `get_manifest` has just held against their digest
    data = canonical_json(registry.get_manifest(documents.store, release.manifest_digest))
    document = _made(
        ReleaseDocument,
        fleet=documents.fleet,
        version=documents.statement_version(trust, ReleaseDocument, release.manifest_digest) + 1,
        release=release.manifest_digest,
        manifest=ManifestReference(sha256=digest_bytes(data), size=len(data)),
        name=release.name,
        number=release.version,
        hardware=hardware,
        now=now,
        days=days,
    )
    open_manifest(data, document)
    return documents.put_statement(trust, ReleaseDocument, _signed(document, trust, keys))


def sign_off(
    documents: FleetDocuments,
    trust: TrustedRoot,
    release: str,
    keys: Iterable[PrivateKey],
    *,
    by: str,
    statement: str,
    now: datetime,
    days: float = SIGNOFF_DAYS,
) -> SignoffDocument:
    """Answer for the use of a release on this fleet; a sign-off that still holds is not replaced.

    Raises:
        TrustError: the release is not one of this fleet.
        KeyFileError: the keys do not hold the clinical role.
        ConflictError: somebody has signed it off already, with other words.
    """
    if documents.find_statement(trust, ReleaseDocument, release) is None:
        raise ConfigError(
            f"release {release[:12]}… is not stated for {documents.fleet}: nobody can sign off what is not the fleet's"
        )
    there = _valid(documents, trust, SignoffDocument, release)
    if there is not None and (there.by, there.statement) == (by, statement):
        return there
    document = _made(
        SignoffDocument,
        fleet=documents.fleet,
        version=1 if there is not None else documents.statement_version(trust, SignoffDocument, release) + 1,
        release=release,
        by=by,
        statement=statement,
        now=now,
        days=days,
    )
    return documents.put_statement(trust, SignoffDocument, _signed(document, trust, keys))


def set_desired(
    documents: FleetDocuments,
    trust: TrustedRoot,
    rings: Sequence[Ring],
    keys: Iterable[PrivateKey],
    *,
    floor: int = 0,
    over: str | None = None,
    version: int | None = None,
    now: datetime,
    days: float = DESIRED_DAYS,
) -> DesiredDocument:
    """Write the next desired state.

    Args:
        floor: highest version that a device is known to have accepted.
        over: tag of the desired state that `rings` were made from; see `FleetDocuments.put_desired`.
        version: one to begin with again, after all keys of the role were exchanged and devices have forgotten theirs; default:
            one higher than the present and the floor. What a retired key drove beyond any device's reach does not count.

    Raises:
        KeyFileError: the keys do not hold the fleet role.
        ConflictError: another writer was first.
    """
    document = _made(
        DesiredDocument,
        fleet=documents.fleet,
        version=_next_version(documents, trust, floor) if version is None else version,
        root=trust.root.version,
        rings=tuple(rings),
        now=now,
        days=days,
    )
    return documents.put_desired(trust, _signed(document, trust, keys), floor=floor, over=over)


def change_inventory(
    documents: FleetDocuments,
    trust: TrustedRoot,
    keys: Iterable[PrivateKey],
    change: Callable[[Inventory], Inventory],
    *,
    adopt: bool = False,
) -> Inventory:
    """Write the next inventory; `change` is given the present one, and its `version` is seen to.

    Args:
        adopt: take over what keys signed that the fleet role has lost.

    Raises:
        KeyFileError: the keys do not hold the fleet role.
        TrustError: nobody of the fleet signed the present one.
        ConflictError: another writer changed it meanwhile: do it again.
    """
    signers = holding(keys, trust.root, "fleet")
    there = documents.find_inventory(trust, adopt=adopt)
    present = Inventory(fleet=documents.fleet, version=1) if there is None else there.document
    version = 1 if there is None else present.version + 1
    data = change(present).model_copy(update={"version": version}).to_bytes()
    envelope = sign(Inventory.payload_type, data, signers, max_payload=MAX_INVENTORY_BYTES)
    return documents.put_inventory(trust, envelope, over=None if there is None else there.etag)


def _next_version(documents: FleetDocuments, trust: TrustedRoot, floor: int) -> int:
    present = documents.desired_version(trust)
    if present > floor + MAX_LEAP and not documents.desired_binds(trust):
        present = floor
    return max(floor, present) + 1


def _made(model: type[AnyDocument], *, now: datetime, days: float, **fields: Any) -> AnyDocument:
    """A document whose values people chose.

    Raises:
        ConfigError: one is out of bounds.
    """
    try:
        return model(issued=now, expires=now + timedelta(days=days), **fields)
    except (ValidationError, OverflowError) as err:
        reason = str(err)
        if isinstance(err, ValidationError):
            reason = "; ".join(
                f"{'.'.join(map(str, e['loc'])) or model.kind()}: {e['msg']}" for e in err.errors()[:3]
            )
        raise ConfigError(f"a {model.kind()} document cannot say that: {reason}") from None


def _signed(document: Document, trust: TrustedRoot, keys: Iterable[PrivateKey]) -> Envelope:
    role = document.role
    assert role is not None
    return sign(document.payload_type(), document.to_bytes(), holding(keys, trust.root, role))


def _valid(
    documents: FleetDocuments, trust: TrustedRoot, model: type[AnyDocument], digest: str
) -> AnyDocument | None:
    """What lies there and is believed; None where it is to be made or renewed."""
    try:
        found = documents.find_statement(trust, model, digest)
    except TrustError:
        return None
    return None if found is None else found.document
