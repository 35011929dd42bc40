"""What a device tells its fleet: one signed document, replaced each time. Pure but for the signature it is given."""

from typing import Any, Callable, Dict, NamedTuple, Optional

from .documents import canonical_json, pae, time_text, write_envelope
from .errors import Refused

RUNNING, INSTALLING, ROLLED_BACK, REFUSED = "running", "installing", "rolled back", "refused"
_VALID_S = 30 * 86400
_MAX_MESSAGE = 500

Sign = Callable[[bytes], bytes]  # message → DER signature of the device's key
Health = Dict[str, Any]


class Status(NamedTuple):
    """What there is to say, without time and number."""

    desired: int  # the desired state accepted last, 0 before the first
    release: Optional[str]  # what runs, None where nothing does
    slot: Optional[str]
    state: str
    error: Optional[Dict[str, str]]
    health: Optional[Health]


def error_of(err: Refused) -> Dict[str, str]:
    """A refusal for the report: one line, bounded."""
    return {"kind": err.kind, "message": " ".join(str(err).split())[:_MAX_MESSAGE]}


def write_report(
    status: Status,
    fleet: str,
    device: str,
    version: int,
    now: float,
    key_id: str,
    sign: Sign,
    info: Dict[str, Any],
) -> bytes:
    """The signed envelope of a report; `version` is one higher each time, `now` in epoch seconds, `info` for people."""
    document = {
        "type": "report",
        "fleet": fleet,
        "version": version,
        "issued": time_text(now),
        "expires": time_text(now + _VALID_S),
        "device": device,
        "desired": status.desired,
        "release": status.release,
        "slot": status.slot,
        "state": status.state,
        "error": status.error,
        "health": status.health,
        "info": info,
    }
    body = canonical_json(document)
    return write_envelope("report", body, [(key_id, sign(pae("report", body)))])


def report_key(fleet: str, device: str) -> str:
    """Where a device's report lies in the store."""
    return f"fleets/{fleet}/reports/{device}.json"
