"""What may be believed, and in which order: state machines without I/O.

`TrustedRoot` is the chain of roots and what it vouches for; publishers check what they read and write with it. `TrustedFleet` is
a device's view: the same, in the protocol's order, with floors that never sink.

Model: python-tuf's `TrustedMetadataSet`. Sections 1 to 5 of "What a device keeps" in docs/edge-protocol.md.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from pydantic import ValidationError

from infra.digest import digest_bytes
from infra.edge.release import MAX_FILE_BYTES, MAX_FILES, BundleManifest, check_file_name
from infra.edge.trust.documents import (
    ROLES,
    DesiredDocument,
    Document,
    ReleaseDocument,
    Ring,
    Role,
    RootDocument,
    SignoffDocument,
    parse,
    to_text,
)
from infra.edge.trust.envelope import MAX_PAYLOAD_BYTES, Envelope, verify
from infra.edge.trust.keys import PublicKey
from infra.edge.trust.strict_json import parse_object
from models.errors import (
    BadSignature,
    Expired,
    Extraneous,
    FastForward,
    MixAndMatch,
    NoSignOff,
    Rollback,
    TooLarge,
    WrongSoftware,
)

MAX_LEAP = 10_000
"""Versions that one step may skip. A compromised key could otherwise name the last one there is and shut out every later one."""

AnyDocument = TypeVar("AnyDocument", bound=Document)


class TrustedRoot:
    """The newest accepted root, and what it vouches for.

    - It begins with a root that came by another way than the store: with the device, or from the operator's own folder.
    - Root n + 1 is accepted only next after n, signed by a threshold of n's root keys and by one of its own.
    - A root before the newest may have expired: it only hands over. The newest must not, whenever anything is opened with it.
    - Bytes are parsed after their signature is verified, never before.
    - A key that a role has lost stays known as retired, only so that the refusal can say so.
    """

    def __init__(self, root: bytes, fleet: str, *, now: datetime) -> None:
        """Begin with a root that is already trusted.

        Raises:
            TrustError: it is not even signed by its own keys, or of another fleet.
        """
        self.fleet = fleet
        self.now = now
        self._retired: dict[Role, dict[str, PublicKey]] = {role: {} for role in ROLES}
        self.root = self._root_signed_by_itself(Envelope.parse(root, "the first root"), "the first root")

    def update_root(self, data: bytes) -> RootDocument:
        """Accept the next root.

        Raises:
            BadSignature, KeyRevoked: too few of this root's keys, or of its own, signed.
            Rollback, FastForward: not the next version.
            WrongSoftware, Extraneous, TooLarge: another fleet's, or not as the protocol has it.
        """
        before = self.root
        where = f"root {before.version + 1}"
        envelope = Envelope.parse(data, where)
        verify(
            envelope,
            RootDocument.payload_type(),
            before.role_keys("root"),
            before.threshold("root"),
            role="root",
            retired=self._retired["root"],
            where=f"{where}, which root {before.version} has to sign,",
        )
        after = self._root_signed_by_itself(envelope, where)
        if after.version <= before.version:
            raise Rollback(f"{where} says that it is version {after.version}: it was there before")
        if after.version != before.version + 1:
            raise FastForward(f"{where} says that it is version {after.version}: roots follow each other")
        for role in ROLES:
            old = {k.keyid: k for k in before.role_keys(role)}
            kept = {k.keyid for k in after.role_keys(role)}
            self._retired[role] = {k: v for k, v in {**self._retired[role], **old}.items() if k not in kept}
        self.root = after
        return after

    def successor(self, data: bytes) -> TrustedRoot:
        """A copy with the next root accepted; this one stays as it is. Raises as `update_root`."""
        after = copy.copy(self)
        after._retired = dict(self._retired)
        after.update_root(data)
        return after

    def open(self, model: type[AnyDocument], data: bytes, where: str) -> AnyDocument:
        """A document of one of the roles, verified, of this fleet and not expired.

        Raises:
            Expired: it, or the newest root.
            BadSignature, KeyRevoked, WrongSoftware, Extraneous, TooLarge: see `infra.edge.trust.envelope` and `.documents`.
        """
        role = model.role
        if role is None or role == "root":
            raise ValueError(f"a {model.kind()} is not opened with a role's keys")
        self._require_fresh(self.root, f"root {self.root.version}, the newest there is,")
        payload = verify(
            Envelope.parse(data, where),
            model.payload_type(),
            self.root.role_keys(role),
            self.root.threshold(role),
            role=role,
            retired=self._retired[role],
            where=where,
        )
        document = parse(model, payload, where)
        self._require_ours(document, where)
        self._require_fresh(document, where)
        return document

    def vouched(
        self,
        role: Role,
        payload_type: str,
        data: bytes,
        where: str,
        *,
        adopt: bool = False,
        max_payload: int = MAX_PAYLOAD_BYTES,
    ) -> bytes:
        """What a role signed and no device reads: no expiry, and it may be taken over from earlier keys.

        Args:
            adopt: accept what keys signed that earlier roots gave the role and the newest does not, if a person says so.

        Raises:
            BadSignature, KeyRevoked, TooLarge: see `infra.edge.trust.envelope`.
        """
        retired = self._retired[role]
        return verify(
            Envelope.parse(data, where, max_payload=max_payload),
            payload_type,
            [*self.root.role_keys(role), *(retired.values() if adopt else ())],
            self.root.threshold(role),
            role=role,
            retired=retired,
            where=where,
        )

    def _root_signed_by_itself(self, envelope: Envelope, where: str) -> RootDocument:
        # which keys are its own stands in the very bytes that they sign
        if envelope.payload_type != RootDocument.payload_type():
            raise BadSignature(f"{where} is signed as {envelope.payload_type}: it is no root")
        document = parse(RootDocument, envelope.payload, where)
        verify(
            envelope,
            RootDocument.payload_type(),
            document.role_keys("root"),
            document.threshold("root"),
            role="root",
            where=f"{where}, which its own root keys have to sign,",
        )
        self._require_ours(document, where)
        return document

    def _require_ours(self, document: Document, where: str) -> None:
        if document.fleet != self.fleet:
            raise WrongSoftware(f"{where} is of the fleet {document.fleet!r}, this is {self.fleet!r}")

    def _require_fresh(self, document: Document, where: str) -> None:
        if self.now >= document.expires:
            raise Expired(
                f"{where} expired at {to_text(document.expires)}: somebody withholds a newer one, or nobody made it"
            )


@dataclass(frozen=True)
class Device:
    """What a device knows of itself, and the floors it keeps."""

    name: str
    hardware: str
    desired: int = 0  # highest version accepted, 0: none
    running: int = 0  # number of the running release, 0: none


class TrustedFleet:
    """One device's way to one release.

    - Steps are taken in order: roots, desired state, release, sign-off, manifest. A step out of order is a bug (RuntimeError).
    - Roots end with the desired state: everything that follows is judged by one root.
    - A step that raises changes nothing; what was accepted before it stays.
    - Versions do not sink below the device's floors, and do not leap by more than `MAX_LEAP` above them.
    - The desired state's floor goes with the keys that set it: where too few of them are left to have signed it alone, whoever
      stole the others may have driven it up, and must not shut out the new ones (TUF 5.3.11).
    - The release, sign-off and manifest are those of the device's own ring: a genuine one of another release is refused.
    - `ready` is set by the last step alone.
    """

    def __init__(self, root: bytes, fleet: str, device: Device, *, now: datetime) -> None:
        self._root = TrustedRoot(root, fleet, now=now)
        self.device = device
        self._floor = device.desired
        self.desired: DesiredDocument | None = None
        self.release: ReleaseDocument | None = None
        self.signoff: SignoffDocument | None = None
        self.manifest: BundleManifest | None = None

    @property
    def root(self) -> RootDocument:
        """The newest root accepted."""
        return self._root.root

    @property
    def ready(self) -> bool:
        """Whether everything that has to be believed before a file is fetched was."""
        return self.manifest is not None

    @property
    def ring(self) -> Ring | None:
        """The device's ring, None where it is in none and nothing changes."""
        if self.desired is None:
            raise RuntimeError("the desired state comes before its rings")
        return self.desired.ring_of(self.device.name)

    def update_root(self, data: bytes) -> RootDocument:
        """Step 1, once for each root there is. Raises as `TrustedRoot.update_root`."""
        if self.desired is not None:
            raise RuntimeError("roots come before the desired state")
        before = set(self.root.roles["fleet"].keys)
        after = self._root.update_root(data)
        kept = before & set(after.roles["fleet"].keys)
        if len(kept) < after.threshold("fleet") and kept != before:
            self._floor = 0
        return after

    def update_desired(self, data: bytes) -> Ring | None:
        """Step 2; returns the device's ring.

        Raises:
            Rollback, FastForward: below the floor, or too far above it.
            MixAndMatch: made under a root that the store withholds.
            TrustError: as `TrustedRoot.open`.
        """
        if self.desired is not None:
            raise RuntimeError("there is a desired state already")
        document = self._root.open(DesiredDocument, data, "the desired state")
        _require_step("the desired state", document.version, self._floor)
        if document.root > self.root.version:
            raise MixAndMatch(
                f"the desired state was made under root {document.root}, the newest on offer is {self.root.version}: "
                "a root is withheld"
            )
        self.desired = document
        return self.ring

    def update_release(self, data: bytes) -> ReleaseDocument:
        """Step 3.

        Raises:
            MixAndMatch: another release than the ring's.
            WrongSoftware: other hardware.
            Rollback: a lower number than the running one, and the ring is not one of a roll-back.
            TrustError: as `TrustedRoot.open`.
        """
        ring = self._ring_to_be()
        if self.release is not None:
            raise RuntimeError("there is a release already")
        document = self._root.open(ReleaseDocument, data, f"release {ring.release[:12]}…")
        if document.release != ring.release:
            raise MixAndMatch(
                f"the statement is of release {document.release[:12]}…, asked for is {ring.release[:12]}…"
            )
        if not document.runs_on(self.device.hardware):
            raise WrongSoftware(
                f"release {ring.release[:12]}… is for {', '.join(document.hardware)}, this is {self.device.hardware}"
            )
        floor = min(self.device.running, document.number) if ring.rollback else self.device.running
        _require_step(f"release {ring.release[:12]}…", document.number, floor)
        self.release = document
        return document

    def update_signoff(self, data: bytes | None) -> SignoffDocument:
        """Step 4; None where the store has none.

        Raises:
            NoSignOff: none, or one of another release or fleet.
            TrustError: as `TrustedRoot.open`.
        """
        if self.release is None or self.signoff is not None:
            raise RuntimeError("the sign-off comes next after the release")
        self.signoff = open_signoff(self._root, data, self.release.release)
        return self.signoff

    def update_manifest(self, data: bytes) -> BundleManifest:
        """Step 5: the bytes of `manifests/<digest>.json`.

        Raises:
            TooLarge: more bytes than announced, too many files, or one that is too large.
            MixAndMatch: not the announced bytes, or not the manifest of this release.
            Extraneous, WrongSoftware: keys or names that no manifest has.
        """
        if self.release is None or self.signoff is None or self.manifest is not None:
            raise RuntimeError("the manifest comes next after the sign-off")
        self.manifest = open_manifest(data, self.release)
        return self.manifest

    def _ring_to_be(self) -> Ring:
        ring = self.ring
        if ring is None:
            raise RuntimeError(f"{self.device.name} is in no ring: nothing is to be fetched")
        return ring


