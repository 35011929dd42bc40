"""What the server accepts, what it refuses, and what it recovers when shares are wrong."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.federation.secagg.blobs import read_blobs, write_blobs
from infra.federation.secagg.messages import Confirmation, FromSite, MaskedVector, Reveal, Shares, Survivors
from infra.federation.secagg.recovery import recover
from infra.federation.secagg.server import ServerRound, Stage
from infra.federation.secagg.shamir import split
from infra.federation.secagg.statements import announce
from models.errors import FederationError, RoundSkipped, UpdateRejected
from tests.infra.federation.secagg.world import World, identity, make_context, plain_sum, site_name

CONTEXT = make_context()  # n = 5, t = 4


@cache
def _world(*stages: str) -> World:
    """Site 4 drops before it masks."""
    world = World(CONTEXT)
    for stage in stages:
        getattr(world, stage)([0, 1, 2, 3] if stage == "mask" else None)
    return world


def _at(stage: Stage) -> World:
    return _world(*("announce", "share", "mask", "confirm", "unmask")[:stage]).fork()


def _message(stage: Stage, site: int) -> FromSite:
    """The site's honest message of a stage."""
    world = _at(stage)
    state = world.sites.get(site)
    if stage is Stage.KEYS:
        announcement = _world("announce").sites[site].announcement
        assert announcement is not None
        return announcement
    assert state is not None
    if stage is Stage.SHARES:
        return state.share(world.key_list)[1]
    if stage is Stage.VECTORS:
        return world.masked(site)[1]
    if stage is Stage.CONFIRMATIONS:
        return state.confirm(world.survivors, identity(site), state.spent)[1]
    return state.unmask(world.confirmations)[1]


@pytest.mark.parametrize("stage", list(Stage))
def test_a_message_counts_once_and_only_in_its_stage(stage: Stage) -> None:
    message, server = _message(stage, 1), _at(stage).server
    once = server.receive("ward1", message)
    assert once.receive("ward1", message).to_bytes() == once.to_bytes()
    for other in Stage:
        if other is not stage:
            with pytest.raises(UpdateRejected):
                _at(other).server.receive("ward1", message)


@pytest.mark.parametrize("stage", list(Stage))
def test_a_message_of_someone_else_is_refused(stage: Stage) -> None:
    message, server = _message(stage, 1), _at(stage).server
    with pytest.raises(UpdateRejected, match="message of another site"):
        server.receive("ward2", message)
    with pytest.raises(UpdateRejected, match="not in the cohort"):
        server.receive("ward9", message)
    with pytest.raises(UpdateRejected, match="another site, run, round, attempt"):
        server.receive("ward1", replace(message, context=make_context(attempt=1).digest))


def test_a_message_that_contradicts_the_first_is_refused() -> None:
    other = announce(identity(1), CONTEXT, 1, b"\x09" * 32, b"\x0a" * 32, b"c" * 32)
    with pytest.raises(UpdateRejected, match="contradicts"):
        ServerRound.open(CONTEXT).receive("ward1", _message(Stage.KEYS, 1)).receive("ward1", other)
    for stage in (Stage.SHARES, Stage.VECTORS, Stage.REVEALS):
        server = _at(stage).server.receive("ward1", message := _message(stage, 1))
        with pytest.raises(UpdateRejected):
            server.receive("ward1", _altered(message))


def _altered(message: FromSite) -> FromSite:
    match message:
        case Shares():
            return replace(message, sealed={i: bytes(94) for i in message.sealed})
        case MaskedVector():
            return replace(message, payload=bytes(len(message.payload)))
        case Confirmation():
            return replace(message, signature=bytes(64))
        case Reveal():
            return replace(message, self_masks={i: bytes(33) for i in message.self_masks})
    raise AssertionError


def test_content_that_is_refused() -> None:
    keys, shares, vector = (_message(stage, 1) for stage in (Stage.KEYS, Stage.SHARES, Stage.VECTORS))
    reveal = _message(Stage.REVEALS, 1)
    assert isinstance(shares, Shares)
    assert isinstance(vector, MaskedVector)
    assert isinstance(reveal, Reveal)
    cases: list[tuple[Stage, FromSite, str]] = [
        (Stage.KEYS, replace(keys, mask_key=b"\x09" * 32), "'announced keys' does not verify"),
        (Stage.KEYS, announce(identity(1), CONTEXT, 1, bytes(32), b"\x09" * 32, b"c" * 32), "small order"),
        (Stage.SHARES, replace(shares, sealed={0: shares.sealed[0]}), "for all others"),
        (Stage.SHARES, replace(shares, sealed={**shares.sealed, 1: bytes(94)}), "for all others"),
        (Stage.VECTORS, _altered(vector), "'masked vector' does not verify"),
        (Stage.CONFIRMATIONS, _altered(_message(Stage.CONFIRMATIONS, 1)), "'survivor set' does not verify"),
        (Stage.REVEALS, replace(reveal, pair_keys={}), "must reveal"),
        (
            Stage.REVEALS,
            replace(reveal, pair_keys=reveal.self_masks, self_masks=reveal.pair_keys),
            "must reveal",
        ),
        (Stage.REVEALS, replace(reveal, pair_keys={4: b"\xff" * 33}), "not an element"),
    ]
    for stage, message, says in cases:
        server = _at(stage).server
        before = server.to_bytes()
        with pytest.raises(UpdateRejected, match=says):
            server.receive("ward1", message)
        assert server.to_bytes() == before


