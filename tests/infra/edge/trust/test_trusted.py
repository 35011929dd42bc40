"""The order of belief: the way through, and each refusal as an error of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from infra.digest import digest_bytes
from infra.edge.release import BundledFile, BundleManifest, DataProvenance
from infra.edge.trust.documents import ManifestReference, ReleaseDocument, Ring, RootDocument
from infra.edge.trust.envelope import Envelope
from infra.edge.trust.trusted import MAX_LEAP, Device, TrustedFleet, TrustedRoot, open_manifest
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
from tests.fleets import (
    FLEET,
    NOW,
    RELEASE,
    Offer,
    desired,
    envelope,
    release,
    root,
    signed,
    signoff,
)
from tests.refusals import DEVICE, REFUSALS


def follow(offer: Offer, device: Device = DEVICE, days: float = 0) -> TrustedFleet:
    """Everything up to the sign-off, as a device takes it, `days` from now."""
    view = TrustedFleet(offer.roots[0], FLEET, device, now=NOW + timedelta(days=days))
    for data in offer.roots[1:]:
        view.update_root(data)
    assert view.update_desired(offer.desired) is not None
    view.update_release(offer.release)
    view.update_signoff(offer.signoff)
    return view


def manifest(**changes: Any) -> BundleManifest:
    fields: dict[str, Any] = {
        "heads": ("gate",),
        "reasons": (),
        "model": {},
        "vad": {},
        "data": DataProvenance(manifest_digest="a" * 64, synthetic=True),
        "files": {"model.onnx": BundledFile(sha256="b" * 64, size=10)},
        **changes,
    }
    return BundleManifest(**fields)


def stated(made: BundleManifest, data: bytes | None = None) -> ReleaseDocument:
    data = made.to_json() if data is None else data
    reference = ManifestReference(sha256=digest_bytes(data), size=len(data))
    return release(release=made.digest(), manifest=reference)


def test_the_way_through() -> None:
    made = manifest()
    ring = Ring(release=made.digest(), devices=("device-1",))
    statement = stated(made)
    offer = Offer(
        desired=signed(desired(rings=(ring,)), "fleet-1"),
        release=signed(statement, "release-1"),
        signoff=signed(signoff(release=made.digest()), "clinical-1"),
    )
    view = follow(offer)
    assert not view.ready
    assert view.update_manifest(made.to_json()) == made
    assert view.ready
    assert view.ring == ring
    assert view.release == statement


def test_a_device_in_no_ring_changes_nothing() -> None:
    view = TrustedFleet(Offer().roots[0], FLEET, Device("device-9", "any"), now=NOW)
    assert view.update_desired(Offer().desired) is None
    with pytest.raises(RuntimeError, match="in no ring"):
        view.update_release(Offer().release)


def test_steps_out_of_order_are_bugs() -> None:
    offer = Offer()
    view = TrustedFleet(offer.roots[0], FLEET, DEVICE, now=NOW)
    for step in (
        lambda: view.update_release(offer.release),
        lambda: view.update_signoff(offer.signoff),
        lambda: view.update_manifest(b"{}"),
    ):
        with pytest.raises(RuntimeError):
            step()
    view.update_desired(offer.desired)
    with pytest.raises(RuntimeError):
        view.update_signoff(offer.signoff)
    with pytest.raises(RuntimeError, match="roots come before"):
        view.update_root(signed(root(2), "root-1"))
    with pytest.raises(RuntimeError):
        view.update_desired(offer.desired)


@pytest.mark.parametrize("name", REFUSALS)
def test_each_refusal_is_an_error_of_its_own(name: str) -> None:
    case = REFUSALS[name]()
    with pytest.raises(TrustError) as caught:
        follow(case.offer, case.device, case.days)
    assert type(caught.value) is case.kind, caught.value


def test_a_refusal_changes_nothing() -> None:
    offer = Offer()
    view = TrustedFleet(offer.roots[0], FLEET, DEVICE, now=NOW)
    for bad in (signed(root(2), "mallory"), signed(root(3), "root-1"), signed(root(2, of="b"), "root-1")):
        with pytest.raises(TrustError):
            view.update_root(bad)
    assert view.root == root()
    with pytest.raises(MixAndMatch):
        view.update_desired(signed(desired(root=2), "fleet-1"))
    assert view.desired is None
    view.update_root(signed(root(2), "root-1"))
    view.update_desired(signed(desired(root=2), "fleet-1"))
    with pytest.raises(BadSignature):
        view.update_release(signed(release(), "mallory"))
    assert view.release is None
    view.update_release(offer.release)


def test_what_is_allowed_at_the_edges() -> None:
    follow(Offer(desired=signed(desired(MAX_LEAP + 1), "fleet-1")))
    follow(Offer(release=signed(release(number=MAX_LEAP + 3), "release-1")))
    follow(Offer(release=signed(release(hardware=("orin", "jetson-nano")), "release-1")))
    follow(Offer(), Device("device-1", "any", desired=1, running=3))


def test_a_rollback_has_to_be_meant() -> None:
    """It lifts the floor of the release's number, and nothing else."""
    ring = Ring(release=RELEASE, devices=("device-1",), rollback=True)
    meant = Offer(desired=signed(desired(rings=(ring,)), "fleet-1"))
    follow(meant, Device("device-1", "any", running=9))
    with pytest.raises(NoSignOff):
        follow(Offer(desired=meant.desired, signoff=None), Device("device-1", "any", running=9))
    with pytest.raises(Rollback):
        follow(meant, Device("device-1", "any", desired=2, running=9))
    leaping = Offer(desired=meant.desired, release=signed(release(number=MAX_LEAP + 10), "release-1"))
    with pytest.raises(FastForward):
        follow(leaping, Device("device-1", "any", running=9))


