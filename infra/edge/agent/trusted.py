"""What a device believes, as a state machine without I/O: bytes in, decisions out.

Invariants
- A root replaces the last only if it is the next one and a threshold of the last one's root keys, and of its own, signed it.
- Nothing is read from a document before a threshold of its role signed it, with keys that the newest root lists.
- Versions that were accepted never go down, and never leap by more than `MAX_LEAP`.
- The order is that of `docs/edge-protocol.md`: roots, desired state, release, sign-off, manifest. Calling it in another
  order is a bug of the caller (RuntimeError), not a refusal.
- A refusal changes nothing of what is remembered.

The reference time is the device's clock, or the newest accepted `issued` where that is later: a board without a battery
begins in 1970, and must not take expired documents for fresh ones until it has found the time.
"""

import hashlib
from typing import Any, Callable, Dict, List, NamedTuple, Optional

from .documents import (
    MAX_ENVELOPE_BYTES,
    ROLES,
    Document,
    Envelope,
    canonical_json,
    key_id,
    pae,
    parse_document,
    parse_envelope,
    strict_json,
    time_of,
)
from .errors import (
    BadSignature,
    ConfigError,
    Expired,
    FastForward,
    KeyRevoked,
    MixAndMatch,
    NoSignOff,
    Refused,
    Rollback,
    TooLarge,
    WrongSoftware,
)
from .manifest import Manifest, check_manifest

MAX_LEAP = 10000
_MAX_RETIRED = 64  # revoked keys remembered, so that a refusal can say that a key was revoked

Verify = Callable[[str, bytes, bytes], bool]  # (PEM, message, DER signature): is it valid
Memory = Dict[str, Any]


class Ring(NamedTuple):
    """What the desired state asks of this device."""

    release: str
    rollback: bool


class Release(NamedTuple):
    """A release that its role vouches for."""

    digest: str
    manifest_sha256: str
    manifest_size: int  # bytes
    name: str
    number: int


