"""Bytes changed on the way, keys exchanged by the server, and sites that send wrong shares."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.federation.secagg import statements
from infra.federation.secagg.context import Member, Roster
from infra.federation.secagg.messages import Delivery, KeyList, MaskedVector, Reveal, Survivors
from infra.federation.secagg.primitives import SEAL_BYTES, public_key, seal
from infra.federation.secagg.shamir import PRIME, read_share, split
from infra.federation.secagg.site import SiteRound
from models.errors import FederationError, RoundSkipped, UpdateRejected
from tests.infra.federation.secagg.world import (
    World,
    identity,
    make_context,
    make_roster,
    plain_sum,
    public,
    site_name,
    values_of,
)

CONTEXT = make_context(5)
SHARED = World(CONTEXT).announce().share()
SERVERS_OWN = b"\x07" * 32  # a private key of the server's


@given(st.sampled_from([0, 2, 3, 4]), st.integers(0, 66 + SEAL_BYTES - 1), st.integers(1, 255))
def test_a_changed_ciphertext_stops_its_reader_before_it_masks(sender: int, at: int, flip: int) -> None:
    sealed = SHARED.deliveries["ward1"].entries
    changed = bytearray(sealed[sender])
    changed[at] ^= flip
    delivery = Delivery(CONTEXT.digest, {**sealed, sender: bytes(changed)})
    site = SHARED.sites[1]
    with pytest.raises(
        UpdateRejected, match=f"shares of '{site_name(sender)}': a sealed share does not open"
    ):
        site.mask(delivery, values_of(CONTEXT, 1), identity(1), site.spent)


@given(st.data())
def test_a_changed_vector_is_never_summed(data: st.DataObject) -> None:
    vector = SHARED.masked(1)[1]
    payload = bytearray(vector.payload)
    payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(UpdateRejected, match="'masked vector' does not verify"):
        SHARED.server.receive("ward1", replace(vector, payload=bytes(payload)))


def test_a_vector_that_the_server_changed_is_not_confirmed() -> None:
    """The survivor set names each counted vector by its digest: a site looks for its own."""
    world = World(CONTEXT).announce().share().mask()
    entries = {**world.survivors.entries, 1: statements.vector_digest(b"another")}
    with pytest.raises(UpdateRejected, match="counts another vector of it"):
        world.sites[1].confirm(Survivors(CONTEXT.digest, entries), identity(1), world.sites[1].spent)


def test_a_vector_moved_to_another_site_is_refused() -> None:
    vector = SHARED.masked(1)[1]
    with pytest.raises(UpdateRejected, match="does not verify"):
        SHARED.server.receive("ward2", MaskedVector(CONTEXT.digest, 2, vector.payload, vector.signature))


def _with_key(key_list: KeyList, site: int, **change: bytes) -> KeyList:
    announcement = replace(key_list.announcement(site), **change)  # type: ignore[arg-type]
    return KeyList(key_list.context, {**key_list.entries, site: announcement.entry()})


@pytest.mark.parametrize("field", ["cipher_key", "mask_key", "commitment"])
def test_a_man_in_the_middle_cannot_put_in_his_own_keys(field: str) -> None:
    world = World(CONTEXT).announce()
    forged = _with_key(world.key_list, 3, **{field: public_key(SERVERS_OWN)})
    with pytest.raises(
        UpdateRejected, match="site 'ward3': the signature of 'announced keys' does not verify"
    ):
        world.sites[1].share(forged)


def test_nor_sign_them_with_another_identity() -> None:
    """The server makes up site 3 whole: the context names the pinned identity, so its signature does not count."""
    world = World(CONTEXT).announce()
    own = public_key(SERVERS_OWN), public_key(b"\x08" * 32)
    made_up = statements.announce(identity(77), CONTEXT, 3, *own, b"c" * 32)
    forged = KeyList(CONTEXT.digest, {**world.key_list.entries, 3: made_up.entry()})
    with pytest.raises(UpdateRejected, match="site 'ward3': the signature"):
        world.sites[1].share(forged)


def test_nor_a_cohort_of_sites_of_his_own() -> None:
    """The cohort itself is the server's proposal: every identity in it is compared with the pinned ones."""
    cohort = CONTEXT.cohort
    swapped = (*cohort[:3], Member("ward3", public(77).hex()), cohort[4])
    invented = (*cohort[:3], Member("ghost", public(77).hex()), cohort[4])
    for fake, says in [
        (swapped, "'ward3' of the cohort has another identity"),
        (invented, "'ghost' of the cohort is not known"),
    ]:
        with pytest.raises(FederationError, match=says):
            SiteRound.begin(make_context(5, cohort=fake), "ward1", identity(1), make_roster(), None)
    small = make_context(3)
    with pytest.raises(FederationError, match="takes part from 5 on"):
        SiteRound.begin(small, "ward1", identity(1), Roster(make_roster().keys, 5), None)


