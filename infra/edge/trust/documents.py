"""The documents of a fleet: what each holds, within which bounds, and as which bytes (docs/edge-protocol.md).

    root      which keys hold which role            signed by root (and by the root before)
    release   a release is ours                     release
    signoff   it may be used on this fleet          clinical
    desired   which devices are to run which        fleet
    report    what a device did                     the device's own key

    inventory which devices there are                fleet; read by the deploy flow alone

A document is canonical JSON. An unknown key is refused everywhere: it would be a rule that this version silently does not follow.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from infra.digest import canonical_json
from infra.edge.trust.envelope import MAX_PAYLOAD_BYTES
from infra.edge.trust.keys import MAX_KEY_BYTES, PublicKey, read_public
from infra.edge.trust.strict_json import parse_object
from models.errors import Extraneous, TooLarge, WrongSoftware

Role = Literal["root", "release", "clinical", "fleet"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)

Kind = Literal[
    "BadSignature", "Rollback", "FastForward", "Expired", "TooLarge", "MixAndMatch", "WrongSoftware", "TooSlow",
    "Extraneous", "KeyRevoked", "NoSignOff", "BuildFailed", "Unhealthy", "NoSpace", "StoreUnreachable",
]  # fmt: skip

MAX_VERSION: Final = 2**53
"""Beyond it JSON's numbers are not exact for every reader."""
MAX_KEYS: Final = 64
MAX_RINGS: Final = 64

_EXTRANEOUS: Final = "extra_forbidden"  # pydantic's own name for an unknown key
_TIME: Final = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z", re.ASCII)


def to_text(moment: datetime) -> str:
    """`YYYY-MM-DDTHH:MM:SSZ`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _moment(value: Any) -> datetime:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("a time needs its zone")
        return value.astimezone(UTC).replace(microsecond=0)
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        raise ValueError("a time is written YYYY-MM-DDTHH:MM:SSZ")
    return datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def _public_pem(pem: str) -> str:
    read_public(pem)
    return pem


Moment = Annotated[datetime, BeforeValidator(_moment), PlainSerializer(to_text, return_type=str)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}\z")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}\z")]
Number = Annotated[int, Field(ge=1, le=MAX_VERSION)]
Pem = Annotated[str, Field(max_length=MAX_KEY_BYTES), AfterValidator(_public_pem)]
Finite = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Document(_Strict):
    """What every signed document has."""

    role: ClassVar[Role | None] = None

    type: str
    fleet: Name
    version: Number
    issued: Moment
    expires: Moment

    @model_validator(mode="after")
    def _in_order(self) -> Document:
        if self.expires <= self.issued:
            raise ValueError("it expires before it is issued")
        return self

    @classmethod
    def kind(cls) -> str:
        """The value of `type`."""
        return str(get_args(cls.model_fields["type"].annotation)[0])

    @classmethod
    def payload_type(cls) -> str:
        """The envelope's payloadType."""
        return f"application/vnd.cryfed.{cls.kind()}+json"

    def to_bytes(self) -> bytes:
        """Canonical JSON: what is signed."""
        return canonical_json(self.model_dump(mode="json"))


class RoleKeys(_Strict):
    """Who holds a role, and how many of them have to sign."""

    keys: Annotated[tuple[Sha256, ...], Field(min_length=1, max_length=MAX_KEYS)]
    threshold: int = Field(ge=1, le=MAX_KEYS)

    @model_validator(mode="after")
    def _possible(self) -> RoleKeys:
        if len(set(self.keys)) != len(self.keys):
            raise ValueError("a key is listed twice")
        if self.threshold > len(self.keys):
            raise ValueError(f"{self.threshold} of {len(self.keys)} keys can never sign")
        return self


class RootDocument(Document):
    """Which keys hold which role."""

    role = "root"

    type: Literal["root"] = "root"
    keys: Annotated[dict[Sha256, Pem], Field(max_length=4 * MAX_KEYS)]
    roles: dict[Role, RoleKeys]

    @model_validator(mode="after")
    def _complete(self) -> RootDocument:
        if set(self.roles) != set(ROLES):
            raise ValueError(f"it names the roles {sorted(self.roles)}; a root names exactly {sorted(ROLES)}")
        for keyid, pem in self.keys.items():
            # of the key as we would write it: see infra.edge.trust.keys
            if read_public(pem).keyid != keyid:
                raise ValueError(f"key {keyid[:16]} is filed under an id that is not its own")
        used = {k for role in self.roles.values() for k in role.keys}
        if used != set(self.keys):
            raise ValueError(f"keys and roles do not match: {sorted(k[:16] for k in used ^ set(self.keys))}")
        return self

    def role_keys(self, role: Role) -> list[PublicKey]:
        """The keys that hold a role."""
        return [_read(self.keys[k]) for k in self.roles[role].keys]

    def threshold(self, role: Role) -> int:
        """How many of them have to sign."""
        return self.roles[role].threshold


