"""Envelopes and documents: bytes to checked values, and back. No I/O, no trust: who may sign what is `trusted`'s matter.

A document is canonical JSON inside a DSSE envelope (https://github.com/secure-systems-lab/dsse); the signature covers
its type and its bytes. Everything here is bounded before it is parsed.
"""

import base64
import binascii
import collections
import datetime
import hashlib
import json
import re
import time
from typing import Any, Dict, List, NamedTuple, Tuple

from .errors import BadSignature, Extraneous, TooLarge, WrongSoftware

MAX_DOCUMENT_BYTES = 2**20
MAX_ENVELOPE_BYTES = 2 * MAX_DOCUMENT_BYTES  # base64 and the signatures come on top
MAX_SIGNATURES = 64
MAX_VERSION = 2**53  # what every JSON reader holds exactly
_MAX_INTEGER_DIGITS = 20

_TYPE = "application/vnd.cryfed.%s+json"
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)Z\Z", re.ASCII)
_PEM = re.compile(
    r"\s*-----BEGIN PUBLIC KEY-----\s+([A-Za-z0-9+/=\s]{1,2000})-----END PUBLIC KEY-----\s*\Z", re.ASCII
)
# SubjectPublicKeyInfo of an uncompressed point on P-256 (RFC 5480): all of it but the 64 bytes of the point
_P256_PREFIX = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")

_COMMON = ("type", "fleet", "version", "issued", "expires")
_FIELDS = {
    "root": ("keys", "roles"),
    "release": ("release", "manifest", "name", "number", "hardware"),
    "signoff": ("release", "by", "statement"),
    "desired": ("root", "rings"),
    "report": ("device", "desired", "release", "slot", "state", "error", "health", "info"),
}
ROLES = ("root", "release", "clinical", "fleet")

Document = Dict[str, Any]


class Envelope(NamedTuple):
    """A signed document, its signatures not yet checked."""

    body: bytes
    signatures: Tuple[Tuple[str, bytes], ...]  # (key id, DER ECDSA signature)


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no blanks.

    Raises:
        ValueError: NaN, infinity, or text that is not Unicode.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def strict_json(data: bytes) -> Any:
    """Parse JSON that says one thing only.

    Raises:
        ValueError: not UTF-8, not JSON, a key given twice, NaN, a number beyond 20 digits, nested too deeply.
    """
    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_int=_bounded_int,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


def pae(kind: str, body: bytes) -> bytes:
    """The bytes that a signature of a document of this kind covers (DSSE's pre-authentication encoding)."""
    payload_type = (_TYPE % kind).encode("ascii")
    return b"DSSEv1 %d %s %d %s" % (len(payload_type), payload_type, len(body), body)


def parse_envelope(data: bytes, kind: str, where: str) -> Envelope:
    """An envelope that claims to hold a document of this kind.

    Raises:
        TooLarge: more bytes or signatures than any document may have.
        BadSignature: not an envelope, or one of another kind: nothing in it is signed as what was asked for.
    """
    if len(data) > MAX_ENVELOPE_BYTES:
        raise TooLarge(f"{where}: an envelope of {len(data)} bytes; at most {MAX_ENVELOPE_BYTES} are read")
    try:
        raw = strict_json(data)
    except ValueError as err:
        raise BadSignature(f"{where}: no signed document ({err})") from None
    if not isinstance(raw, dict) or set(raw) != {"payloadType", "payload", "signatures"}:
        raise BadSignature(f"{where}: no signed document (payloadType, payload and signatures, nothing else)")
    if raw["payloadType"] != _TYPE % kind:
        raise BadSignature(
            f"{where}: signed as {str(raw['payloadType'])[:80]!r}, where a {kind} document belongs"
        )
    listed = raw["signatures"]
    if not isinstance(listed, list):
        raise BadSignature(f"{where}: no list of signatures")
    if len(listed) > MAX_SIGNATURES:
        raise TooLarge(f"{where}: {len(listed)} signatures; at most {MAX_SIGNATURES} are looked at")
    signatures = []
    for entry in listed:
        if not isinstance(entry, dict) or set(entry) != {"keyid", "sig"}:
            raise BadSignature(f"{where}: a signature that is not keyid and sig")
        signatures.append((str(entry["keyid"]), _base64(entry["sig"], where)))
    body = _base64(raw["payload"], where)
    if len(body) > MAX_DOCUMENT_BYTES:
        raise TooLarge(f"{where}: a document of {len(body)} bytes; none may exceed {MAX_DOCUMENT_BYTES}")
    return Envelope(body, tuple(signatures))