def test_a_threshold_that_lets_the_server_ask_twice_is_no_context() -> None:
    for threshold in (1, 2, 3):
        with pytest.raises(FederationError, match=r"must lie in 4\.\.5"):
            make_context(5, threshold=threshold)


def test_sites_with_different_lists_of_keys_do_not_read_each_other() -> None:
    """Both lists are validly signed; one lacks site 4."""
    world = World(CONTEXT).announce()
    fewer = KeyList(CONTEXT.digest, {i: world.key_list.entries[i] for i in range(4)})
    one, from_one = world.sites[1].share(fewer)
    two, _ = world.sites[2].share(world.key_list)
    sent = {i: world.sites[i].share(world.key_list)[1].sealed[2] for i in (0, 3)}
    delivery = Delivery(CONTEXT.digest, {**sent, 1: from_one.sealed[2]})
    assert one.key_list != two.key_list
    with pytest.raises(UpdateRejected, match="shares of 'ward1': a sealed share does not open"):
        two.mask(delivery, values_of(CONTEXT, 2), identity(2), two.spent)


def _wrong(share: bytes) -> bytes:
    return ((read_share(share) + 1) % PRIME).to_bytes(33)


@pytest.mark.parametrize("kind", ["self_masks", "pair_keys"])
def test_a_wrong_share_is_found_and_worked_around(kind: str) -> None:
    """Six sites, t = 5; site 5 drops. Five reveal, one of them wrongly: skipped. A right sixth does not exist, so with seven
    sites, t = 5, one dropped and six revealing, the sum is exact and the liar is named."""
    for n, exact in ((6, False), (7, True)):
        context = make_context(n)
        world = World(context).announce().share().mask(range(n - 1)).confirm()
        for i in range(n - 1):
            reveal = world.sites[i].unmask(world.confirmations)[1]
            if i == 2:
                table = {owner: _wrong(share) for owner, share in getattr(reveal, kind).items()}
                reveal = replace(reveal, **{kind: table})
            world.server = world.server.receive(site_name(i), reveal)
        if not exact:
            with pytest.raises(RoundSkipped, match="give what its owner announced"):
                world.total()
            continue
        total = world.total()
        assert [s.tolist() for s in total.sums] == plain_sum(context, range(n - 1))
        owners = range(n - 1) if kind == "self_masks" else [n - 1]
        assert total.wrong_shares == tuple((site_name(owner), "ward2") for owner in owners)


def _dealt_by_site_2(world: World, pair: dict[int, bytes], own: dict[int, bytes]) -> World:
    """Everyone shares; site 2 seals shares of the attacker's choice."""
    secrets = world.sites[2].secrets
    assert secrets is not None
    for i in range(5):
        world.sites[i], shares = world.sites[i].share(world.key_list)
        if i == 2:
            sealed = {}
            for other in shares.sealed:
                theirs = world.key_list.announcement(other).cipher_key
                key = statements.share_key(CONTEXT, secrets.cipher_key, theirs, 2, other)
                label = statements.share_label(world.key_list, 2, other)
                sealed[other] = seal(key, pair[other] + own[other], label)
            shares = replace(shares, sealed=sealed)
        world.server = world.server.receive(site_name(i), shares)
    world.server, world.deliveries = world.server.close_shares()
    return world


def test_shares_dealt_of_another_secret_are_found() -> None:
    """Site 2 deals shares of secrets that it did not announce: its mask cannot come off, and no sum is given out."""
    pair, own = (split(bytes([k]) * 32, CONTEXT.threshold, range(5)) for k in (1, 2))
    world = _dealt_by_site_2(World(CONTEXT).announce(), pair, own).mask().confirm().unmask()
    with pytest.raises(RoundSkipped, match="secret of site 'ward2'"):
        world.total()


@pytest.mark.parametrize("kind", [0, 1])
def test_shares_dealt_that_are_none_are_found_before_anything_is_masked(kind: int) -> None:
    """Revealed later, they would make an honest site's answer unacceptable."""
    dealt = [split(bytes([k]) * 32, CONTEXT.threshold, range(5)) for k in (1, 2)]
    dealt[kind][1] = b"\xff" * 33
    world = _dealt_by_site_2(World(CONTEXT).announce(), *dealt)
    with pytest.raises(UpdateRejected, match="shares of 'ward2': a share is not an element of the field"):
        world.masked(1)


def test_a_reveal_about_the_wrong_sites_is_refused() -> None:
    world = World(CONTEXT).announce().share().mask([0, 1, 2, 3]).confirm()
    reveal = world.sites[1].unmask(world.confirmations)[1]
    share = reveal.pair_keys[4]
    for tables in [
        (reveal.self_masks, {}),
        (reveal.self_masks, {**reveal.pair_keys, 0: share}),
        ({**reveal.self_masks, 4: share}, reveal.pair_keys),
        ({i: reveal.self_masks[i] for i in (0, 1, 2)}, {**reveal.pair_keys, 3: share}),
    ]:
        with pytest.raises(UpdateRejected, match="must reveal"):
            world.server.receive("ward1", Reveal(CONTEXT.digest, 1, *tables))
