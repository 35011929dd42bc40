"""What a site answers, what it refuses, and that a refusal changes nothing."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.federation.secagg.blobs import read_blobs, write_blobs
from infra.federation.secagg.context import Roster
from infra.federation.secagg.messages import Confirmations, Delivery, KeyList, Survivors
from infra.federation.secagg.site import SiteRound
from infra.federation.secagg.spent import Spent
from infra.federation.secagg.statements import announce, commitment, vector_digest
from models.errors import FederationError, RoundSkipped, UpdateRejected
from tests.infra.federation.secagg.world import (
    World,
    identity,
    make_context,
    make_roster,
    public,
    site_name,
    values_of,
)

CONTEXT = make_context()  # n = 5, t = 4
ME = 1
KEY = identity(ME)


@cache
def _stages() -> dict[str, tuple[World, SiteRound]]:
    """The world, and the site's state before it answers, at each stage; site 4 drops before it masks."""
    world, found = World(CONTEXT), {}
    for name, who in [
        ("begun", None),
        ("shared", None),
        ("masked", [0, 1, 2, 3]),
        ("confirmed", None),
        ("unmasked", None),
    ]:
        step = {
            "begun": "announce",
            "shared": "share",
            "masked": "mask",
            "confirmed": "confirm",
            "unmasked": "unmask",
        }[name]
        getattr(world, step)(who)
        found[name] = (world.fork(), world.sites[ME])
    return found


def _delivery(world: World) -> Delivery:
    return world.deliveries[site_name(ME)]


def test_a_repeated_message_gets_the_same_answer() -> None:
    stages = _stages()
    world, shared = stages["shared"]
    assert shared.share(world.key_list) == (shared, shared.shares)
    world, masked = stages["masked"]
    again, vector = masked.mask(_delivery(world), values_of(CONTEXT, ME), KEY, masked.spent)
    assert again == masked
    assert vector_digest(vector.payload).hex() == masked.spent.masked
    world, confirmed = stages["confirmed"]
    assert confirmed.confirm(world.survivors, KEY, confirmed.spent) == (confirmed, confirmed.confirmation)
    world, unmasked = stages["unmasked"]
    assert unmasked.unmask(world.confirmations) == (unmasked, unmasked.reveal)


def test_begin_needs_its_own_identity_and_a_place_in_the_cohort() -> None:
    with pytest.raises(FederationError, match="identity key is not the one"):
        SiteRound.begin(CONTEXT, site_name(ME), identity(2), make_roster(), None)
    with pytest.raises(UpdateRejected, match="'ward9' is not in the cohort"):
        SiteRound.begin(CONTEXT, "ward9", identity(9), make_roster(), None)
    with pytest.raises(FederationError, match="not known here"):
        SiteRound.begin(CONTEXT, site_name(ME), KEY, make_roster(3), None)
    with pytest.raises(FederationError, match="takes part from 9 on"):
        SiteRound.begin(CONTEXT, site_name(ME), KEY, Roster(make_roster().keys, 9), None)


def test_begin_makes_fresh_keys_and_goes_forward() -> None:
    first, _ = SiteRound.begin(CONTEXT, site_name(ME), KEY, make_roster(), None)
    with pytest.raises(FederationError, match="is at round 3, attempt 0 already"):
        SiteRound.begin(CONTEXT, site_name(ME), KEY, make_roster(), first.spent)
    second, _ = SiteRound.begin(make_context(attempt=1), site_name(ME), KEY, make_roster(), first.spent)
    assert first.secrets is not None
    assert second.secrets is not None
    secrets = [s.cipher_key + s.mask_key + s.self_seed for s in (first.secrets, second.secrets)]
    assert len({s[i : i + 32] for s in secrets for i in (0, 32, 64)}) == 6


def _with(key_list: KeyList, **change: bytes) -> KeyList:
    return KeyList(key_list.context, {**key_list.entries, **{int(k[1:]): v for k, v in change.items()}})