def write_envelope(kind: str, body: bytes, signatures: List[Tuple[str, bytes]]) -> bytes:
    """The envelope of a document and its signatures, as bytes."""
    return canonical_json(
        {
            "payloadType": _TYPE % kind,
            "payload": base64.b64encode(body).decode("ascii"),
            "signatures": [{"keyid": k, "sig": base64.b64encode(s).decode("ascii")} for k, s in signatures],
        }
    )


def parse_document(body: bytes, kind: str, where: str) -> Document:
    """The document in a verified envelope: canonical, of this kind, no key too many or too few, its own fields in form.

    Raises:
        Extraneous: a key that its kind does not have, a device in two places.
        WrongSoftware: otherwise not of that form: it follows another version of the protocol.
    """
    try:
        document = strict_json(body)
        canonical = canonical_json(document)
    except ValueError as err:
        raise WrongSoftware(f"{where}: not a JSON document ({err})") from None
    if canonical != body:
        raise WrongSoftware(f"{where}: not canonical JSON (keys sorted, no blanks)")
    if not isinstance(document, dict):
        raise WrongSoftware(f"{where}: not a JSON object")
    _only(document, _COMMON + _FIELDS[kind], where)
    _need(document, _COMMON + _FIELDS[kind], where)
    if document["type"] != kind:
        raise WrongSoftware(f"{where}: of type {str(document['type'])[:40]!r}, where {kind} belongs")
    if not is_name(document["fleet"]):
        raise WrongSoftware(f"{where}: fleet is not a plain name")
    if not is_version(document["version"]):
        raise WrongSoftware(f"{where}: version is not an integer from 1 to 2^53")
    if time_of(document["issued"], where) > time_of(document["expires"], where):
        raise WrongSoftware(f"{where}: expires before it was issued")
    _CHECKS[kind](document, where)
    return document


def key_id(pem: str, where: str) -> Tuple[str, str]:
    """A P-256 public key's id (SHA-256 of its DER), and its PEM written anew, so that nothing but the key is in it.

    Raises:
        WrongSoftware: not exactly one P-256 public key.
    """
    match = _PEM.match(pem)
    try:
        der = base64.b64decode("".join(match.group(1).split()), validate=True) if match else b""
    except (binascii.Error, ValueError):
        der = b""
    if len(der) != len(_P256_PREFIX) + 64 or not der.startswith(_P256_PREFIX):
        raise WrongSoftware(f"{where}: not the PEM of one P-256 public key")
    text = base64.b64encode(der).decode("ascii")
    lines = [text[i : i + 64] for i in range(0, len(text), 64)]
    clean = "\n".join(["-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----", ""])
    return hashlib.sha256(der).hexdigest(), clean


def time_of(text: Any, where: str) -> int:
    """Seconds since the epoch of `YYYY-MM-DDTHH:MM:SSZ`.

    Raises:
        WrongSoftware: anything else.
    """
    match = _TIME.match(text) if isinstance(text, str) else None
    try:
        if match is None:
            raise ValueError
        year, month, day, hour, minute, second = map(int, match.groups())
        moment = datetime.datetime(year, month, day, hour, minute, second, tzinfo=datetime.timezone.utc)
        return int(moment.timestamp())
    except ValueError:
        raise WrongSoftware(f"{where}: {str(text)[:40]!r} is not a time like 2026-01-31T12:00:00Z") from None