class Trusted:
    """The documents accepted so far, and the rules for the next.

    `memory` is what `memory` returned before the last restart (JSON types), None on a fresh device; `root` is the
    envelope that the device was provisioned with, `desired_floor` the desired state's version at that time: without it no
    device could join a fleet that is further on than one leap.

    Raises:
        ConfigError: the provisioned root is not one of this fleet, or not signed by its own keys.
    """

    def __init__(
        self,
        fleet: str,
        device: str,
        hardware: str,
        verify: Verify,
        root: bytes,
        memory: Optional[Memory],
        desired_floor: int = 0,
    ) -> None:
        self.fleet, self.device, self.hardware = fleet, device, hardware
        self._verify = verify
        self._retired = {role: {} for role in ROLES}  # type: Dict[str, Dict[str, str]]
        self._desired_version = self._desired_floor = desired_floor
        self._desired_issued = 0
        self._number = 0
        try:
            provisioned = self._own_root(root, "the provisioned root")
        except Refused as err:
            raise ConfigError(f"{err}; provision the device with its fleet's root anew") from None
        self._root = provisioned
        if memory is not None:
            self._retired = {role: dict(memory["retired"].get(role, {})) for role in ROLES}
            self._desired_version = memory["desired"]
            self._desired_issued = memory["issued"]
            self._number = memory["number"]
            # a newer provisioned one was put there by hand, by someone who holds the device
            if memory["root"]["version"] >= provisioned["version"]:
                self._root = memory["root"]
        self._begin()

    def _begin(self) -> None:
        self._now = 0.0
        self._roots_done = False
        self._ring = None  # type: Optional[Ring]
        self._release = None  # type: Optional[Release]
        self._signed_off = False

    @property
    def memory(self) -> Memory:
        """What has to survive a restart (JSON types)."""
        return {
            "root": self._root,
            "retired": {role: dict(keys) for role, keys in self._retired.items()},
            "desired": self._desired_version,
            "issued": self._desired_issued,
            "number": self._number,
        }

    @property
    def desired_version(self) -> int:
        """The desired state accepted last, 0 before the first."""
        return self._desired_version

    @property
    def next_root(self) -> int:
        """The number of the root that may come next."""
        return int(self._root["version"]) + 1

    def begin(self, now: float) -> None:
        """A new poll at this time (seconds since the epoch): everything but what is remembered is asked for afresh."""
        self._begin()
        self._now = max(now, time_of(self._root["issued"], "root"), self._desired_issued)

    def add_root(self, data: bytes) -> None:
        """The next root.

        Raises:
            BadSignature, KeyRevoked: not signed by a threshold of the last root's keys and of its own.
            Rollback, FastForward: not the next number.
            WrongSoftware: another fleet's.
            Extraneous, TooLarge: not in form.
        """
        where = f"root {self.next_root}"
        envelope = parse_envelope(data, "root", where)
        self._require(envelope, "root", self._root, where)
        document = self._own_root(data, where)
        self._check_fleet(document, where)
        if document["version"] < self.next_root:
            raise Rollback(f"{where}: it is number {document['version']}")
        if document["version"] > self.next_root:
            raise FastForward(
                f"{where}: it is number {document['version']}, and the ones between were not seen"
            )
        self._retire(document)
        self._root = document

    def finish_roots(self) -> None:
        """There is no further root.

        Raises:
            Expired: the newest one is too old.
        """
        self._check_fresh(self._root, f"root {self._root['version']}, the newest on offer")
        self._roots_done = True

    def add_desired(self, data: bytes) -> Optional[Ring]:
        """The desired state; what it asks of this device, None if it asks nothing.

        Raises:
            BadSignature, KeyRevoked, Expired, Rollback, FastForward, WrongSoftware, TooLarge: as their names say.
            MixAndMatch: it builds on a root that is not on offer.
            Extraneous: keys that it should not have, a device listed twice.
        """
        if not self._roots_done:
            raise RuntimeError("the desired state comes after the roots")
        where = "desired state"
        document = self._open(data, "desired", "fleet", where)
        version = document["version"]
        self._check_fresh(document, f"{where} {version}")
        self._check_version(version, self._desired_version, where)
        if document["root"] > self._root["version"]:
            raise MixAndMatch(
                f"{where} {version} builds on root {document['root']}, and the store offers {self._root['version']} as "
                "the newest"
            )
        mine = [ring for ring in document["rings"] if self.device in ring["devices"]]
        self._desired_version = version
        # the next one may come from a clock that goes behind: what is known of the time is not forgotten for it
        self._desired_issued = max(self._desired_issued, time_of(document["issued"], where))
        if mine:
            self._ring = Ring(mine[0]["release"], mine[0].get("rollback", False))
        return self._ring

    def add_release(self, data: bytes, running: int) -> Release:
        """The release of the device's ring; `running` is the number of the one that runs, 0 for none.

        Raises:
            BadSignature, KeyRevoked, Expired, FastForward, WrongSoftware, TooLarge, Extraneous: as their names say.
            MixAndMatch: another release than the one asked for.
            Rollback: older than the running one, and the desired state does not call it a rollback.
        """
        if self._ring is None:
            raise RuntimeError("a release comes after a desired state that asks for one")
        where = f"release {self._ring.release[:12]}…"
        document = self._open(data, "release", "release", where)
        if document["release"] != self._ring.release:
            raise MixAndMatch(f"{where}: the document is of release {document['release'][:12]}…")
        self._check_fresh(document, where)
        if "any" not in document["hardware"] and self.hardware not in document["hardware"]:
            raise WrongSoftware(f"{where} is for {', '.join(document['hardware'])}; this is {self.hardware}")
        number = document["number"]
        if number < running and not self._ring.rollback:
            raise Rollback(f"{where} is number {number}, older than {running}, which runs")
        highest = max(self._number, running)
        if number > highest + MAX_LEAP:
            raise FastForward(
                f"{where} is number {number}, and {highest} the highest so far: more than {MAX_LEAP} at once"
            )
        manifest = document["manifest"]
        self._release = Release(
            self._ring.release, manifest["sha256"], manifest["size"], document["name"], number
        )
        return self._release

    def add_signoff(self, data: Optional[bytes]) -> None:
        """The clinical sign-off of that release; None if there is none.

        Raises:
            NoSignOff: missing, not signed by the role, or for another release or fleet.
            KeyRevoked, Expired, TooLarge, Extraneous: as their names say.
        """
        if self._release is None:
            raise RuntimeError("a sign-off comes after its release")
        where = f"sign-off of {self._release.digest[:12]}…"
        if data is None:
            raise NoSignOff(
                f"{where}: there is none; the clinical role has to sign this release for {self.fleet}"
            )
        try:
            document = self._open(data, "signoff", "clinical", where)
        except (BadSignature, WrongSoftware) as err:
            raise NoSignOff(str(err)) from None
        if document["release"] != self._release.digest:
            raise NoSignOff(f"{where}: it is for release {document['release'][:12]}…")
        self._check_fresh(document, where)
        self._signed_off = True

    def add_manifest(self, data: bytes) -> Manifest:
        """The manifest of that release.

        Raises:
            TooLarge, MixAndMatch, Extraneous, WrongSoftware: not the announced bytes, or not in form.
        """
        if self._release is None or not self._signed_off:
            raise RuntimeError("a manifest comes after its release and its sign-off")
        release, where = self._release, f"manifest of {self._release.digest[:12]}…"
        if len(data) > release.manifest_size:
            raise TooLarge(f"{where}: more than the announced {release.manifest_size} bytes")
        if len(data) != release.manifest_size or hashlib.sha256(data).hexdigest() != release.manifest_sha256:
            raise MixAndMatch(f"{where}: not the announced bytes")
        try:
            raw = strict_json(data)
            named = dict(raw)
            named.pop("info", None)
            digest = hashlib.sha256(canonical_json(named)).hexdigest()
        except (ValueError, TypeError) as err:
            raise WrongSoftware(f"{where}: not a JSON object ({err})") from None
        if digest != release.digest:
            raise MixAndMatch(f"{where}: it is the manifest of release {digest[:12]}…")
        return check_manifest(raw, where)

    def installed(self, number: int) -> None:
        """A release of this number runs now."""
        self._number = max(self._number, number)

    def _own_root(self, data: bytes, where: str) -> Document:
        """A root that its own root keys sign."""
        if len(data) > MAX_ENVELOPE_BYTES:
            raise TooLarge(f"{where}: larger than any document may be")
        envelope = parse_envelope(data, "root", where)
        document = parse_document(envelope.body, "root", where)
        # written anew: the program that verifies sees the key and nothing else
        document["keys"] = {name: key_id(pem, where)[1] for name, pem in document["keys"].items()}
        self._check_fleet(document, where)
        self._require(envelope, "root", document, where)
        return document

    def _open(self, data: bytes, kind: str, role: str, where: str) -> Document:
        envelope = parse_envelope(data, kind, where)
        self._require(envelope, role, self._root, where, kind)
        document = parse_document(envelope.body, kind, where)
        self._check_fleet(document, where)
        return document

    def _require(
        self, envelope: Envelope, role: str, root: Document, where: str, kind: Optional[str] = None
    ) -> None:
        entry = root["roles"][role]
        message = pae(kind or role, envelope.body)
        valid = self._signers(envelope, {k: root["keys"][k] for k in entry["keys"]}, message)
        if len(valid) >= entry["threshold"]:
            return
        revoked = self._signers(envelope, self._retired[role], message)
        if revoked:
            raise KeyRevoked(
                f"{where}: signed by {revoked[0][:16]}…, which root {root['version']} no longer lists for {role}"
            )
        raise BadSignature(
            f"{where}: {len(valid)} valid signatures of the role {role}; root {root['version']} wants {entry['threshold']}"
        )

    def _signers(self, envelope: Envelope, keys: Dict[str, str], message: bytes) -> List[str]:
        """Distinct keys with a valid signature."""
        found = []  # type: List[str]
        for name, signature in envelope.signatures:
            if name in keys and name not in found and self._verify(keys[name], message, signature):
                found.append(name)
        return found

    def _retire(self, document: Document) -> None:
        """Remember which keys lose a role; forget the desired state's version where too few of its signers are left.

        Whoever stole those keys may have driven the version up, and the new keys must not be shut out by it (TUF 5.3.11).
        Stricter than TUF: only where the keys that stay are fewer than the threshold, so that nothing signed before, by
        them alone, can come back.
        """
        for role in ROLES:
            before, after = self._root["roles"][role]["keys"], document["roles"][role]["keys"]
            retired = self._retired[role]
            retired.update({name: self._root["keys"][name] for name in before if name not in after})
            for name in list(retired):
                if name in after or len(retired) > _MAX_RETIRED:
                    del retired[name]
            kept = len(set(before) & set(after))
            if role == "fleet" and kept < document["roles"][role]["threshold"] and kept < len(before):
                self._desired_version = self._desired_floor
                self._desired_issued = 0

    def _check_fleet(self, document: Document, where: str) -> None:
        if document["fleet"] != self.fleet:
            raise WrongSoftware(f"{where}: of fleet {document['fleet']}; this device belongs to {self.fleet}")

    def _check_fresh(self, document: Document, where: str) -> None:
        if time_of(document["expires"], where) <= self._now:
            raise Expired(f"{where}: expired at {document['expires']}")

    @staticmethod
    def _check_version(version: int, last: int, where: str) -> None:
        if version < last:
            raise Rollback(f"{where}: version {version}, and {last} was accepted before")
        if version > last + MAX_LEAP:
            raise FastForward(f"{where}: version {version} leaps from {last} by more than {MAX_LEAP}")