# ---- rotation

TWO = {"root": ["root-1", "root-2"]}


def test_rotation_needs_the_threshold_of_both_roots() -> None:
    first = signed(root(**TWO), "root-1", "root-2")
    second = root(2, root=["root-2", "root-3"])
    for names, who in [
        (("root-1",), "root 1 has to sign"),
        (("root-1", "mallory"), "root 1 has to sign"),
        (("root-2", "root-3"), "root 1 has to sign"),  # enough for the new one alone
        (("root-1", "root-2"), "its own root keys have to sign"),  # enough for the old one alone
    ]:
        with pytest.raises(BadSignature, match=who):
            TrustedRoot(first, FLEET, now=NOW).update_root(signed(second, *names))
    trust = TrustedRoot(first, FLEET, now=NOW)
    assert trust.update_root(signed(second, "root-1", "root-2", "root-3")).version == 2
    # root-1 has no say any more
    with pytest.raises(KeyRevoked):
        trust.update_root(signed(root(3, root=["root-1"]), "root-1", "mallory"))
    assert trust.update_root(signed(root(3, root=["root-3"]), "root-2", "root-3")).version == 3


def test_the_first_root_is_held_to_its_own_threshold() -> None:
    with pytest.raises(BadSignature, match=r"1 valid.*2 are needed"):
        TrustedRoot(signed(root(**TWO), "root-1"), FLEET, now=NOW)
    with pytest.raises(WrongSoftware):
        TrustedRoot(signed(root(), "root-1"), "other", now=NOW)


def test_roots_follow_each_other() -> None:
    trust = TrustedRoot(signed(root(4), "root-1"), FLEET, now=NOW)
    for version, kind in [(4, Rollback), (3, Rollback), (6, FastForward), (2**53, FastForward)]:
        with pytest.raises(kind):
            trust.update_root(signed(root(version), "root-1"))
    assert trust.root.version == 4


def test_a_lapsed_root_hands_over_and_no_more() -> None:
    trust = TrustedRoot(signed(root(days=1), "root-1"), FLEET, now=NOW + timedelta(days=2))
    with pytest.raises(Expired, match="root 1, the newest"):
        trust.open(ReleaseDocument, signed(release(), "release-1"), "the release")
    trust.update_root(signed(root(2), "root-1"))
    assert trust.open(ReleaseDocument, signed(release(), "release-1"), "the release").number == 3


def test_a_successor_leaves_its_root_alone() -> None:
    trust = TrustedRoot(signed(root(), "root-1"), FLEET, now=NOW)
    after = trust.successor(signed(root(2, release=["release-2"]), "root-1"))
    assert (trust.root.version, after.root.version) == (1, 2)
    data = signed(release(), "release-1")
    assert trust.open(ReleaseDocument, data, "it").number == 3
    with pytest.raises(KeyRevoked):
        after.open(ReleaseDocument, data, "it")