def test_lists_of_keys_that_are_refused() -> None:
    world, me = _stages()["begun"]
    keys, entries = world.key_list, world.key_list.entries
    other, _ = SiteRound.begin(CONTEXT, site_name(ME), KEY, make_roster(), None)
    foreign = announce(identity(9), CONTEXT, 2, b"\x09" * 32, b"\x0a" * 32, b"c" * 32).entry()
    twin = announce(identity(2), CONTEXT, 2, entries[3][:32], b"\x0a" * 32, b"c" * 32).entry()
    double = announce(identity(2), CONTEXT, 2, b"\x09" * 32, b"\x09" * 32, b"c" * 32).entry()
    copied = announce(identity(2), CONTEXT, 2, b"\x09" * 32, b"\x0a" * 32, entries[3][64:96]).entry()
    small = announce(identity(2), CONTEXT, 2, bytes(32), b"\x0a" * 32, b"c" * 32).entry()
    moved = entries[3]
    cases = [
        (KeyList(keys.context, {i: entries[i] for i in (0, 1, 2)}), "at least 4 are needed"),
        (KeyList(keys.context, {i: entries[i] for i in (0, 2, 3, 4)}), "lacks or changes this site's own"),
        (_with(keys, _1=other.announcement.entry()), "lacks or changes this site's own"),
        (_with(keys, _2=foreign), "site 'ward2': the signature of 'announced keys' does not verify"),
        (_with(keys, _2=moved), "does not verify"),
        (_with(keys, _2=twin), "a key occurs twice"),
        (_with(keys, _2=double), "a key occurs twice"),
        (_with(keys, _2=copied), "a key occurs twice"),
        (_with(keys, _2=small), "small order"),
        (replace(keys, context=make_context(attempt=1).digest), "another run, round, attempt"),
    ]
    for bad, says in cases:
        with pytest.raises(UpdateRejected, match=says):
            me.share(bad)
    _, shares = me.share(KeyList(keys.context, {i: entries[i] for i in (0, 1, 2, 3)}))
    assert shares.sealed.keys() == {0, 2, 3}


def test_it_shares_under_one_list_of_keys() -> None:
    world, shared = _stages()["shared"]
    fewer = KeyList(CONTEXT.digest, {i: world.key_list.entries[i] for i in (0, 1, 2, 3)})
    with pytest.raises(FederationError, match="another list of keys"):
        shared.share(fewer)


def test_deliveries_that_are_refused() -> None:
    world, me = _stages()["shared"]
    delivery, values = _delivery(world), values_of(CONTEXT, ME)
    sealed = delivery.entries
    flipped = bytes([sealed[0][0] ^ 1]) + sealed[0][1:]
    cases = [
        ({**sealed, ME: sealed[0]}, "must be among those"),
        ({0: sealed[0], 2: sealed[2]}, "at least 4"),
        ({**sealed, 0: flipped}, "shares of 'ward0': a sealed share does not open"),
        ({**sealed, 0: sealed[2], 2: sealed[0]}, "does not open"),
        ({**sealed, 0: world.deliveries[site_name(2)].entries[0]}, "does not open"),
    ]
    for entries, says in cases:
        with pytest.raises(UpdateRejected, match=says):
            me.mask(Delivery(CONTEXT.digest, entries), values, KEY, me.spent)
    with pytest.raises(UpdateRejected, match="outside its 11 bits"):
        me.mask(delivery, [np.full(6, 2048), values[1]], KEY, me.spent)
    me.mask(Delivery(CONTEXT.digest, {i: sealed[i] for i in (0, 2, 3)}), values, KEY, me.spent)


