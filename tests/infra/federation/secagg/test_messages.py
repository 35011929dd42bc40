"""Every message: its exact size, its round trip, and that anything else is a typed refusal."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.federation.secagg import messages as m
from models.errors import UpdateRejected
from tests.infra.federation.secagg.world import World, make_context

CONTEXT = make_context()
D = CONTEXT.digest
KINDS = (
    m.Announcement,
    m.KeyList,
    m.Shares,
    m.Delivery,
    m.MaskedVector,
    m.Survivors,
    m.Confirmation,
    m.Confirmations,
    m.Reveal,
)


def samples() -> dict[type[m.Message], m.Message]:
    signature, sealed, share = b"s" * 64, b"e" * 94, b"\x00" + b"h" * 32
    return {
        m.Announcement: m.Announcement(D, 1, b"c" * 32, b"m" * 32, b"b" * 32, signature),
        m.KeyList: m.KeyList(D, {i: bytes([i]) * 160 for i in range(5)}),
        m.Shares: m.Shares(D, 1, dict.fromkeys((0, 2, 3, 4), sealed)),
        m.Delivery: m.Delivery(D, dict.fromkeys((0, 3, 4), sealed)),
        m.MaskedVector: m.MaskedVector(D, 1, b"v" * (9 + 8), signature),
        m.Survivors: m.Survivors(D, dict.fromkeys((0, 1, 3, 4), b"d" * 32)),
        m.Confirmation: m.Confirmation(D, 1, signature),
        m.Confirmations: m.Confirmations(D, dict.fromkeys((0, 1, 3, 4), signature)),
        m.Reveal: m.Reveal(D, 1, dict.fromkeys((0, 1, 3, 4), share), {2: share}),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(kind: type[m.Message]) -> None:
    message = samples()[kind]
    data = message.to_bytes()
    assert len(data) <= kind.max_bytes(CONTEXT)
    assert kind.from_bytes(data, CONTEXT) == message


def test_sizes() -> None:
    """Head 37 = mark 4 + kind 1 + digest 32; a number or a count is 2; of 5 sites, sections of 6·11 and 2·32 bits."""
    sizes = {kind.__name__: len(message.to_bytes()) for kind, message in samples().items()}
    assert sizes == {
        "Announcement": 37 + 2 + 160,
        "KeyList": 37 + 2 + 5 * 162,
        "Shares": 37 + 2 + 2 + 4 * (2 + 94),
        "Delivery": 37 + 2 + 3 * 96,
        "MaskedVector": 37 + 2 + 64 + 9 + 8,
        "Survivors": 37 + 2 + 4 * 34,
        "Confirmation": 37 + 2 + 64,
        "Confirmations": 37 + 2 + 4 * 66,
        "Reveal": 37 + 2 + 2 + 4 * 35 + 2 + 35,
    }


def test_kinds_differ() -> None:
    assert len({kind.KIND for kind in KINDS}) == len(KINDS)
    for kind in KINDS:
        for other, message in samples().items():
            if other is not kind:
                with pytest.raises(UpdateRejected):
                    kind.from_bytes(message.to_bytes(), CONTEXT)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "change", [{"run": "e" * 64}, {"round": 4}, {"attempt": 1}, {"cv_epoch": 2}, {"clip": 2.0}]
)
def test_a_message_of_another_context_is_refused(kind: type[m.Message], change: dict[str, object]) -> None:
    with pytest.raises(UpdateRejected, match="another run, round, attempt"):
        kind.from_bytes(samples()[kind].to_bytes(), make_context(**change))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_every_cut_and_every_addition_is_refused(kind: type[m.Message]) -> None:
    data = samples()[kind].to_bytes()
    for size in range(len(data)):
        with pytest.raises(UpdateRejected):
            kind.from_bytes(data[:size], CONTEXT)
    with pytest.raises(UpdateRejected):
        kind.from_bytes(data + b"\x00", CONTEXT)
    with pytest.raises(UpdateRejected, match="more than the"):
        kind.from_bytes(data + b"x" * 4000, CONTEXT)


@pytest.mark.parametrize("kind", KINDS)
@given(noise=st.binary(max_size=300), keep=st.booleans())
def test_noise_is_refused_and_never_raises_anything_else(
    kind: type[m.Message], noise: bytes, keep: bool
) -> None:
    head = samples()[kind].to_bytes()[:37] if keep else b""
    try:
        message = kind.from_bytes(head + noise, CONTEXT)
    except UpdateRejected:
        return
    assert message.to_bytes() == head + noise


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_a_flipped_byte_is_refused_or_shows(kind: type[m.Message], data: st.DataObject) -> None:
    raw = bytearray(samples()[kind].to_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        message = kind.from_bytes(bytes(raw), CONTEXT)
    except UpdateRejected:
        return
    assert message != samples()[kind]


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        (b"\x00\x02" + b"\x00\x01" + b"d" * 32 + b"\x00\x01" + b"d" * 32, "repeats a site"),
        (b"\x00\x02" + b"\x00\x02" + b"d" * 32 + b"\x00\x01" + b"d" * 32, "out of order"),
        (b"\x00\x01" + b"\x00\x05" + b"d" * 32, "site number 5"),
        (b"\x00\x06", "6 entries for 5 sites"),
        (b"\xff\xff", "entries"),
    ],
)
def test_malformed_tables(entries: bytes, says: str) -> None:
    head = m.Survivors(D, {}).to_bytes()[:-2]
    with pytest.raises(UpdateRejected, match=says):
        m.Survivors.from_bytes(head + entries, CONTEXT)


def test_a_sender_outside_the_cohort_is_refused() -> None:
    message = m.Confirmation(D, 5, b"s" * 64)
    with pytest.raises(UpdateRejected, match="site number 5"):
        m.Confirmation.from_bytes(message.to_bytes(), CONTEXT)


def test_no_share_and_no_vector_in_a_repr() -> None:
    for kind in (m.Shares, m.Delivery, m.MaskedVector, m.Reveal):
        assert all(part not in repr(samples()[kind]) for part in ("eeee", "hhhh", "vvvv"))


@cache
def _finished() -> World:
    return World(CONTEXT).announce().share().mask([0, 1, 3, 4]).confirm().unmask()


def test_real_messages_have_the_sizes_announced() -> None:
    world = _finished()
    assert len(world.key_list.to_bytes()) == m.KeyList.max_bytes(CONTEXT)
    site = world.sites[0]
    assert site.reveal is not None
    assert len(site.reveal.to_bytes()) == 37 + 2 + 2 + 4 * 35 + 2 + 35
    assert replace(site.reveal) == site.reveal