def test_a_key_that_comes_back_is_no_longer_retired() -> None:
    trust = TrustedRoot(signed(root(), "root-1"), FLEET, now=NOW)
    trust.update_root(signed(root(2, release=["release-2"]), "root-1"))
    trust.update_root(signed(root(3, release=["release-2", "release-1"]), "root-1"))
    assert trust.open(ReleaseDocument, signed(release(), "release-1"), "it").number == 3


def test_one_key_cannot_hold_two_ids() -> None:
    """The compressed form of a point hashes differently; filed under that id it is refused."""
    raw = root().model_dump(mode="json")
    keyid, pem = next(iter(raw["keys"].items()))
    false = digest_bytes(b"another id")
    raw["keys"][false] = pem
    raw["roles"]["root"]["keys"] = [keyid, false]
    with pytest.raises(ValueError, match="under an id that is not its own"):
        RootDocument.model_validate_json(json.dumps(raw))


def test_the_floor_goes_with_the_keys_that_set_it() -> None:
    """A thief of the fleet's key drove the version up; with the key gone it shuts nobody out."""
    stolen = Device("device-1", "any", desired=9_000)
    fresh = signed(desired(2, root=2), "fleet-2")
    first = signed(root(), "root-1")

    def after(*fleet: str) -> TrustedFleet:
        view = TrustedFleet(first, FLEET, stolen, now=NOW)
        view.update_root(signed(root(2, fleet=list(fleet)), "root-1"))
        return view

    assert after("fleet-2").update_desired(fresh) is not None
    with pytest.raises(
        Rollback
    ):  # the thief's own key holds the role yet, and could bring back what it signed
        after("fleet-1", "fleet-2").update_desired(fresh)
    with pytest.raises(Rollback):
        after("fleet-1").update_desired(signed(desired(2), "fleet-1"))


# ---- manifest


def test_the_manifest_is_the_announced_one() -> None:
    made = manifest()
    data = made.to_json()
    for altered, kind in [
        (data + b" ", TooLarge),
        (data[:-1], MixAndMatch),
        (data.replace(b"b" * 64, b"c" * 64), MixAndMatch),
    ]:
        with pytest.raises(kind):
            open_manifest(altered, stated(made))
    other = manifest(notes=("another",))
    with pytest.raises(MixAndMatch, match="is that of release"):
        open_manifest(other.to_json(), stated(made, other.to_json()))


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda raw: raw.update(script="rm -rf /"), Extraneous),
        (lambda raw: raw["files"].update({"../evil": raw["files"]["model.onnx"]}), Extraneous),
        (lambda raw: raw["files"].update({"/etc/passwd": raw["files"]["model.onnx"]}), Extraneous),
        (lambda raw: raw["files"].update({"a\\b": raw["files"]["model.onnx"]}), Extraneous),
        (lambda raw: raw["files"].update({f"f{i}": raw["files"]["model.onnx"] for i in range(64)}), TooLarge),
        (lambda raw: raw["files"]["model.onnx"].update(size=512 * 2**20 + 1), TooLarge),
        (lambda raw: raw["files"].pop("model.onnx"), WrongSoftware),
        (lambda raw: raw.update(format="cryfed-bundle/2"), WrongSoftware),
        (lambda raw: raw.update(model={"x": float("1e400")}), WrongSoftware),
    ],
)  # fmt: skip
def test_what_no_manifest_has(change: Callable[[dict[str, Any]], Any], kind: type[TrustError]) -> None:
    raw = json.loads(manifest().to_json())
    change(raw)
    data = json.dumps(raw).encode()
    with pytest.raises(kind):
        open_manifest(data, stated(manifest(), data))


def test_an_envelope_within_its_bounds_is_judged_in_bounded_time() -> None:
    """64 signatures that all claim to be the role's are 64 verifications, no more."""
    full = envelope(desired(), "fleet-1")
    many = Envelope(full.payload_type, full.payload + b" ", full.signatures * 64)
    with pytest.raises(BadSignature):
        follow(Offer(desired=many.to_bytes()))
