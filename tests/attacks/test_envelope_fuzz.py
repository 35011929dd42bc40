"""Envelopes of strangers: whatever comes, it is refused as one of our errors, or says exactly what the fleet signed."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Callable

import pytest

from infra.edge.trust.documents import DesiredDocument
from infra.edge.trust.envelope import MAX_ENVELOPE_BYTES, sign
from infra.edge.trust.trusted import Device, TrustedFleet
from models.errors import BadSignature, TrustError
from tests.fleets import FLEET, NOW, desired, key, root, signed, signoff

ROOT = signed(root(), "root-1")
DESIRED = desired(5)
GOOD = signed(DESIRED, "fleet-1")
SPLICES = (b"\x00", b"\xff\xfe", b'"', b"{", b"}", b"[" * 5000, b"]", b",", b"\\u0000", b"\\ud800", b"1e999", b"NaN", b"-0",
           b"9" * 5000, b"null", b"true", b'"keyid":"', b'"payload":""', b"\xef\xbb\xbf", "é".encode())  # fmt: skip
PEAK_BYTES = 8 * MAX_ENVELOPE_BYTES
WORST_BYTES = 128 * 2**20


def flip(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def cut(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    del data[start : start + rng.randint(1, len(data))]


def splice(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.choice(SPLICES)


def repeat(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    data[start:start] = data[start : start + rng.randint(1, 200)] * rng.randint(1, 20)


def restructure(data: bytearray, rng: random.Random) -> None:
    """Well-formed JSON with something else in it somewhere."""
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError):
        return
    other = json.loads(signed(signoff(), "clinical-1", "fleet-1"))
    values = [
        None,
        True,
        -1,
        10**30,
        "",
        "é" * 50,
        [],
        {},
        [[]] * 50,
        other["payload"],
        other["signatures"],
        other["payloadType"],
    ]
    signatures = raw.get("signatures")  # an earlier mutation may have made anything of it
    inside = [s for s in signatures if isinstance(s, dict) and s] if isinstance(signatures, list) else []
    place = raw if rng.random() < 0.6 or not inside else rng.choice(inside)
    if not isinstance(place, dict):
        return
    name = rng.choice([*place, "payload", "signatures", "extra"])
    if rng.random() < 0.2:
        place.pop(name, None)
    else:
        place[name] = rng.choice(values)
    data[:] = json.dumps(raw).encode()


def swell(data: bytearray, rng: random.Random) -> None:
    """Up to a little beyond the bound, now and then."""
    if rng.random() < 0.02:
        data[-1:-1] = b" " * rng.choice(
            [MAX_ENVELOPE_BYTES - len(data), MAX_ENVELOPE_BYTES, 10 * MAX_ENVELOPE_BYTES]
        )


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    flip,
    cut,
    splice,
    repeat,
    restructure,
    swell,
)


def spent(*, peak: bool = False) -> int:
    """Bytes held now, or at most since this was last asked without `peak`."""
    if not peak:
        tracemalloc.reset_peak()
    return tracemalloc.get_traced_memory()[int(peak)]


def fuzz(cases: int, seed: int) -> dict[str, int]:
    """How often each refusal came, and how often a mutant was accepted because it says the same."""
    rng = random.Random(seed)
    seen: dict[str, int] = {}
    for _ in range(cases):
        data = bytearray(GOOD)
        for _ in range(rng.randint(1, 3)):
            if data:
                rng.choice(MUTATIONS)(data, rng)
        view = TrustedFleet(ROOT, FLEET, Device("device-1", "any"), now=NOW)
        outcome, message, envelope = "accepted", "", bytes(data)
        before = spent()
        try:
            view.update_desired(envelope)
        except TrustError as err:
            outcome, message = type(err).__name__, str(err)
        assert spent(peak=True) - before < PEAK_BYTES
        assert view.desired == (DESIRED if outcome == "accepted" else None), envelope[:300]
        assert len(message) < 2000
        seen[outcome] = seen.get(outcome, 0) + 1
    return seen


def bounded(cases: int, seed: int) -> None:
    key("root-1"), key("fleet-1"), key("clinical-1")
    tracemalloc.start()
    try:
        seen = fuzz(cases, seed)
    finally:
        tracemalloc.stop()
    assert seen["BadSignature"] > cases // 2, seen
    assert seen["TooLarge"] > 0, seen
    assert 0 < seen["accepted"] < cases // 4, seen  # blanks between tokens, an unknown signature more


def test_a_thousand_mutants() -> None:
    bounded(1_000, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_mutants() -> None:
    bounded(100_000, seed=2)


def test_signed_rubbish_is_refused_too() -> None:
    """The fleet's own key over documents that are no documents: a stolen key must not crash a device."""
    rng = random.Random(3)
    for _ in range(1000):
        data = bytearray(DESIRED.to_bytes())
        for _ in range(rng.randint(1, 3)):
            if data:
                rng.choice((flip, cut, splice, repeat))(data, rng)
        made = sign(DesiredDocument.payload_type(), bytes(data), [key("fleet-1")]).to_bytes()
        view = TrustedFleet(ROOT, FLEET, Device("device-1", "any"), now=NOW)
        try:
            view.update_desired(made)
        except TrustError:
            continue
        assert view.desired is not None
        assert json.loads(data.decode()) == json.loads(view.desired.to_bytes())


@pytest.mark.parametrize("unit", [b"{},", b"[],", b'{"":0},'])
def test_the_json_that_takes_most_memory_takes_no_more_than_a_device_has(unit: bytes) -> None:
    """An empty object is 3 bytes on the wire and 64 in memory, so the bound on an envelope has to be low enough."""
    fill = unit * ((MAX_ENVELOPE_BYTES - 100) // len(unit))
    data = b'{"payloadType":"a","signatures":[],"payload":[' + fill[:-1] + b"]}"
    assert len(data) <= MAX_ENVELOPE_BYTES
    view = TrustedFleet(ROOT, FLEET, Device("device-1", "any"), now=NOW)
    tracemalloc.start()
    try:
        before = spent()
        with pytest.raises(BadSignature, match="its payload is no string"):
            view.update_desired(data)
        assert spent(peak=True) - before < WORST_BYTES
    finally:
        tracemalloc.stop()
