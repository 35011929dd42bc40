"""Envelopes in and out of Flower's records.

Header and body ride as text in a ConfigRecord, the payload as one opaque Array: our codec decides what its bytes mean, and
Flower chunks arrays on their way through a SuperLink.
"""

from __future__ import annotations

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from infra.federation.messages import Envelope, decode_body, decode_header, encode_body, encode_header
from models.errors import UpdateRejected

_TEXT, _BYTES, _KEY, _STYPE = "cryfed", "payload", "bytes", "cryfed.bytes"


def to_records(envelope: Envelope) -> RecordDict:
    """Pack one envelope."""
    text = ConfigRecord(
        {
            "header": encode_header(envelope.header),
            "body": encode_body(envelope.body),
            "refused": envelope.refused,
        }
    )
    payload = Array("uint8", (len(envelope.payload),), _STYPE, envelope.payload)
    return RecordDict({_TEXT: text, _BYTES: ArrayRecord({_KEY: payload})})


def from_records(records: RecordDict, *, max_payload: int) -> Envelope:
    """Unpack one envelope that came from outside.

    Raises:
        UpdateRejected: a record is missing, has another type, or is larger than allowed.
    """
    text, arrays = records.get(_TEXT), records.get(_BYTES)
    if not isinstance(text, ConfigRecord) or not isinstance(arrays, ArrayRecord):
        raise UpdateRejected(
            f"a message must hold the records {_TEXT!r} and {_BYTES!r}, this one has {sorted(records)}"
        )
    array, refused = arrays.get(_KEY), text.get("refused")
    if (
        array is None
        or array.stype != _STYPE
        or not isinstance(array.data, bytes)
        or not isinstance(refused, bool)
    ):
        raise UpdateRejected(f"a message's payload must be one array of bytes ({_STYPE})")
    if len(array.data) > max_payload:
        raise UpdateRejected(
            f"a payload of {len(array.data)} bytes is more than the {max_payload} allowed here"
        )
    return Envelope(decode_header(text.get("header")), decode_body(text.get("body")), array.data, refused)
