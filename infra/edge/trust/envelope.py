"""DSSE envelopes: a document's bytes, its type, and signatures over both.

| to …                             | call                                       |
|----------------------------------|--------------------------------------------|
| wrap and sign                    | `sign(payload_type, payload, keys)`        |
| add a signature of one's own     | `countersign(envelope, keys)`              |
| read what came over the network  | `Envelope.parse(data)`                     |
| learn who really signed          | `envelope.signers(keys)`                   |
| demand k signatures of a role    | `verify(envelope, role_keys, k, …)`        |

Source: DSSE 1.0 (https://github.com/secure-systems-lab/dsse), protocol.md and envelope.md. The signature is over
`PAE = "DSSEv1" SP len(type) SP type SP len(body) SP body`, lengths in decimal, so the bytes are verified as they came: no parser
runs on a payload that nobody vouches for, and none has to agree with the signer's on what is canonical.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from infra.digest import canonical_json
from infra.edge.trust.keys import PrivateKey, PublicKey
from infra.edge.trust.strict_json import parse_object
from models.errors import BadSignature, KeyRevoked, TooLarge

MAX_PAYLOAD_BYTES: Final = 2**20
MAX_SIGNATURES: Final = 64
MAX_ENVELOPE_BYTES: Final = 2 * 2**20
"""A payload in base64 (4/3 of 1 MiB) with its signatures leaves room enough."""

_MAX_SIGNATURE_BYTES: Final = 128  # DER of two 256-bit integers takes at most 72
_KEYID: Final = re.compile(r"[0-9a-f]{64}")
_TYPE: Final = re.compile(r"[a-z0-9.+/-]{1,128}")


@dataclass(frozen=True)
class Signature:
    """A claim: somebody says that `keyid` signed."""

    keyid: str
    sig: bytes  # DER


@dataclass(frozen=True)
class Envelope:
    """A payload and who claims to have signed it. Nothing of it is believed before `verify`."""

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...] = ()

    @classmethod
    def parse(cls, data: bytes, where: str = "envelope", *, max_payload: int = MAX_PAYLOAD_BYTES) -> Envelope:
        """Read an envelope; keys that are not ours, at either level, are refused.

        Args:
            max_payload: bytes of the document; the envelope may have twice as many.

        Raises:
            TooLarge: more bytes or signatures than any document may have.
            BadSignature: nothing that could carry a signature.
        """
        if len(data) > 2 * max_payload:
            raise TooLarge(f"{where}: {len(data)} bytes; no such envelope has more than {2 * max_payload}")
        try:
            raw = parse_object(data)
            _only(raw, {"payload", "payloadType", "signatures"})
            kind, signatures = raw["payloadType"], raw["signatures"]
            if not isinstance(kind, str) or not _TYPE.fullmatch(kind):
                raise ValueError("its payloadType is not a media type")
            if not isinstance(signatures, list):
                raise ValueError("its signatures are no list")
            if len(signatures) > MAX_SIGNATURES:
                raise TooLarge(
                    f"{where}: {len(signatures)} signatures; at most {MAX_SIGNATURES} are accepted"
                )
            payload = _decode(raw["payload"], "payload")
            if len(payload) > max_payload:
                raise TooLarge(f"{where}: a payload of {len(payload)} bytes; at most {max_payload}")
            return cls(kind, payload, tuple(_signature(s) for s in signatures))
        except (ValueError, KeyError) as err:
            reason = f"{err} is missing" if isinstance(err, KeyError) else str(err)
            raise BadSignature(f"{where} is not a DSSE envelope ({reason}): fetch it again") from None

    def to_bytes(self) -> bytes:
        """The JSON that `parse` reads."""
        return canonical_json(
            {
                "payloadType": self.payload_type,
                "payload": base64.b64encode(self.payload).decode(),
                "signatures": [
                    {"keyid": s.keyid, "sig": base64.b64encode(s.sig).decode()} for s in self.signatures
                ],
            }
        )

    def signers(self, keys: Iterable[PublicKey]) -> set[str]:
        """Ids of those of `keys` that validly signed; a key counts once, however often its signature is repeated."""
        known = {key.keyid: key for key in keys}
        signed = pae(self.payload_type, self.payload)
        return {
            s.keyid for s in self.signatures if s.keyid in known and known[s.keyid].verifies(s.sig, signed)
        }


def pae(payload_type: str, payload: bytes) -> bytes:
    """Pre-authentication encoding: the bytes that are signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(
    payload_type: str, payload: bytes, keys: Sequence[PrivateKey], *, max_payload: int = MAX_PAYLOAD_BYTES
) -> Envelope:
    """Wrap a document and sign it with each key.

    Raises:
        TooLarge: the document is larger than any may be.
    """
    if len(payload) > max_payload:
        raise TooLarge(
            f"a document of {len(payload)} bytes; at most {max_payload}: split the fleet or shorten the statement"
        )
    return countersign(Envelope(payload_type, payload), keys)


def countersign(envelope: Envelope, keys: Sequence[PrivateKey]) -> Envelope:
    """The same document with signatures of `keys` added; a key's earlier signature is replaced."""
    signed = pae(envelope.payload_type, envelope.payload)
    fresh = {key.keyid: Signature(key.keyid, key.sign(signed)) for key in keys}
    kept = [s for s in envelope.signatures if s.keyid not in fresh]
    return Envelope(envelope.payload_type, envelope.payload, (*kept, *fresh.values()))


def verify(
    envelope: Envelope,
    payload_type: str,
    keys: Sequence[PublicKey],
    threshold: int,
    *,
    role: str,
    retired: Mapping[str, PublicKey] | None = None,
    where: str = "envelope",
) -> bytes:
    """The payload, once `threshold` distinct keys of the role have validly signed it as this very type.

    Args:
        retired: keys that an earlier root gave the role and the newest does not; only to name the refusal.

    Raises:
        BadSignature: another type, or too few of the role's keys signed.
        KeyRevoked: too few, and one that did is retired.
    """
    if envelope.payload_type != payload_type:
        raise BadSignature(
            f"{where} is signed as {envelope.payload_type}, not as {payload_type}: no document passes for another kind"
        )
    valid = envelope.signers(keys)
    if len(valid) >= threshold:
        return envelope.payload
    revoked = envelope.signers((retired or {}).values())
    if revoked:
        raise KeyRevoked(
            f"{where} is signed by {', '.join(k[:16] for k in sorted(revoked))}, which the newest root no longer lists "
            f"for the role {role}: it has to be signed anew"
        )
    raise BadSignature(
        f"{where}: {len(valid)} valid signature(s) of the role {role}, {threshold} are needed: do not use it"
    )


def _only(raw: Mapping[str, Any], keys: set[str]) -> None:
    if extra := set(raw) - keys:
        raise ValueError(f"unknown key {sorted(extra)[0][:40]!r}")


def _signature(raw: Any) -> Signature:
    if not isinstance(raw, dict):
        raise ValueError("a signature is no object")
    _only(raw, {"keyid", "sig"})
    keyid, sig = raw["keyid"], _decode(raw["sig"], "sig")
    if not isinstance(keyid, str) or not _KEYID.fullmatch(keyid):
        raise ValueError("a keyid is not 64 hexadecimal digits")
    if len(sig) > _MAX_SIGNATURE_BYTES:
        raise ValueError("a signature is longer than any of P-256")
    return Signature(keyid, sig)


def _decode(value: Any, name: str) -> bytes:
    if not isinstance(value, str):
        raise ValueError(f"its {name} is no string")
    try:
        return base64.b64decode(value.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise ValueError(f"its {name} is not base64") from None