def open_signoff(root: TrustedRoot, data: bytes | None, release: str) -> SignoffDocument:
    """The sign-off of a release.

    Raises:
        NoSignOff: none, one of another release or fleet, or one that the role has not signed.
        TrustError: as `TrustedRoot.open`.
    """
    if data is None:
        raise NoSignOff(
            f"nobody has signed off release {release[:12]}… for {root.fleet}: `cryfed sign-off` does, with a clinical key"
        )
    try:
        document = root.open(SignoffDocument, data, f"the sign-off of {release[:12]}…")
    except (BadSignature, WrongSoftware) as err:
        raise NoSignOff(f"release {release[:12]}… has no sign-off that counts here: {err}") from None
    if document.release != release:
        raise NoSignOff(f"the sign-off is of release {document.release[:12]}…, not of {release[:12]}…")
    return document


def open_manifest(data: bytes, release: ReleaseDocument) -> BundleManifest:
    """A manifest, held against the release statement; see `TrustedFleet.update_manifest`."""
    where = f"the manifest of {release.release[:12]}…"
    if len(data) > release.manifest.size:
        raise TooLarge(f"{where}: more than the {release.manifest.size} bytes announced")
    if len(data) != release.manifest.size or digest_bytes(data) != release.manifest.sha256:
        raise MixAndMatch(f"{where} does not have the announced size and digest")
    try:
        raw = parse_object(data)
        files = raw.get("files")
        if isinstance(files, dict):
            _require_plain(files, where)
        manifest = BundleManifest.model_validate(raw)
        digest = manifest.digest()
    except ValidationError as err:
        found = err.errors(include_url=False, include_input=False)
        message = f"{where}: {found[0]['msg']}"
        if any(e["type"] == "extra_forbidden" for e in found):
            raise Extraneous(message) from None
        raise WrongSoftware(message) from None
    except (ValueError, RecursionError) as err:
        raise WrongSoftware(f"{where}: {err}") from None
    if digest != release.release:
        raise MixAndMatch(f"{where} is that of release {digest[:12]}…")
    return manifest


def _require_plain(files: dict[str, object], where: str) -> None:
    if len(files) > MAX_FILES:
        raise TooLarge(f"{where}: {len(files)} files; at most {MAX_FILES} are accepted")
    for name, entry in files.items():
        size = entry.get("size") if isinstance(entry, dict) else None
        if isinstance(size, int) and size > MAX_FILE_BYTES:
            raise TooLarge(f"{where}: {name[:200]!r} has {size} bytes; at most {MAX_FILE_BYTES} are accepted")
        try:
            check_file_name(name)
        except ValueError as err:
            raise Extraneous(f"{where}: {str(err)[:300]}") from None


def _require_step(what: str, version: int, floor: int) -> None:
    if version < floor:
        raise Rollback(f"{what} has the number {version}; {floor} was accepted before")
    if version > floor + MAX_LEAP:
        raise FastForward(f"{what} leaps from {floor} to {version}, more than {MAX_LEAP} at once")