def time_text(seconds: float) -> str:
    """`YYYY-MM-DDTHH:MM:SSZ` of seconds since the epoch."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def is_digest(value: Any) -> bool:
    """64 lower-case hex digits."""
    return isinstance(value, str) and _DIGEST.match(value) is not None


def is_name(value: Any) -> bool:
    """A plain name: letters, digits, dot, dash, underscore; safe as a part of a key."""
    return isinstance(value, str) and _NAME.match(value) is not None


def is_version(value: Any, least: int = 1) -> bool:
    """An integer that every JSON reader holds exactly (true is none)."""
    return type(value) is int and least <= value <= MAX_VERSION


def _check_root(document: Document, where: str) -> None:
    keys, roles = document["keys"], document["roles"]
    if not isinstance(keys, dict) or not isinstance(roles, dict):
        raise WrongSoftware(f"{where}: keys and roles are not objects")
    for name, pem in keys.items():
        if not isinstance(pem, str) or key_id(pem, where)[0] != name:
            raise WrongSoftware(f"{where}: key {name[:16]}… is filed under an id that is not its own")
    _only(roles, ROLES, where)
    _need(roles, ROLES, where)
    for role, entry in roles.items():
        place = f"{where}: role {role}"
        if not isinstance(entry, dict):
            raise WrongSoftware(f"{place} is not an object")
        _only(entry, ("keys", "threshold"), place)
        _need(entry, ("keys", "threshold"), place)
        listed = entry["keys"]
        if not isinstance(listed, list) or not all(isinstance(k, str) and k in keys for k in listed):
            raise WrongSoftware(f"{place} lists a key that the root does not have")
        if len(set(listed)) != len(listed):
            raise WrongSoftware(f"{place} lists a key twice")
        if not is_version(entry["threshold"]) or entry["threshold"] > len(listed):
            raise WrongSoftware(f"{place}: its threshold cannot be met by its {len(listed)} keys")


def _check_release(document: Document, where: str) -> None:
    manifest, hardware = document["manifest"], document["hardware"]
    if not isinstance(manifest, dict):
        raise WrongSoftware(f"{where}: manifest is not an object")
    _only(manifest, ("sha256", "size"), where)
    _need(manifest, ("sha256", "size"), where)
    if not is_digest(document["release"]) or not is_digest(manifest["sha256"]):
        raise WrongSoftware(f"{where}: release and manifest.sha256 are not SHA-256 digests")
    if not is_version(manifest["size"]) or not is_version(document["number"]):
        raise WrongSoftware(f"{where}: manifest.size and number are not integers from 1 to 2^53")
    if not is_name(document["name"]):
        raise WrongSoftware(f"{where}: name is not a plain name")
    if not isinstance(hardware, list) or not hardware or not all(is_name(h) for h in hardware):
        raise WrongSoftware(f"{where}: hardware is not a list of plain names")


def _check_signoff(document: Document, where: str) -> None:
    if not is_digest(document["release"]):
        raise WrongSoftware(f"{where}: release is not a SHA-256 digest")
    if not all(isinstance(document[k], str) and document[k].strip() for k in ("by", "statement")):
        raise WrongSoftware(f"{where}: it has to say who signs (by) and what (statement)")


def _check_desired(document: Document, where: str) -> None:
    rings = document["rings"]
    if not is_version(document["root"]):
        raise WrongSoftware(f"{where}: root is not an integer from 1 to 2^53")
    if not isinstance(rings, list):
        raise WrongSoftware(f"{where}: rings is not a list")
    listed = []  # type: List[str]
    for number, ring in enumerate(rings):
        place = f"{where}: ring {number}"
        if not isinstance(ring, dict):
            raise WrongSoftware(f"{place} is not an object")
        _only(ring, ("release", "devices", "rollback"), place)
        _need(ring, ("release", "devices"), place)
        if not is_digest(ring["release"]):
            raise WrongSoftware(f"{place}: release is not a SHA-256 digest")
        if not isinstance(ring["devices"], list) or not all(is_name(d) for d in ring["devices"]):
            raise WrongSoftware(f"{place}: devices is not a list of plain names")
        if not isinstance(ring.get("rollback", False), bool):
            raise WrongSoftware(f"{place}: rollback is not true or false")
        listed.extend(ring["devices"])
    twice = [device for device, times in collections.Counter(listed).items() if times > 1]
    if twice:
        raise Extraneous(f"{where}: {twice[0]} is listed more than once")


def _check_report(document: Document, where: str) -> None:
    if not is_name(document["device"]) or not is_version(document["desired"], least=0):
        raise WrongSoftware(f"{where}: device is not a plain name, or desired not a version")


_CHECKS = {
    "root": _check_root,
    "release": _check_release,
    "signoff": _check_signoff,
    "desired": _check_desired,
    "report": _check_report,
}


def _only(value: Dict[str, Any], allowed: Tuple[str, ...], where: str) -> None:
    extra = sorted(set(value) - set(allowed))
    if extra:
        raise Extraneous(f"{where}: unknown key {extra[0][:80]!r}; only {', '.join(allowed)} belong there")


def _need(value: Dict[str, Any], wanted: Tuple[str, ...], where: str) -> None:
    missing = [name for name in wanted if name not in value]
    if missing:
        raise WrongSoftware(f"{where}: {missing[0]} is missing")


def _base64(text: Any, where: str) -> bytes:
    try:
        if not isinstance(text, str):
            raise ValueError
        return base64.b64decode(text.encode("ascii"), validate=True)
    except ValueError:  # binascii.Error and UnicodeError are such
        raise BadSignature(f"{where}: no signed document (payload or signature is not base64)") from None


def _unique(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key is given twice")
    return made


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _bounded_int(digits: str) -> int:
    if len(digits) > _MAX_INTEGER_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)
