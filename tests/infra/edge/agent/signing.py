"""Keys and envelopes as a publisher makes them, with `cryptography`, so that tests can make wrong ones too."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from infra.digest import canonical_json, digest_bytes

Key = ec.EllipticCurvePrivateKey


def new_key() -> Key:
    """A fresh P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def pem_of(key: Key) -> str:
    """Its public half."""
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(encoding, form).decode()


def id_of(key: Key) -> str:
    """Its id."""
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return digest_bytes(key.public_key().public_bytes(encoding, form))


def seal(kind: str, document: Any, keys: Sequence[Key], *, payload_type: str | None = None) -> bytes:
    """A signed envelope, written from the DSSE specification and not from the agent's code."""
    body = document if isinstance(document, bytes) else canonical_json(document)
    stated = payload_type or f"application/vnd.cryfed.{kind}+json"
    message = b" ".join(
        [b"DSSEv1", str(len(stated)).encode(), stated.encode(), str(len(body)).encode(), body]
    )
    signatures = [
        {"keyid": id_of(k), "sig": base64.b64encode(k.sign(message, ec.ECDSA(hashes.SHA256()))).decode()}
        for k in keys
    ]
    return canonical_json(
        {"payloadType": stated, "payload": base64.b64encode(body).decode(), "signatures": signatures}
    )


def opened(envelope: bytes) -> dict[str, Any]:
    """The document in an envelope."""
    return json.loads(base64.b64decode(json.loads(envelope)["payload"]))


def verify(pem: str, message: bytes, signature: bytes) -> bool:
    """What `openssl dgst -verify` says, without its process."""
    key = serialization.load_pem_public_key(pem.encode())
    assert isinstance(key, ec.EllipticCurvePublicKey)
    try:
        key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True
