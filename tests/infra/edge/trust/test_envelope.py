"""DSSE: the signed bytes by hand, what an envelope may be, and OpenSSL's opinion of a signature."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from infra.edge.trust.envelope import (
    MAX_ENVELOPE_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_SIGNATURES,
    Envelope,
    Signature,
    countersign,
    pae,
    sign,
    verify,
)
from models.errors import BadSignature, KeyRevoked, TooLarge
from tests.fleets import key

TYPE = "application/vnd.cryfed.desired+json"
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def test_the_signed_bytes_by_hand() -> None:
    """The example of DSSE's protocol.md, and lengths in bytes where characters are fewer."""
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert pae("é", "ü".encode()) == b"DSSEv1 2 \xc3\xa9 2 \xc3\xbc"
    assert pae("", b"") == b"DSSEv1 0  0 "


@given(st.text(max_size=20), st.binary(max_size=40), st.text(max_size=20), st.binary(max_size=40))
def test_no_two_documents_have_the_same_signed_bytes(t1: str, b1: bytes, t2: str, b2: bytes) -> None:
    assert (pae(t1, b1) == pae(t2, b2)) == ((t1, b1) == (t2, b2))


def test_openssl_verifies_what_we_sign(tmp_path: Path) -> None:
    """Devices without `cryptography` verify this way."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    made = Envelope.parse(sign(TYPE, b'{"version":1}', [key("fleet-1")]).to_bytes())
    (tmp_path / "key.pem").write_text(key("fleet-1").public.pem)
    (tmp_path / "sig").write_bytes(made.signatures[0].sig)
    (tmp_path / "pae").write_bytes(pae(made.payload_type, made.payload))
    command = ["openssl", "dgst", "-sha256", "-verify", "key.pem", "-signature", "sig", "pae"]

    def ask() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert ask().stdout.strip() == "Verified OK"
    (tmp_path / "pae").write_bytes(pae(made.payload_type + "x", made.payload))
    assert ask().returncode != 0


def test_it_survives_the_wire() -> None:
    made = sign(TYPE, b"{}", [key("a"), key("b")])
    assert Envelope.parse(made.to_bytes()) == made
    assert made.signers([key("a").public, key("b").public, key("c").public]) == {
        key("a").keyid,
        key("b").keyid,
    }
    again = countersign(made, [key("a"), key("c")])
    assert len(again.signatures) == 3


def test_a_threshold_counts_distinct_keys_with_a_valid_signature() -> None:
    a, b, c = key("a"), key("b"), key("c")
    held = [a.public, b.public]
    twice = sign(TYPE, b"{}", [a])
    r, s = decode_dss_signature(twice.signatures[0].sig)
    twin = Signature(
        a.keyid, encode_dss_signature(r, P256_ORDER - s)
    )  # as valid as the first, of the same key
    fresh = sign(TYPE, b"{}", [a]).signatures[0]
    many = Envelope(TYPE, b"{}", (*twice.signatures, twin, fresh, *sign(TYPE, b"{}", [c]).signatures))
    assert many.signers([a.public]) == {a.keyid}
    with pytest.raises(BadSignature, match=r"1 valid signature\(s\) of the role fleet, 2 are needed"):
        verify(many, TYPE, held, 2, role="fleet")
    claimed = Envelope(TYPE, b"{}", (twice.signatures[0], Signature(b.keyid, twice.signatures[0].sig)))
    with pytest.raises(BadSignature, match="1 valid"):
        verify(claimed, TYPE, held, 2, role="fleet")
    assert verify(countersign(claimed, [b]), TYPE, held, 2, role="fleet") == b"{}"


def test_no_document_passes_for_another_kind() -> None:
    made = sign(TYPE, b"{}", [key("a")])
    renamed = Envelope(TYPE.replace("desired", "release"), made.payload, made.signatures)
    for kind in (TYPE, TYPE.replace("desired", "release")):
        with pytest.raises(BadSignature):
            verify(renamed, kind, [key("a").public], 1, role="fleet")


def test_a_retired_key_is_named_as_such() -> None:
    old, new = key("old"), key("new")
    made = sign(TYPE, b"{}", [old])
    retired = {old.keyid: old.public}
    with pytest.raises(KeyRevoked, match=f"{old.keyid[:16]}.*no longer lists"):
        verify(made, TYPE, [new.public], 1, role="release", retired=retired)
    forged = Envelope(TYPE, b"{ }", made.signatures)  # the retired key never signed this one
    with pytest.raises(BadSignature):
        verify(forged, TYPE, [new.public], 1, role="release", retired=retired)
    assert verify(countersign(made, [new]), TYPE, [new.public], 1, role="release", retired=retired) == b"{}"


GOOD = {"payloadType": TYPE, "payload": "e30=", "signatures": [{"keyid": "a" * 64, "sig": "AA=="}]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"\xff", "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"payload":"","payload":""}', "given twice"),
        (b'{"payload":NaN}', "NaN is not JSON"),
        (b'{"payload":' + b"9" * 5000 + b"}", "number without end"),
        (json.dumps({**GOOD, "more": 1}).encode(), "unknown key 'more'"),
        (json.dumps({k: v for k, v in GOOD.items() if k != "payload"}).encode(), "'payload' is missing"),
        (json.dumps({**GOOD, "payload": "e30"}).encode(), "not base64"),
        (json.dumps({**GOOD, "payload": "e3\n0="}).encode(), "not base64"),
        (json.dumps({**GOOD, "payload": "é30="}).encode(), "not base64"),
        (json.dumps({**GOOD, "payload": None}).encode(), "no string"),
        (json.dumps({**GOOD, "payloadType": "a b"}).encode(), "media type"),
        (json.dumps({**GOOD, "payloadType": 1}).encode(), "media type"),
        (json.dumps({**GOOD, "signatures": {}}).encode(), "no list"),
        (json.dumps({**GOOD, "signatures": ["x"]}).encode(), "no object"),
        (json.dumps({**GOOD, "signatures": [{"keyid": "A" * 64, "sig": "AA=="}]}).encode(), "64 hexa"),
        (json.dumps({**GOOD, "signatures": [{"keyid": "a" * 64, "sig": "A" * 400}]}).encode(), "longer"),
        (json.dumps({**GOOD, "signatures": [{"keyid": "a" * 64, "sig": "", "x": 1}]}).encode(), "unknown key"),
    ],
)  # fmt: skip
def test_what_is_no_envelope_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(BadSignature, match=f"the state is not a DSSE envelope .*{message}"):
        Envelope.parse(data, "the state")


def test_sizes_are_bounded() -> None:
    assert len(Envelope.parse(json.dumps(GOOD).encode()).signatures) == 1
    with pytest.raises(TooLarge, match=str(MAX_ENVELOPE_BYTES)):
        Envelope.parse(b" " * (MAX_ENVELOPE_BYTES + 1))
    with pytest.raises(TooLarge, match="65 signatures"):
        Envelope.parse(json.dumps({**GOOD, "signatures": GOOD["signatures"] * (MAX_SIGNATURES + 1)}).encode())
    large = base64.b64encode(bytes(MAX_PAYLOAD_BYTES + 1)).decode()
    with pytest.raises(TooLarge, match="a payload of 1048577 bytes"):
        Envelope.parse(json.dumps({**GOOD, "payload": large}).encode())
    with pytest.raises(TooLarge):
        sign(TYPE, bytes(MAX_PAYLOAD_BYTES + 1), [key("a")])
    full = sign(TYPE, bytes(MAX_PAYLOAD_BYTES), [key(f"k{i}") for i in range(MAX_SIGNATURES)]).to_bytes()
    assert len(full) <= MAX_ENVELOPE_BYTES
    assert len(Envelope.parse(full).payload) == MAX_PAYLOAD_BYTES
