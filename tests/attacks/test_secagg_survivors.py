"""A server that lies about who survived, to obtain both kinds of share for one site and so that site's vector.

With t − 1 or fewer shares each kind is worthless; with t of both the vector is open. What stands in between is the consistency
round: t signatures over one U. It holds up to `Context.colluders` sites that help the server; the tests show both sides of it.
"""

from __future__ import annotations

from itertools import product

import pytest

from infra.federation.secagg import statements
from infra.federation.secagg.context import Context
from infra.federation.secagg.masking import add_mask, reduce, unpack_words
from infra.federation.secagg.messages import Confirmations, Reveal, Survivors
from infra.federation.secagg.shamir import combine
from infra.federation.secagg.spent import Spent
from models.errors import FederationError, UpdateRejected
from tests.infra.federation.secagg.world import World, identity, make_context, site_name, values_of

VICTIM = 0


def _masked(context: Context) -> World:
    return World(context).announce().share().mask()


def _two_views(world: World) -> tuple[Survivors, Survivors]:
    """The true U, and one in which the victim has dropped."""
    everyone = world.survivors
    without = {i: d for i, d in everyone.entries.items() if i != VICTIM}
    return everyone, Survivors(everyone.context, without)


def _vote_and_reveal(world: World, view: Survivors, voters: list[int]) -> dict[int, Reveal]:
    """Reveals under one view of U, by those who were shown it; none without a quorum."""
    states = {i: world.sites[i].confirm(view, identity(i), world.sites[i].spent) for i in voters}
    signed = Confirmations(view.context, {i: c.signature for i, (_, c) in states.items()})
    reveals = {}
    for i, (state, _) in states.items():
        try:
            reveals[i] = state.unmask(signed)[1]
        except UpdateRejected:
            continue
    return reveals


def _attack(context: Context, with_victim: list[int], without: list[int]) -> list[list[int]] | None:
    """The victim's vector, if the server gets it: each view is shown to those listed; colluders stand in both lists."""
    world = _masked(context)
    upload = world.fork().masked(VICTIM)[1]
    true_view, false_view = _two_views(world)
    first = _vote_and_reveal(world, true_view, with_victim)
    second = _vote_and_reveal(world, false_view, without)
    t = context.threshold
    seeds = {i: r.self_masks[VICTIM] for i, r in first.items()}
    keys = {i: r.pair_keys[VICTIM] for i, r in second.items()}
    if len(seeds) < t or len(keys) < t:
        return None
    seed = combine(dict(list(seeds.items())[:t]), t)
    key = combine(dict(list(keys.items())[:t]), t)
    words = unpack_words(context, upload.payload)
    add_mask(words, statements.self_mask_seed(context, VICTIM, seed), subtract=True)
    for other in range(context.n):
        if other != VICTIM:
            theirs = world.key_list.announcement(other).mask_key
            add_mask(
                words, statements.pair_mask_seed(context, key, theirs, VICTIM, other), subtract=other > VICTIM
            )
    return [section.tolist() for section in reduce(context, words)]


def test_two_views_of_u_never_both_find_a_quorum() -> None:
    """n = 5, t = 4, two colluders (3 and 4); the server shows each honest site either view, in every way."""
    context = make_context(5)
    assert context.colluders == 2
    for shown in product((True, False), repeat=2):
        with_victim = [VICTIM, 3, 4] + [i for i, s in zip((1, 2), shown, strict=True) if s]
        without = [3, 4] + [i for i, s in zip((1, 2), shown, strict=True) if not s]
        assert _attack(context, with_victim, without) is None


def test_one_colluder_more_than_tolerated_opens_a_vector() -> None:
    """Three of five: both views find four signers. The attack is real, so that the test above has something to catch."""
    context = make_context(5)
    opened = _attack(context, [VICTIM, 2, 3, 4], [1, 2, 3, 4])
    assert opened == [section.tolist() for section in values_of(context, VICTIM)]


def test_a_site_signs_one_view_only() -> None:
    world = _masked(make_context(5))
    true_view, false_view = _two_views(world)
    state, _ = world.sites[1].confirm(true_view, identity(1), world.sites[1].spent)
    with pytest.raises(FederationError, match="another survivor set"):
        state.confirm(false_view, identity(1), state.spent)
    # restored from before the signature: the record knows
    with pytest.raises(FederationError, match="another survivor set"):
        world.sites[1].confirm(false_view, identity(1), Spent.from_bytes(state.spent.to_bytes()))


