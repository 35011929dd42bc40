"""A small fleet for tests: keys made once a process, documents signed by whoever the test says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from infra.edge.trust.documents import (
    ROLES,
    DesiredDocument,
    Document,
    ManifestReference,
    ReleaseDocument,
    Ring,
    Role,
    RoleKeys,
    RootDocument,
    SignoffDocument,
)
from infra.edge.trust.envelope import Envelope, sign
from infra.edge.trust.keys import PrivateKey, make_key

FLEET = "ward-a"
NOW = datetime(2026, 11, 26, 12, 0, 0, tzinfo=UTC)
RELEASE = "ab" * 32


@cache
def key(name: str) -> PrivateKey:
    """The test's key of that name."""
    return make_key(name)


def root(version: int = 1, days: float = 365, of: str = FLEET, **roles: Sequence[str]) -> RootDocument:
    """A root; `release=["release-2"]` gives a role other keys, and root's threshold is two where it has two keys."""
    names: dict[Role, Sequence[str]] = {role: roles.get(role, [f"{role}-1"]) for role in ROLES}
    held = {role: [key(n) for n in names[role]] for role in ROLES}
    return RootDocument(
        fleet=of,
        version=version,
        issued=NOW - timedelta(days=1),
        expires=NOW + timedelta(days=days),
        keys={k.keyid: k.public.pem for keys in held.values() for k in keys},
        roles={
            role: RoleKeys(
                keys=tuple(k.keyid for k in keys), threshold=min(2, len(keys)) if role == "root" else 1
            )
            for role, keys in held.items()
        },
    )


def signed(document: Document, *names: str) -> bytes:
    """The envelope's bytes."""
    return envelope(document, *names).to_bytes()


def envelope(document: Document, *names: str) -> Envelope:
    """The document, signed by keys of these names."""
    return sign(document.payload_type(), document.to_bytes(), [key(n) for n in names])


def terms(days: float = 30) -> dict[str, Any]:
    """`issued` and `expires`."""
    return {"issued": NOW - timedelta(minutes=1), "expires": NOW + timedelta(days=days)}


def desired(version: int = 1, days: float = 30, **fields: Any) -> DesiredDocument:
    """A desired state with `device-1` in the ring of `RELEASE`."""
    given: dict[str, Any] = {
        "fleet": FLEET,
        "root": 1,
        "rings": (Ring(release=RELEASE, devices=("device-1", "device-2")),),
        **fields,
    }
    return DesiredDocument(version=version, **terms(days), **given)


def release(version: int = 1, days: float = 30, **fields: Any) -> ReleaseDocument:
    """A release statement."""
    given: dict[str, Any] = {
        "fleet": FLEET,
        "release": RELEASE,
        "manifest": ManifestReference(sha256="cd" * 32, size=1000),
        "name": "infant-cry",
        "number": 3,
        **fields,
    }
    return ReleaseDocument(version=version, **terms(days), **given)


def signoff(version: int = 1, days: float = 30, **fields: Any) -> SignoffDocument:
    """A sign-off."""
    given: dict[str, Any] = {
        "fleet": FLEET,
        "release": RELEASE,
        "by": "Dr A. Example",
        "statement": "Reviewed the report.",
        **fields,
    }
    return SignoffDocument(version=version, **terms(days), **given)


@dataclass
class Offer:
    """What a store offers a device, each part replaceable by a test."""

    roots: list[bytes] = field(default_factory=lambda: [signed(root(), "root-1")])
    desired: bytes = b""
    release: bytes = b""
    signoff: bytes | None = b""

    def __post_init__(self) -> None:
        self.desired = self.desired or signed(desired(), "fleet-1")
        self.release = self.release or signed(release(), "release-1")
        if self.signoff == b"":
            self.signoff = signed(signoff(), "clinical-1")
