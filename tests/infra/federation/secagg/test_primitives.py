"""Known answers, so that neither a label nor a primitive can change unnoticed: a federation of two versions would not add up."""

from __future__ import annotations

import hashlib
import hmac
import struct

import numpy as np
import pytest

from infra.federation.secagg import primitives as p
from infra.federation.secagg.masking import add_mask
from models.errors import UpdateRejected
from tests.infra.federation.secagg.world import identity, public

SECRET = bytes(range(32))
CONTEXT = bytes(range(100, 132))
SMALL_ORDER = (
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    b"\xec" + b"\xff" * 30 + b"\x7f",
)


def test_x25519_of_rfc_7748() -> None:
    """Section 6.1: Bob's keys, and what he agrees on with Alice."""
    bob = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    alice = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    assert p.public_key(bob).hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    assert p.agree(bob, alice).hex() == "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_points_of_small_order_are_refused(point: bytes) -> None:
    with pytest.raises(UpdateRejected, match="small order"):
        p.check_public(point)
    with pytest.raises(UpdateRejected, match="small order"):
        p.agree(SECRET, point)


def test_derivation_is_hkdf_of_rfc_5869_under_our_label() -> None:
    """Extract with a zero salt, expand once: T(1) = HMAC(PRK, info ‖ 1)."""
    protocol, label = b"cryfed secure aggregation 1", b"pair mask"
    parts = (protocol, label, CONTEXT, struct.pack(">HH", 2, 5))
    info = b"".join(struct.pack(">I", len(part)) + part for part in parts)
    prk = hmac.digest(bytes(32), SECRET, hashlib.sha256)
    expected = hmac.digest(prk, info + b"\x01", hashlib.sha256)
    assert p.derive(SECRET, "pair mask", CONTEXT, 2, 5) == expected
    assert expected.hex() == "7acde2c43e73092549b8841dabf1b8d856e3adf32049cf94ef400230498f2921"


def test_every_part_of_a_derivation_matters() -> None:
    base = (SECRET, "pair mask", CONTEXT, 2, 5)
    changed = [
        (bytes(32), *base[1:]),
        (SECRET, "self mask", *base[2:]),
        (*base[:2], bytes(32), 2, 5),
        (*base[:3], 5, 2),
        (*base[:3], 2, 6),
        (*base[:3], 1, 5),
    ]
    assert len({p.derive(*case) for case in (base, *changed)}) == 1 + len(changed)


def test_framing_is_injective() -> None:
    cases = [("a", b"b"), ("ab",), ("a", b"", b"b"), ("a", b"b", b""), ("", b"ab")]
    assert len({p.framed(label, *parts) for label, *parts in cases}) == len(cases)


def test_the_keystream_is_aes_256_ctr_from_zero() -> None:
    """AES-256 of a zero block under a zero key (NIST's GFSbox/KeySbox answer for it), then counter 1."""
    stream = p.keystream(bytes(32)).update(bytes(32))
    assert stream[:16].hex() == "dc95c078a2408989ad48a21492842087"
    assert stream[16:].hex() == "530f8afbc74536b9a963b4f1c4cb738b"


def test_a_mask_is_the_keystream_section_after_section() -> None:
    words = (np.zeros(3, "<u2"), np.zeros(2, "<u4"))
    add_mask(words, bytes(32))
    assert words[0].tolist() == [0x95DC, 0x78C0, 0x40A2]
    assert words[1].tolist() == [0x48AD8989, 0x849214A2]
    add_mask(words, bytes(32), subtract=True)
    assert not words[0].any()
    assert not words[1].any()


def test_a_mask_does_not_depend_on_how_it_is_cut() -> None:
    """Longer than one chunk of keystream, over the border of two sections."""
    n = 200_001
    long = (np.zeros(n, "<u2"), np.zeros(n, "<u4"))
    add_mask(long, SECRET)
    stream = p.keystream(SECRET).update(bytes(6 * n))
    assert long[0].tobytes() + long[1].tobytes() == stream


def test_sealing() -> None:
    sealed = p.seal(SECRET, b"two shares", b"for you")
    assert len(sealed) == 10 + p.SEAL_BYTES
    assert p.unseal(SECRET, sealed, b"for you") == b"two shares"
    assert p.seal(SECRET, b"two shares", b"for you") != sealed
    for key, data, label in [
        (bytes(32), sealed, b"for you"),
        (SECRET, sealed, b"for me"),
        (SECRET, sealed[:-1], b"for you"),
        (SECRET, b"", b"for you"),
        (SECRET, bytes([sealed[0] ^ 1]) + sealed[1:], b"for you"),
        (SECRET, sealed[:-1] + bytes([sealed[-1] ^ 1]), b"for you"),
    ]:
        with pytest.raises(UpdateRejected, match="does not open"):
            p.unseal(key, data, label)


def test_a_signature_counts_for_its_label_only() -> None:
    signature = p.sign(identity(0), "survivor set", CONTEXT)
    p.verify(public(0), signature, "survivor set", CONTEXT)
    for key, sig, label, part in [
        (public(1), signature, "survivor set", CONTEXT),
        (public(0), signature, "masked vector", CONTEXT),
        (public(0), signature, "survivor set", CONTEXT[:-1]),
        (public(0), signature[:-1], "survivor set", CONTEXT),
        (public(0), bytes(64), "survivor set", CONTEXT),
        (b"\xff" * 32, signature, "survivor set", CONTEXT),
        (b"short", signature, "survivor set", CONTEXT),
    ]:
        with pytest.raises(UpdateRejected, match="does not verify"):
            p.verify(key, sig, label, part)