def test_signatures_over_another_u_release_nothing() -> None:
    """The site signed the true U; the server comes with a full quorum for the false one."""
    context = make_context(5)
    world = _masked(context)
    true_view, false_view = _two_views(world)
    honest, _ = world.sites[1].confirm(true_view, identity(1), world.sites[1].spent)
    false_votes = {
        i: world.sites[i].confirm(false_view, identity(i), world.sites[i].spent)[1].signature
        for i in (1, 2, 3, 4)
    }
    with pytest.raises(UpdateRejected, match="does not verify"):
        honest.unmask(Confirmations(context.digest, false_votes))


def test_no_answer_ever_holds_both_kinds_for_one_site() -> None:
    """Whatever U a site has signed, with whatever quorum: the two tables of its answer are disjoint."""
    context = make_context(5)
    for dropped in (None, 0, 2, 4):
        world = (
            World(context).announce().share().mask([i for i in range(5) if i != dropped]).confirm().unmask()
        )
        for state in world.sites.values():
            if state.reveal is not None:
                assert not state.reveal.self_masks.keys() & state.reveal.pair_keys.keys()
                assert state.reveal.self_masks.keys() | state.reveal.pair_keys.keys() == set(range(5))


def test_a_survivor_set_below_the_threshold_is_not_signed() -> None:
    world = _masked(make_context(5))
    for few in ((1, 2, 3), (1,), ()):
        view = Survivors(world.context.digest, {i: world.survivors.entries[i] for i in few})
        with pytest.raises(UpdateRejected, match="at least 4"):
            world.sites[1].confirm(view, identity(1), world.sites[1].spent)


def test_a_survivor_set_with_a_phantom_is_not_signed() -> None:
    """Site 4 never shared: its pair masks are in nobody's vector, so counting it would only hide how few were summed."""
    world = World(make_context(5)).announce().share([0, 1, 2, 3]).mask()
    view = Survivors(world.context.digest, {**world.survivors.entries, 4: b"d" * 32})
    with pytest.raises(UpdateRejected, match="must lie within the 4"):
        world.sites[1].confirm(view, identity(1), world.sites[1].spent)


def test_forged_confirmations_release_nothing() -> None:
    """Signatures by keys of the server's own, moved between sites, repeated from another site, or made for another statement."""
    context = make_context(5)
    world = _masked(context)
    state, mine = world.sites[1].confirm(world.survivors, identity(1), world.sites[1].spent)
    statement = bytes.fromhex(state.spent.signed)
    own_keys = {i: statements.confirm(identity(40 + i), context, i, statement).signature for i in (0, 2, 3)}
    repeated = dict.fromkeys((0, 2, 3), mine.signature)
    moved = {i: statements.confirm(identity(i + 1), context, i, statement).signature for i in (0, 2, 3)}
    other = {i: statements.confirm(identity(i), context, i, b"s" * 32).signature for i in (0, 2, 3)}
    for forged in (own_keys, repeated, moved, other):
        with pytest.raises(UpdateRejected, match="'survivor set' does not verify"):
            state.unmask(Confirmations(context.digest, {1: mine.signature, **forged}))
    with pytest.raises(UpdateRejected, match="at least 4"):
        state.unmask(Confirmations(context.digest, {1: mine.signature}))


def test_sites_that_were_told_of_different_sharers_do_not_confirm_together() -> None:
    """Site 1 believes that site 4 never shared, the others that it did: the same U, but another statement."""
    context = make_context(5)
    world = World(context).announce().share()
    honest = world.deliveries[site_name(1)]
    world.deliveries[site_name(1)] = type(honest)(honest.context, {i: honest.entries[i] for i in (0, 2, 3)})
    world.mask([0, 1, 2, 3])
    votes = {i: world.sites[i].confirm(world.survivors, identity(i), world.sites[i].spent) for i in range(4)}
    signatures = Confirmations(context.digest, {i: c.signature for i, (_, c) in votes.items()})
    for state, _ in votes.values():
        with pytest.raises(UpdateRejected, match="does not verify"):
            state.unmask(signatures)
