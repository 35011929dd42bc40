"""What travels between the server and a site: a header that pins the exchange, a small JSON body, and bytes.

    server → site   {"action": "train", "site": "ward3", "run": …, "round": 4, "attempt": 0, …} + θ
    site → server   the same header, word for word, a body with sums and losses, + the encoded update

A reply is accepted only when its header equals the request's, so an update of another round, schema, base model or
configuration can never be averaged. Sizes are bounded before anything is parsed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

from models.errors import FederationError, UpdateRejected

SITE_LOG: Final = "refusals.log"  # in a site's folder: what it refused, in full

PROTOCOL: Final = 2
MAX_HEADER_BYTES: Final = 4 * 1024
MAX_BODY_BYTES: Final = 64 * 1024

HELLO: Final = "hello"
KEYS: Final = "keys"
SHARE: Final = "share"
TRAIN: Final = "train"
CONFIRM: Final = "confirm"
UNMASK: Final = "unmask"
GATE: Final = "gate"
FEATURES: Final = "features"
CALIBRATE: Final = "calibrate"
TO_EVERYONE: Final = (HELLO, GATE)
"""Actions that introduce a site: they are sent to every node, before it is known which site a node speaks for."""


@dataclass(frozen=True)
class Header:
    """Everything both ends have to agree on before a payload means anything."""

    action: str
    site: str
    run: str  # digest of the job
    round: int
    attempt: int  # of the round, from 0: keys and masks belong to one attempt
    schema: str  # digest of the trainable vector's layout
    base: str  # digest of the frozen model
    config: str  # digest of the local step's configuration
    cv_epoch: int = 0  # of control variates: all begin from zero whenever it grows
    protocol: int = PROTOCOL


@dataclass(frozen=True)
class Envelope:
    """One message, either way."""

    header: Header
    body: Mapping[str, Any] = field(default_factory=dict)
    payload: bytes = b""
    refused: bool = False  # the body then holds `type` and `message` of the error

    @property
    def size(self) -> int:
        """Bytes of header, body and payload as they travel (transport framing excluded)."""
        return len(encode_header(self.header)) + len(encode_body(self.body)) + len(self.payload)


def refusal(header: Header, error: Exception, *, site: str) -> Envelope:
    """A site's typed answer that it will not do what was asked.

    Errors of the federation speak of the request. All others may name the site's files, groups and folders: of them only the
    type travels, the words stay in the site's log.
    """
    told = isinstance(error, FederationError)
    message = str(error)[:2000] if told else f"the reason stays at the site, in {SITE_LOG} of its own folder"
    body = {"site": site, "type": type(error).__name__, "message": message}
    return Envelope(header, body, refused=True)


def encode_header(header: Header) -> str:
    """Canonical JSON."""
    return json.dumps(asdict(header), sort_keys=True, separators=(",", ":"))


def encode_body(body: Mapping[str, Any]) -> str:
    """Canonical JSON; NaN and infinity are refused.

    Raises:
        FederationError: the body holds something JSON does not have.
    """
    try:
        return json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as err:
        raise FederationError(
            f"a message body is not JSON ({err}): send finite numbers, strings, lists and maps"
        ) from None


def decode_header(text: object) -> Header:
    """Parse a header from outside.

    Raises:
        UpdateRejected: too long, not JSON, a field missing, unknown or of the wrong type.
    """
    raw = _json_object(text, "header", MAX_HEADER_BYTES)
    expected = {f.name: f.type for f in fields(Header)}
    if set(raw) != set(expected):
        missing, unknown = sorted(set(expected) - set(raw)), sorted(set(raw) - set(expected))
        raise UpdateRejected(f"message header: missing fields {missing}, unknown fields {unknown}")
    for name, kind in expected.items():
        value, wanted = raw[name], int if kind == "int" else str
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise UpdateRejected(f"message header: {name} is {type(value).__name__}, not {kind}")
    return Header(**raw)


def decode_body(text: object) -> dict[str, Any]:
    """Parse a body from outside.

    Raises:
        UpdateRejected: too long, not a JSON object, or a number that is not finite.
    """
    return _json_object(text, "body", MAX_BODY_BYTES)


def check_reply(request: Header, reply: Envelope) -> None:
    """The reply belongs to the request.

    Raises:
        UpdateRejected: some field differs; the message names each with both values.
    """
    want, got = asdict(request), asdict(reply.header)
    wrong = [
        f"{name} {_short(got[name])} instead of {_short(want[name])}"
        for name in want
        if got[name] != want[name]
    ]
    if wrong:
        raise UpdateRejected(
            f"site {request.site!r}, round {request.round}: the reply carries {'; '.join(wrong)}"
        )


def _json_object(text: object, what: str, limit: int) -> dict[str, Any]:
    if not isinstance(text, str):
        raise UpdateRejected(f"message {what} is {type(text).__name__}, not JSON text")
    if len(text) > limit:
        raise UpdateRejected(f"message {what} has {len(text)} characters, more than the {limit} allowed")
    try:
        raw = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as err:
        raise UpdateRejected(f"message {what} is not JSON: {err}") from None
    if not isinstance(raw, dict):
        raise UpdateRejected(f"message {what} is a JSON {type(raw).__name__}, not an object")
    return raw


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number that may travel")


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:12]}…" if len(text) > 16 else repr(value)