def test_it_masks_one_vector() -> None:
    world, masked = _stages()["masked"]
    values = values_of(CONTEXT, ME)
    with pytest.raises(FederationError, match="has masked another vector"):
        masked.mask(_delivery(world), [values[0], values[1] + 1], KEY, masked.spent)
    fewer = Delivery(CONTEXT.digest, {i: _delivery(world).entries[i] for i in (0, 2, 3)})
    with pytest.raises(FederationError, match="it masks one"):
        masked.mask(fewer, values, KEY, masked.spent)
    # the state of before, restored: the record still knows
    _, before = _stages()["shared"]
    with pytest.raises(FederationError, match="has masked another vector"):
        before.mask(_delivery(world), [values[0], values[1] + 1], KEY, masked.spent)
    _, confirmed = _stages()["confirmed"]
    with pytest.raises(FederationError, match="it masks one"):
        confirmed.mask(_delivery(world), values, KEY, confirmed.spent)


def test_survivor_sets_that_are_refused() -> None:
    world, me = _stages()["masked"]
    u = world.survivors.entries
    assert u.keys() == {0, 1, 2, 3}
    cases = [
        ({i: u[i] for i in (0, 1, 2)}, "at least 4"),
        ({i: d for i, d in {**u, 4: b"d" * 32}.items() if i != ME}, "lacks this site"),
        ({**u, ME: b"d" * 32}, "counts another vector of it"),
    ]
    for entries, says in cases:
        with pytest.raises(UpdateRejected, match=says):
            me.confirm(Survivors(CONTEXT.digest, entries), KEY, me.spent)
    # site 4 was not among those who shared
    narrow = World(CONTEXT).announce().share([0, 1, 2, 3]).mask()
    wide = {**narrow.survivors.entries, 4: b"d" * 32}
    with pytest.raises(UpdateRejected, match="must lie within the 4 that shared"):
        narrow.sites[ME].confirm(Survivors(CONTEXT.digest, wide), KEY, narrow.sites[ME].spent)


def test_it_signs_one_survivor_set_per_round() -> None:
    world, confirmed = _stages()["confirmed"]
    _, masked = _stages()["masked"]
    more = Survivors(CONTEXT.digest, {**world.survivors.entries, 4: b"d" * 32})
    recount = Survivors(CONTEXT.digest, {**world.survivors.entries, 0: b"d" * 32})
    for state in (confirmed, masked):  # `masked` is the state of before, restored
        for other in (more, recount):
            with pytest.raises(FederationError, match="another survivor set"):
                state.confirm(other, KEY, confirmed.spent)
    with pytest.raises(RoundSkipped):
        SiteRound.begin(make_context(attempt=1), site_name(ME), KEY, make_roster(), confirmed.spent)


def test_an_attempt_that_was_left_goes_nowhere() -> None:
    world, old = _stages()["shared"]
    later, _ = SiteRound.begin(make_context(attempt=1), site_name(ME), KEY, make_roster(), old.spent)
    with pytest.raises(FederationError, match="out of date"):
        old.mask(_delivery(world), values_of(CONTEXT, ME), KEY, later.spent)
    world, masked = _stages()["masked"]
    next_round = Spent.begin(make_context(round=4), masked.spent)
    with pytest.raises(FederationError):
        masked.confirm(world.survivors, KEY, next_round)


def test_confirmations_that_are_refused() -> None:
    world, me = _stages()["confirmed"]
    good = world.confirmations.entries
    cases = [
        ({i: good[i] for i in (0, 1, 2)}, "at least 4"),
        ({**{i: good[i] for i in (0, 1, 2)}, 4: good[3]}, "by survivors"),
        ({**good, 3: good[2]}, "site 'ward3': the signature of 'survivor set' does not verify"),
        ({**good, 3: bytes(64)}, "does not verify"),
    ]
    for entries, says in cases:
        with pytest.raises(UpdateRejected, match=says):
            me.unmask(Confirmations(CONTEXT.digest, entries))


