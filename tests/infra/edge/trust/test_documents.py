"""Documents: the bytes they become, and every bound."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.digest import canonical_json
from infra.edge.trust.documents import (
    DesiredDocument,
    Inventory,
    InventoryDevice,
    ReleaseDocument,
    ReportDocument,
    Ring,
    RootDocument,
    SignoffDocument,
    parse,
)
from models.errors import Extraneous, TooLarge, TrustError, WrongSoftware
from tests.fleets import FLEET, RELEASE, desired, key, release, root, signoff, terms

NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)
DIGESTS = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2080, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


def test_the_bytes_by_hand() -> None:
    made = DesiredDocument(
        fleet="a",
        version=7,
        root=2,
        issued=datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
        expires=datetime(2026, 2, 2, 1, 0, 0, tzinfo=UTC),
        rings=(Ring(release="0" * 64, devices=("x",)),),
    )
    assert made.to_bytes() == (
        b'{"expires":"2026-02-02T01:00:00Z","fleet":"a","issued":"2026-01-02T03:04:05Z",'
        b'"rings":[{"devices":["x"],"release":"' + b"0" * 64 + b'","rollback":false}],'
        b'"root":2,"type":"desired","version":7}'
    )
    assert made.payload_type() == "application/vnd.cryfed.desired+json"


@settings(deadline=None)
@given(
    fleet=NAMES, version=st.integers(1, 2**53), issued=MOMENTS, seconds=st.integers(1, 10**8), under=st.integers(1, 2**53),
    rings=st.lists(st.tuples(DIGESTS, st.lists(NAMES, max_size=4), st.booleans()), max_size=4),
)  # fmt: skip
def test_a_desired_state_comes_back_as_it_was(
    fleet: str,
    version: int,
    issued: datetime,
    seconds: int,
    under: int,
    rings: list[tuple[str, list[str], bool]],
) -> None:
    seen: set[str] = set()
    made = DesiredDocument(
        fleet=fleet,
        version=version,
        issued=issued,
        expires=issued.replace(microsecond=0) + timedelta(seconds=seconds),
        root=under,
        rings=tuple(
            Ring(
                release=r,
                devices=tuple(d for d in dict.fromkeys(ds) if not (d in seen or seen.add(d))),
                rollback=b,
            )
            for r, ds, b in rings
        ),
    )
    data = made.to_bytes()
    again = parse(DesiredDocument, data, "it")
    assert again == made
    assert again.to_bytes() == data == canonical_json(json.loads(data))
    for device in seen:
        assert device in again.ring_of(device).devices  # type: ignore[union-attr]


@settings(deadline=None)
@given(by=st.text(min_size=1, max_size=200), statement=st.text(min_size=10, max_size=300))
def test_a_statement_may_be_in_any_script(by: str, statement: str) -> None:
    made = signoff(by=by, statement=statement)
    assert parse(SignoffDocument, made.to_bytes(), "it") == made


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
MODELS = {m.kind(): (m, d) for m, d in [
    (DesiredDocument, desired()), (ReleaseDocument, release()), (SignoffDocument, signoff()), (RootDocument, root()),
]}  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(sorted(MODELS)), st.data())
def test_any_field_replaced_by_anything_is_read_or_refused(kind: str, data: st.DataObject) -> None:
    """Never another exception, and what is read says the same again."""
    model, document = MODELS[kind]
    raw = document.model_dump(mode="json")
    raw[data.draw(st.sampled_from(sorted(raw)))] = data.draw(JSON)
    payload = canonical_json(raw)
    try:
        again = parse(model, payload, "it")
    except TrustError:
        return
    assert parse(model, again.to_bytes(), "it") == again


def altered(document: Any, *path: Any, value: Any) -> bytes:
    raw = document.model_dump(mode="json")
    place = raw
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return canonical_json(raw)


@pytest.mark.parametrize(
    ("path", "value", "kind"),
    [
        (("version",), 0, WrongSoftware),
        (("version",), 2**53 + 1, WrongSoftware),
        (("version",), True, WrongSoftware),
        (("version",), "1", WrongSoftware),
        (("version",), 1.0, WrongSoftware),
        (("fleet",), "Ward A", WrongSoftware),
        (("fleet",), "ward-a\n", WrongSoftware),
        (("fleet",), "../b", WrongSoftware),
        (("type",), "release", WrongSoftware),
        (("issued",), "2026-11-26", WrongSoftware),
        (("issued",), "2026-13-26T00:00:00Z", WrongSoftware),
        (("issued",), "2026-11-26T00:00:00+01:00", WrongSoftware),
        (("issued",), 1_700_000_000, WrongSoftware),
        (("expires",), "2000-01-01T00:00:00Z", WrongSoftware),
        (("rings", 0, "release"), "AB" * 32, WrongSoftware),
        (("rings", 0, "devices"), "device-1", WrongSoftware),
        (("rings", 0, "devices"), ["a", "a"], Extraneous),
        (("rings", 0, "rollback"), 1, WrongSoftware),
        (("rings", 0, "force"), True, Extraneous),
        (("sudo",), True, Extraneous),
        (("rings",), [{"release": RELEASE, "devices": []}] * 65, WrongSoftware),
    ],
)  # fmt: skip
def test_bounds_of_a_desired_state(path: tuple[Any, ...], value: Any, kind: type[TrustError]) -> None:
    parse(DesiredDocument, desired().to_bytes(), "it")
    with pytest.raises(TrustError, match="the state is not as the protocol has it") as caught:
        parse(DesiredDocument, altered(desired(), *path, value=value), "the state")
    assert type(caught.value) is kind


def test_a_key_given_twice_is_refused() -> None:
    data = desired().to_bytes()
    with pytest.raises(WrongSoftware, match="given twice"):
        parse(DesiredDocument, data[:-1] + b',"version":1}', "it")


def test_other_bytes_for_the_same_document_are_refused() -> None:
    raw = json.loads(desired().to_bytes())
    for data in (
        json.dumps(raw).encode(),
        desired().to_bytes() + b"\n",
        canonical_json(raw).replace(b"-1", b"\\u002d1"),
    ):
        with pytest.raises(WrongSoftware, match="not canonical JSON"):
            parse(DesiredDocument, data, "it")


def test_size_is_bounded() -> None:
    with pytest.raises(TooLarge):
        parse(DesiredDocument, desired().to_bytes() + b" " * 2**20, "it")


def test_a_root_names_every_role_with_keys_that_can_sign() -> None:
    whole = root()
    own = whole.roles["root"].keys[0]
    for path, value in [
        (("roles", "clinical"), {"keys": [], "threshold": 1}),
        (("roles", "clinical"), {"keys": [own], "threshold": 2}),
        (("roles", "clinical"), {"keys": [own], "threshold": 0}),
        (("roles", "clinical"), {"keys": [own, own], "threshold": 1}),
        (
            ("roles", "clinical"),
            {"keys": ["0" * 64], "threshold": 1},
        ),  # no such key, and one that no role uses
        (("roles", "admin"), {"keys": [own], "threshold": 1}),
        (("keys", own), key("other").public.pem),
        (("keys", own), "-----BEGIN PUBLIC KEY-----"),
        (("keys", key("unused").keyid), key("unused").public.pem),
    ]:
        with pytest.raises(TrustError):
            parse(RootDocument, altered(whole, *path, value=value), "it")
    raw = whole.model_dump(mode="json")
    del raw["roles"]["fleet"]
    with pytest.raises(TrustError):
        parse(RootDocument, canonical_json(raw), "it")


def test_a_report_says_what_went_wrong_in_the_protocols_words() -> None:
    made = ReportDocument(
        fleet=FLEET, version=1, **terms(), device="device-1", desired=3, release=None, slot=None, state="refused",
        error={"kind": "TooSlow", "message": "900 bytes/s for 60 s"}, info={"temperature_c": 41.5},
    )  # fmt: skip
    assert parse(ReportDocument, made.to_bytes(), "it") == made
    with pytest.raises(WrongSoftware):
        parse(ReportDocument, altered(made, "error", "kind", value="Oops"), "it")
    with pytest.raises(WrongSoftware):
        parse(ReportDocument, altered(made, "state", value="fine"), "it")


def test_an_inventory_holds_devices_with_usable_keys() -> None:
    made = Inventory(
        fleet=FLEET, version=1, devices={"d": InventoryDevice(hardware="any", key=key("d").public.pem)}
    )
    assert parse(Inventory, made.to_bytes(), "it") == made
    with pytest.raises(WrongSoftware):
        parse(Inventory, altered(made, "devices", "d", "key", value="x"), "it")