class ManifestReference(_Strict):
    """The bytes at `manifests/<digest>.json`."""

    sha256: Sha256
    size: int = Field(ge=2, le=16 * 2**20)


class ReleaseDocument(Document):
    """A release is ours."""

    role = "release"

    type: Literal["release"] = "release"
    release: Sha256
    manifest: ManifestReference
    name: Name
    number: Number
    hardware: Annotated[tuple[Name, ...], Field(min_length=1, max_length=64)] = ("any",)

    def runs_on(self, hardware: str) -> bool:
        """Whether it is for a device of this hardware."""
        return "any" in self.hardware or hardware in self.hardware


class SignoffDocument(Document):
    """A named clinician answers for the use of a release on this fleet."""

    role = "clinical"

    type: Literal["signoff"] = "signoff"
    release: Sha256
    by: str = Field(min_length=1, max_length=200)
    statement: str = Field(min_length=10, max_length=10_000)


class Ring(_Strict):
    """Devices that are to run one release."""

    release: Sha256
    devices: tuple[Name, ...]
    rollback: bool = Field(False, description="a lower number than the running one is meant")


class DesiredDocument(Document):
    """Which devices are to run which release. A device in no ring keeps what it has."""

    role = "fleet"

    type: Literal["desired"] = "desired"
    root: Number
    rings: Annotated[tuple[Ring, ...], Field(max_length=MAX_RINGS)]

    @model_validator(mode="after")
    def _once(self) -> DesiredDocument:
        listed = Counter(device for ring in self.rings for device in ring.devices)
        for device, times in listed.items():
            if times > 1:
                raise PydanticCustomError(
                    _EXTRANEOUS, "device {device} is listed more than once", {"device": device}
                )
        return self

    def ring_of(self, device: str) -> Ring | None:
        """The ring of a device, None where it is in none."""
        return next((ring for ring in self.rings if device in ring.devices), None)


class Failure(_Strict):
    """Why a device refused, or what failed."""

    kind: Kind
    message: str = Field(max_length=2000)


class Health(_Strict):
    """The golden clips through the built engine."""

    max_difference: Finite
    argmax_agreement: Annotated[float, Field(ge=0, le=1)]
    p50_ms: Finite
    p95_ms: Finite
    backend: str = Field(max_length=64)


class ReportDocument(Document):
    """What a device says of itself."""

    type: Literal["report"] = "report"
    device: Name
    desired: int = Field(ge=0, le=MAX_VERSION)
    release: Sha256 | None
    slot: Literal["a", "b"] | None
    state: Literal["running", "installing", "rolled back", "refused"]
    error: Failure | None = None
    health: Health | None = None
    info: Annotated[dict[Name, str | int | float | bool | None], Field(max_length=64)] = {}


class InventoryDevice(_Strict):
    """A device as the deploy flow knows it."""

    hardware: Name
    key: Pem


MAX_INVENTORY_BYTES: Final = 16 * 2**20
"""About 50,000 devices with their keys; the documents that devices read are bounded to 1 MiB."""


class Inventory(_Strict):
    """Which devices there are, and the keys that their reports are verified with. No device reads it, so it does not expire.

    Signed by the fleet role: a store that gave devices other keys could report for them, that all is well or that nothing is.
    """

    payload_type: ClassVar[str] = "application/vnd.cryfed.inventory+json"

    type: Literal["inventory"] = "inventory"
    fleet: Name
    version: Number
    devices: dict[Name, InventoryDevice] = {}

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return canonical_json(self.model_dump(mode="json"))


AnyModel = TypeVar("AnyModel", bound=_Strict)


def parse(
    model: type[AnyModel], payload: bytes, where: str, *, max_bytes: int = MAX_PAYLOAD_BYTES
) -> AnyModel:
    """Read a document whose signature has been verified.

    Raises:
        TooLarge: more than `max_bytes`, 1 MiB for whatever is signed.
        Extraneous: it has a key that its kind does not have.
        WrongSoftware: something is missing or out of bounds: it follows another version of the protocol.
    """
    if len(payload) > max_bytes:
        raise TooLarge(f"{where}: {len(payload)} bytes; no document has more than {max_bytes}")
    try:
        # a key given twice, NaN and the like would pass the model; other bytes for the same document, other readers
        if canonical_json(parse_object(payload)) != payload:
            raise ValueError("not canonical JSON (keys sorted, no blanks)")
        return model.model_validate_json(payload)
    except ValidationError as err:
        found = err.errors(include_url=False, include_input=False)
        lines = [f"{'.'.join(str(p)[:64] for p in e['loc']) or 'document'}: {e['msg']}" for e in found[:3]]
        message = f"{where} is not as the protocol has it: {'; '.join(lines)}"
        if any(e["type"] == _EXTRANEOUS for e in found):
            raise Extraneous(message) from None
        raise WrongSoftware(message) from None
    except (ValueError, RecursionError) as err:
        raise WrongSoftware(f"{where} is not as the protocol has it: {err}") from None


@lru_cache(maxsize=1024)
def _read(pem: str) -> PublicKey:
    return read_public(pem)