def test_it_gives_one_kind_of_share_and_keeps_no_secret() -> None:
    _, before = _stages()["confirmed"]
    _, after = _stages()["unmasked"]
    assert after.reveal is not None
    assert after.reveal.self_masks.keys() == {0, 1, 2, 3}
    assert after.reveal.pair_keys.keys() == {4}
    assert before.secrets is not None
    assert before.delivery is not None
    data = after.to_bytes()
    secret = [before.secrets.cipher_key, before.secrets.mask_key, before.secrets.self_seed]
    secret += [*before.delivery.entries.values(), before.secrets.own_shares[:33]]
    assert all(s in before.to_bytes() for s in secret)
    assert not any(s in data for s in secret)
    world, _ = _stages()["unmasked"]
    assert after.confirm(world.survivors, KEY, after.spent) == (after, before.confirmation)
    other = Survivors(CONTEXT.digest, {**world.survivors.entries, 4: b"d" * 32})
    for refused in (
        lambda: after.share(world.key_list),
        lambda: after.mask(_delivery(world), values_of(CONTEXT, ME), KEY, after.spent),
        lambda: after.confirm(other, KEY, after.spent),
    ):
        with pytest.raises(FederationError):
            refused()


def test_steps_out_of_order_are_refused() -> None:
    stages = _stages()
    world, _ = stages["unmasked"]
    begun, shared, masked = (stages[name][1] for name in ("begun", "shared", "masked"))
    for refused in (
        lambda: begun.mask(_delivery(world), values_of(CONTEXT, ME), KEY, begun.spent),
        lambda: begun.confirm(world.survivors, KEY, begun.spent),
        lambda: shared.confirm(world.survivors, KEY, shared.spent),
        lambda: begun.unmask(world.confirmations),
        lambda: shared.unmask(world.confirmations),
        lambda: masked.unmask(world.confirmations),
    ):
        with pytest.raises(FederationError):
            refused()


def test_no_secret_in_a_repr_or_in_an_error() -> None:
    for _, state in _stages().values():
        text = repr(state)
        for secret in [] if state.secrets is None else vars(state.secrets).values():
            assert repr(secret)[2:-1] not in text or not secret
    world, me = _stages()["shared"]
    entries = {**_delivery(world).entries, 0: bytes(94)}
    with pytest.raises(UpdateRejected) as refused:
        me.mask(Delivery(CONTEXT.digest, entries), values_of(CONTEXT, ME), KEY, me.spent)
    assert me.secrets is not None
    assert me.secrets.cipher_key.hex() not in str(refused.value)
    assert refused.value.__cause__ is None


def test_the_commitment_binds_the_seed_and_the_site() -> None:
    seed = hashlib.sha256(b"seed").digest()
    assert (
        len({commitment(CONTEXT, 0, seed), commitment(CONTEXT, 1, seed), commitment(CONTEXT, 0, public(0))})
        == 3
    )


@pytest.mark.parametrize("stage", ["begun", "shared", "masked", "confirmed", "unmasked"])
def test_a_state_survives_the_disk_and_damage_shows(stage: str) -> None:
    _, state = _stages()[stage]
    data = state.to_bytes()
    assert SiteRound.from_bytes(data) == state
    for bad in (data[:-1], data + b"x", b"", data[:36], b"XXXX" + data[4:], data[:50] + b"!" + data[51:]):
        with pytest.raises(FederationError, match="damaged"):
            SiteRound.from_bytes(bad)


@given(st.lists(st.binary(max_size=80), max_size=12))
def test_a_well_formed_file_of_anything_else_is_refused(blobs: list[bytes]) -> None:
    with pytest.raises(FederationError):
        SiteRound.from_bytes(write_blobs(b"CSS\x01", blobs))


@given(st.data())
def test_a_state_with_parts_exchanged_is_refused_or_sound(data: st.DataObject) -> None:
    _, state = _stages()["masked"]
    blobs = read_blobs(b"CSS\x01", state.to_bytes())
    i = data.draw(st.integers(0, len(blobs) - 1))
    blobs[i] = data.draw(st.sampled_from([b"", b"x", blobs[i][:-1], blobs[i] + b"x", blobs[i - 1]]))
    with contextlib.suppress(FederationError):
        SiteRound.from_bytes(write_blobs(b"CSS\x01", blobs))
