"""Arbitrary software, malicious mirror, key compromise: nothing counts but a threshold of the right keys over these bytes."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from infra.digest import canonical_json
from tests.infra.edge.agent.signing import Key, id_of, new_key, opened, pem_of, seal
from tests.infra.edge.agent.world import Device, Publisher, refuses, settled

Fleet = tuple[Publisher, Device, str]


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return settled(tmp_path)


def _desired(publisher: Publisher, keys: list[Key], kind: str = "desired", **changes: object) -> bytes:
    digest = publisher.release(6)
    document = publisher.desired_document({"release": digest, "devices": ["cot-7"]}, **changes)
    return seal(kind, document, keys)


def test_what_the_others_are_held_against_is_accepted(fleet: Fleet) -> None:
    publisher, device, _ = fleet
    publisher.put(publisher.key("desired"), _desired(publisher, publisher.keys["fleet"][:1]))
    assert device.refusal() is None


@pytest.mark.parametrize("signer", ["nobody", "stranger", "release", "clinical", "root"])
def test_a_desired_state_of_other_keys(fleet: Fleet, signer: str) -> None:
    publisher, device, _ = fleet
    keys = {"nobody": [], "stranger": [new_key(), new_key()]}.get(signer, publisher.keys.get(signer, []))
    publisher.put(publisher.key("desired"), _desired(publisher, keys))
    refuses(device, "BadSignature")


def test_one_key_twice_is_one_key(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path / "store", root=False)
    publisher.thresholds["fleet"] = 2
    publisher.root = publisher.publish_root()
    device = Device(tmp_path / "device", publisher)
    first, second = publisher.keys["fleet"]
    publisher.put(publisher.key("desired"), _desired(publisher, [first, first]))
    assert device.refusal() == "BadSignature"
    publisher.put(publisher.key("desired"), _desired(publisher, [first, second]))
    assert device.refusal() is None


@pytest.mark.parametrize("place", ["payload", "sig", "keyid"])
def test_a_changed_byte(fleet: Fleet, place: str) -> None:
    publisher, device, _ = fleet
    envelope = json.loads(_desired(publisher, publisher.keys["fleet"][:1]))
    if place == "payload":
        body = base64.b64decode(envelope["payload"]).replace(b"cot-7", b"cot-8")
        envelope["payload"] = base64.b64encode(body).decode()
    elif place == "sig":
        raw = bytearray(base64.b64decode(envelope["signatures"][0]["sig"]))
        raw[-1] ^= 1
        envelope["signatures"][0]["sig"] = base64.b64encode(raw).decode()
    else:
        envelope["signatures"][0]["keyid"] = id_of(publisher.keys["fleet"][1])
    publisher.put(publisher.key("desired"), canonical_json(envelope))
    refuses(device, "BadSignature")


def test_a_signature_for_another_kind_of_document(fleet: Fleet) -> None:
    """The same bytes, signed by the right key as something else: the type is signed too."""
    publisher, device, _ = fleet
    data = _desired(publisher, publisher.keys["fleet"], kind="signoff")
    publisher.put(publisher.key("desired"), data)
    refuses(device, "BadSignature")
    relabelled = json.loads(data)
    relabelled["payloadType"] = "application/vnd.cryfed.desired+json"
    publisher.put(publisher.key("desired"), canonical_json(relabelled))
    refuses(device, "BadSignature")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"payload":1,"payloadType":2,"signatures":3}',
        b"[" * 100_000,
    ],
    ids=["empty", "object", "list", "null", "not UTF-8", "wrong types", "deep"],
)
def test_garbage(fleet: Fleet, data: bytes) -> None:
    publisher, device, _ = fleet
    publisher.put(publisher.key("desired"), data)
    refuses(device, "BadSignature")


@pytest.mark.parametrize("place", ["envelope", "signature"])
def test_a_key_that_no_signature_covers(fleet: Fleet, place: str) -> None:
    publisher, device, digest = fleet
    envelope = json.loads(publisher.want(digest))
    (envelope if place == "envelope" else envelope["signatures"][0])["note"] = 1
    publisher.put(publisher.key("desired"), canonical_json(envelope))
    refuses(device, "BadSignature")


def test_a_release_that_its_role_did_not_sign(fleet: Fleet) -> None:
    publisher, device, _ = fleet
    digest, raw = publisher.publish_bundle({"model.onnx": b"evil"})
    document = publisher.release_document(digest, raw, 6)
    publisher.put(publisher.key(f"releases/{digest}"), seal("release", document, publisher.keys["fleet"]))
    publisher.signoff(digest)
    publisher.want(digest)
    refuses(device, "BadSignature", says="role release")


class TestRoots:
    def test_a_root_that_the_last_one_did_not_sign(self, fleet: Fleet) -> None:
        publisher, device, _ = fleet
        publisher.keys["root"] = [new_key(), new_key()]
        publisher.publish_root()
        refuses(device, "BadSignature", says="root 1 wants 2")

    def test_one_stolen_root_key_is_not_enough(self, fleet: Fleet) -> None:
        publisher, device, _ = fleet
        stolen = publisher.keys["root"][0]
        publisher.keys["root"] = [stolen, new_key()]
        publisher.publish_root()
        refuses(device, "BadSignature")

    def test_a_root_that_its_own_keys_did_not_sign(self, fleet: Fleet) -> None:
        publisher, device, _ = fleet
        old, publisher.keys["root"] = publisher.keys["root"], [new_key(), new_key()]
        publisher.put(publisher.key("root/2"), seal("root", publisher.root_document(2), old))
        refuses(device, "BadSignature", says="root 2 wants 2")

    def test_a_chain_of_roots_is_followed(self, fleet: Fleet) -> None:
        publisher, device, _ = fleet
        for _ in range(3):
            publisher.rotate("root")
        publisher.rotate("fleet")
        digest = publisher.release(6)
        publisher.want(digest)
        assert device.refusal() is None
        assert device.current == digest

    def test_a_key_under_another_ones_id(self, fleet: Fleet) -> None:
        publisher, device, _ = fleet
        document = publisher.root_document(2)
        document["keys"][id_of(publisher.keys["fleet"][0])] = pem_of(new_key())
        publisher.put(publisher.key("root/2"), seal("root", document, publisher.keys["root"]))
        refuses(device, "WrongSoftware", says="not its own")

    def test_a_key_that_is_not_p256(self, fleet: Fleet) -> None:
        publisher, device, _ = fleet
        from cryptography.hazmat.primitives import serialization

        weak = rsa.generate_private_key(65537, 1024).public_key()
        encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        document = publisher.root_document(2)
        document["keys"]["a" * 64] = weak.public_bytes(encoding, form).decode()
        publisher.put(publisher.key("root/2"), seal("root", document, publisher.keys["root"]))
        refuses(device, "WrongSoftware", says="P-256")


class TestRevokedKeys:
    @pytest.mark.parametrize("role", ["fleet", "release", "clinical"])
    def test_a_key_that_the_newest_root_no_longer_lists(self, fleet: Fleet, role: str) -> None:
        publisher, device, _ = fleet
        old = publisher.rotate(role)
        fresh, publisher.keys[role] = publisher.keys[role], old
        publisher.want(publisher.release(6))
        refuses(device, "KeyRevoked", says=f"no longer lists for {role}")
        publisher.keys[role] = fresh
        publisher.want(publisher.release(6))
        assert device.refusal() is None

    def test_that_it_was_revoked_survives_a_restart(self, fleet: Fleet) -> None:
        publisher, device, _ = fleet
        old = publisher.rotate("fleet")
        publisher.put(publisher.key("desired"), _desired(publisher, old))
        refuses(device, "KeyRevoked")
        device.start()
        refuses(device, "KeyRevoked")

    def test_naming_a_revoked_key_without_its_signature_is_no_revocation(self, fleet: Fleet) -> None:
        publisher, device, _ = fleet
        old = publisher.rotate("fleet")
        envelope = json.loads(_desired(publisher, [new_key()]))
        envelope["signatures"][0]["keyid"] = id_of(old[0])
        publisher.put(publisher.key("desired"), canonical_json(envelope))
        refuses(device, "BadSignature")

    def test_a_revoked_key_beside_a_valid_one_does_no_harm(self, fleet: Fleet) -> None:
        publisher, device, _ = fleet
        old = publisher.rotate("fleet")
        publisher.put(publisher.key("desired"), _desired(publisher, [old[0], publisher.keys["fleet"][0]]))
        assert device.refusal() is None


class TestStolenKeys:
    """One role's keys in the wrong hands, the others' not: what that still does not buy."""

    def test_release_keys_alone_bring_nothing_onto_a_device(self, fleet: Fleet) -> None:
        publisher, device, digest = fleet
        evil, raw = publisher.publish_bundle({"model.onnx": b"evil"})
        document = publisher.release_document(evil, raw, 6)
        publisher.put(publisher.key(f"releases/{evil}"), seal("release", document, publisher.keys["release"]))
        publisher.put(publisher.key("desired"), seal("desired", {"release": evil}, publisher.keys["release"]))
        refuses(device, "BadSignature")
        assert device.current == digest

    def test_release_and_fleet_keys_lack_the_sign_off(self, fleet: Fleet) -> None:
        publisher, device, _ = fleet
        evil, raw = publisher.publish_bundle({"model.onnx": b"evil"})
        document = publisher.release_document(evil, raw, 6)
        publisher.put(publisher.key(f"releases/{evil}"), seal("release", document, publisher.keys["release"]))
        publisher.want(evil)
        refuses(device, "NoSignOff", says="there is none")

    def test_clinical_and_fleet_keys_lack_the_release(self, fleet: Fleet) -> None:
        publisher, device, _ = fleet
        evil, raw = publisher.publish_bundle({"model.onnx": b"evil"})
        document = publisher.release_document(evil, raw, 6)
        publisher.put(
            publisher.key(f"releases/{evil}"), seal("release", document, publisher.keys["clinical"])
        )
        publisher.signoff(evil)
        publisher.want(evil)
        refuses(device, "BadSignature")


def test_the_report_is_signed_by_the_device(fleet: Fleet) -> None:
    publisher, device, digest = fleet
    from tests.infra.edge.agent.signing import verify

    path = publisher.folder / "fleets/ward/reports/cot-7.json"
    envelope = json.loads(path.read_bytes())
    (entry,) = envelope["signatures"]
    assert entry["keyid"] == id_of(device.private)
    body = base64.b64decode(envelope["payload"])
    kind = envelope["payloadType"].encode()
    message = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(body), body)
    assert verify(pem_of(device.private), message, base64.b64decode(entry["sig"]))
    assert opened(path.read_bytes())["release"] == digest