def test_a_site_that_missed_a_stage_stays_out() -> None:
    world = World(CONTEXT).announce([0, 1, 2, 3])
    with pytest.raises(UpdateRejected, match="missed an earlier stage"):
        world.server.receive("ward4", Shares(CONTEXT.digest, 4, {i: bytes(94) for i in range(4)}))
    late = _at(Stage.VECTORS).masked(4)[1]
    with pytest.raises(UpdateRejected, match="missed an earlier stage"):
        _at(Stage.CONFIRMATIONS).server.receive("ward4", late)


def test_a_closed_stage_gives_the_same_again() -> None:
    """As after a crash: whatever stage the server is in, and with U fixed for good."""
    last = _world("announce", "share", "mask", "confirm", "unmask")
    for server in (last.server, ServerRound.from_bytes(last.server.to_bytes())):
        assert server.close_keys()[1] == last.key_list
        assert server.close_shares()[1] == last.deliveries
        assert server.close_vectors()[1] == last.survivors
        assert server.close_confirmations()[1] == last.confirmations
        assert [s.tolist() for s in server.total().sums] == plain_sum(CONTEXT, range(4))


def test_stages_are_closed_in_order() -> None:
    server = ServerRound.open(CONTEXT)
    for step in (server.close_shares, server.close_vectors, server.close_confirmations, server.total):
        with pytest.raises(FederationError, match="still collects keys"):
            step()


def test_too_few_before_any_vector_leaves_another_attempt() -> None:
    for step in (World(CONTEXT).announce, _at(Stage.SHARES).share, _at(Stage.VECTORS).mask):
        with pytest.raises(FederationError, match="try again with fresh keys") as refused:
            step([])
        assert type(refused.value) is FederationError


def test_too_few_after_a_vector_ends_the_round() -> None:
    with pytest.raises(
        RoundSkipped, match="2 sites sent vectors, 4 are needed; missing: 'ward2', 'ward3', 'ward4'"
    ):
        _at(Stage.VECTORS).mask([0, 1])
    with pytest.raises(RoundSkipped, match="sent confirmations"):
        _at(Stage.CONFIRMATIONS).confirm([0, 1, 2])
    world = _at(Stage.REVEALS)
    with pytest.raises(RoundSkipped, match="sent reveals"):
        world.unmask([0, 1, 2]).total()
    # a reply that comes late still completes it
    assert world.unmask([3]).total().survivors == tuple(map(site_name, range(4)))


def test_no_vector_in_the_servers_state() -> None:
    world = _at(Stage.VECTORS)
    before = {site_name(i): world.masked(i)[1] for i in range(4)}
    after = world.mask([0, 1, 2, 3]).server.to_bytes()
    for vector in before.values():
        assert vector.payload not in after


@pytest.mark.parametrize("stages", [(), ("announce",), ("announce", "share", "mask", "confirm", "unmask")])
def test_a_state_survives_the_disk_and_damage_shows(stages: tuple[str, ...]) -> None:
    data = _world(*stages).server.to_bytes()
    assert ServerRound.from_bytes(data).to_bytes() == data
    for bad in (data[:-1], data + b"x", b"", data[:36], b"XXXX" + data[4:], data[:50] + b"!" + data[51:]):
        with pytest.raises(FederationError, match="damaged"):
            ServerRound.from_bytes(bad)


@given(st.lists(st.binary(max_size=80), max_size=12))
def test_a_well_formed_file_of_anything_else_is_refused(blobs: list[bytes]) -> None:
    with pytest.raises(FederationError):
        ServerRound.from_bytes(write_blobs(b"CSV\x01", blobs))


@given(st.data())
def test_a_state_with_parts_exchanged_is_refused_or_sound(data: st.DataObject) -> None:
    blobs = read_blobs(b"CSV\x01", _world("announce", "share", "mask", "confirm", "unmask").server.to_bytes())
    i = data.draw(st.integers(0, len(blobs) - 1))
    blobs[i] = data.draw(st.sampled_from([b"", b"x", b"\x09", blobs[i][:-1], blobs[i] + b"x", blobs[i - 1]]))
    with contextlib.suppress(FederationError):
        ServerRound.from_bytes(write_blobs(b"CSV\x01", blobs))


def test_a_state_whose_stages_contradict_each_other_is_refused() -> None:
    """Sites confirm that sent no vector."""
    blobs = read_blobs(b"CSV\x01", _world("announce", "share", "mask", "confirm").server.to_bytes())
    blobs[4] = Survivors(CONTEXT.digest, {}).to_bytes()
    with pytest.raises(FederationError, match="damaged"):
        ServerRound.from_bytes(write_blobs(b"CSV\x01", blobs))


def test_recovery_around_wrong_shares() -> None:
    """t = 4 of 7, up to three wrong: the secret is found and the wrong holders are named; with four no choice is right."""
    secret = bytes(range(32))
    shares = split(secret, 4, range(7))
    for wrong in ((), (0,), (2, 5), (0, 1, 6)):
        given_shares = {i: b"\x00" + bytes([i]) * 32 if i in wrong else s for i, s in shares.items()}
        assert recover(given_shares, 4, secret.__eq__) == (secret, wrong)
    bad = {i: b"\x00" + bytes([i]) * 32 if i < 4 else s for i, s in shares.items()}
    with pytest.raises(UpdateRejected, match="no 4 of 7 shares"):
        recover(bad, 4, secret.__eq__)
