"""What a device has to refuse, and as what: 29 offers that are each wrong in one way.

Two readers are held against them, that of the fleet (`infra.edge.trust`) and that of the device (`infra.edge.agent`), which share
no code: a device is not to accept what the fleet takes for impossible, nor the other way round.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from infra.digest import canonical_json
from infra.edge.trust.envelope import sign
from infra.edge.trust.trusted import MAX_LEAP, Device
from models.errors import (
    BadSignature,
    Expired,
    Extraneous,
    FastForward,
    KeyRevoked,
    MixAndMatch,
    NoSignOff,
    Rollback,
    TooLarge,
    TrustError,
    WrongSoftware,
)
from tests.fleets import RELEASE, Offer, desired, key, release, root, signed, signoff

DEVICE = Device("device-1", "jetson-nano", desired=1, running=3)


@dataclass(frozen=True)
class Refusal:
    """An offer, to whom and how many days from now, and what it has to be refused as."""

    kind: type[TrustError]
    offer: Offer
    device: Device = DEVICE
    days: float = 0


def _raw(document: Any, name: str, value: Any) -> bytes:
    """A document that our own classes would not make, signed all the same."""
    raw = {**document.model_dump(mode="json"), name: value}
    return sign(document.payload_type(), canonical_json(raw), [key("fleet-1")]).to_bytes()


def _listed_twice() -> bytes:
    rings = [{"release": RELEASE, "devices": ["device-1"]}, {"release": "c" * 64, "devices": ["device-1"]}]
    return _raw(desired(), "rings", rings)


REFUSALS: dict[str, Callable[[], Refusal]] = {
    "arbitrary software": lambda: Refusal(BadSignature, Offer(release=signed(release(), "mallory"))),
    "malicious mirror, no signature": lambda: Refusal(BadSignature, Offer(release=signed(release()))),
    "another role's key": lambda: Refusal(BadSignature, Offer(release=signed(release(), "fleet-1"))),
    "a release as a sign-off": lambda: Refusal(NoSignOff, Offer(signoff=signed(release(), "clinical-1"))),
    "rubbish": lambda: Refusal(BadSignature, Offer(desired=b"<html>502</html>")),
    "desired state set back": lambda: Refusal(Rollback, Offer(), Device("device-1", "any", desired=2)),
    "release set back": lambda: Refusal(Rollback, Offer(), Device("device-1", "any", running=4)),
    "desired state leaps": lambda: Refusal(
        FastForward, Offer(desired=signed(desired(MAX_LEAP + 2), "fleet-1"))
    ),
    "release leaps": lambda: Refusal(
        FastForward, Offer(release=signed(release(number=MAX_LEAP + 4), "release-1"))
    ),
    "freeze": lambda: Refusal(Expired, Offer(), days=31),
    "freeze at the very second": lambda: Refusal(Expired, Offer(), days=30),
    "release lapsed": lambda: Refusal(Expired, Offer(release=signed(release(days=1), "release-1")), days=2),
    "sign-off lapsed": lambda: Refusal(Expired, Offer(signoff=signed(signoff(days=1), "clinical-1")), days=2),
    "root lapsed": lambda: Refusal(Expired, Offer(roots=[signed(root(days=1), "root-1")]), days=2),
    "endless data": lambda: Refusal(TooLarge, Offer(desired=b"{" + b" " * (2 * 2**20))),
    "root withheld": lambda: Refusal(MixAndMatch, Offer(desired=signed(desired(root=2), "fleet-1"))),
    "another release": lambda: Refusal(
        MixAndMatch, Offer(release=signed(release(release="c" * 64), "release-1"))
    ),
    "another fleet": lambda: Refusal(WrongSoftware, Offer(desired=signed(desired(fleet="b"), "fleet-1"))),
    "another fleet's release": lambda: Refusal(
        WrongSoftware, Offer(release=signed(release(fleet="b"), "release-1"))
    ),
    "other hardware": lambda: Refusal(
        WrongSoftware, Offer(release=signed(release(hardware=("orin",)), "release-1"))
    ),
    "another protocol": lambda: Refusal(WrongSoftware, Offer(desired=_raw(desired(), "version", "3"))),
    "unknown key": lambda: Refusal(Extraneous, Offer(desired=_raw(desired(), "force", True))),
    "device listed twice": lambda: Refusal(Extraneous, Offer(desired=_listed_twice())),
    "no sign-off": lambda: Refusal(NoSignOff, Offer(signoff=None)),
    "sign-off of another release": lambda: Refusal(
        NoSignOff, Offer(signoff=signed(signoff(release="c" * 64), "clinical-1"))
    ),
    "sign-off for another fleet": lambda: Refusal(
        NoSignOff, Offer(signoff=signed(signoff(fleet="b"), "clinical-1"))
    ),
    "sign-off by nobody": lambda: Refusal(NoSignOff, Offer(signoff=signed(signoff(), "fleet-1"))),
    "key compromise": lambda: Refusal(
        KeyRevoked, Offer(roots=[Offer().roots[0], signed(root(2, release=["release-2"]), "root-1")])
    ),
    "clinician has left": lambda: Refusal(
        KeyRevoked, Offer(roots=[Offer().roots[0], signed(root(2, clinical=["clinical-2"]), "root-1")])
    ),
}
