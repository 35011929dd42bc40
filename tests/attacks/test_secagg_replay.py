"""Old messages, old states and repeated rounds: nothing of one attempt is of use in another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from infra.federation.secagg.context import Context
from infra.federation.secagg.messages import FromSite, KeyList, Message
from infra.federation.secagg.server import ServerRound
from infra.federation.secagg.site import SiteRound
from infra.federation.secagg.spent import Spent
from models.errors import FederationError, RoundSkipped, UpdateRejected
from tests.infra.federation.secagg.world import (
    World,
    identity,
    make_context,
    make_roster,
    plain_sum,
    site_name,
    values_of,
)

OTHERS = [
    make_context(5, attempt=1),
    make_context(5, round=4),
    make_context(5, run="e" * 64),
    make_context(5, cv_epoch=2),
    make_context(5, schema="e" * 64),
    make_context(5, base="e" * 64),
    make_context(5, config="e" * 64),
]


def _all_messages(world: World) -> list[Message]:
    """Every message of a finished attempt of which site 4 dropped before its vector."""
    world.announce().share()
    vectors = [world.masked(i)[1] for i in range(4)]
    world.mask([0, 1, 2, 3]).confirm().unmask()
    site = world.sites[1]
    sent: list[Message | None] = [site.announcement, *vectors, site.confirmation, site.reveal]
    down = [world.key_list, *world.deliveries.values(), world.survivors, world.confirmations]
    return [m for m in [*sent, *down] if m is not None]


@pytest.mark.parametrize("other", OTHERS)
def test_no_message_is_read_in_another_context(other: Context) -> None:
    for message in _all_messages(World(make_context(5))):
        with pytest.raises(UpdateRejected, match="another run, round, attempt"):
            type(message).from_bytes(message.to_bytes(), other)


@pytest.mark.parametrize("other", OTHERS)
def test_a_relabelled_message_fails_its_signature(other: Context) -> None:
    """The digest in the head is no more than a label; what counts is under the signature."""
    old = World(make_context(5)).announce().share()
    server = ServerRound.open(other)
    with pytest.raises(UpdateRejected, match="'announced keys' does not verify"):
        server.receive("ward1", replace(old.sites[1].announcement, context=other.digest))
    new = World(other).announce().share()
    with pytest.raises(UpdateRejected, match="'masked vector' does not verify"):
        new.server.receive("ward1", replace(old.masked(1)[1], context=other.digest))
    relabelled = replace(old.deliveries["ward2"], context=other.digest)
    with pytest.raises(UpdateRejected, match="does not open"):
        new.sites[2].mask(relabelled, values_of(other, 2), identity(2), new.sites[2].spent)
    fresh, mine = SiteRound.begin(other, "ward1", identity(1), make_roster(), None)
    entries = {**new.key_list.entries, 1: mine.entry(), 3: old.key_list.entries[3]}
    mixed = KeyList(other.digest, entries)
    with pytest.raises(UpdateRejected, match="'ward3': the signature of 'announced keys' does not verify"):
        fresh.share(mixed)


def test_a_second_attempt_starts_from_fresh_keys_and_gives_the_sum() -> None:
    """Two of five drop before sharing: t = 4 is missed, nobody has masked, the next attempt succeeds."""
    first = World(make_context(5)).announce()
    with pytest.raises(FederationError, match="try again with fresh keys"):
        first.share([0, 1, 2])
    second = World(make_context(5, attempt=1)).announce(before=first.sites[0].spent)
    for i in range(5):
        old, new = first.sites[i].announcement, second.sites[i].announcement
        assert not {old.cipher_key, old.mask_key, old.commitment} & {
            new.cipher_key,
            new.mask_key,
            new.commitment,
        }
    total = second.share().mask().confirm().unmask().total()
    assert [s.tolist() for s in total.sums] == plain_sum(second.context, range(5))


def test_no_second_sum_of_one_round() -> None:
    """After a masked vector the server claims a crash and asks for another attempt, perhaps without one of the sites."""
    world = World(make_context(5)).announce().share().mask()
    smaller = make_context(4, attempt=1)
    for context in (make_context(5, attempt=1), smaller, make_context(5, attempt=9)):
        with pytest.raises(RoundSkipped, match="skip the round"):
            SiteRound.begin(context, "ward1", identity(1), make_roster(), world.sites[1].spent)
    finished = world.confirm().unmask().sites[1].spent
    with pytest.raises(RoundSkipped):
        SiteRound.begin(smaller, "ward1", identity(1), make_roster(), finished)
    SiteRound.begin(make_context(5, round=4), "ward1", identity(1), make_roster(), finished)


def test_no_round_and_no_attempt_comes_back() -> None:
    spent = Spent("a" * 64, 3, 2)
    for round_number, attempt in [(3, 2), (3, 1), (2, 0), (2, 99)]:
        context = make_context(5, round=round_number, attempt=attempt)
        with pytest.raises(FederationError, match="already"):
            SiteRound.begin(context, "ward1", identity(1), make_roster(), spent)


def test_a_restored_state_cannot_mask_twice() -> None:
    """One mask, two vectors: their difference would be open. The site's folder is put back to before it masked."""
    world = World(make_context(5)).announce().share()
    before = SiteRound.from_bytes(world.sites[1].to_bytes())
    after, _ = world.masked(1)
    other = [values_of(world.context, 1)[0], np.zeros(2, np.uint32)]
    with pytest.raises(FederationError, match="has masked another vector"):
        before.mask(world.deliveries["ward1"], other, identity(1), after.spent)


def test_a_finished_round_has_nothing_left_to_give() -> None:
    world = World(make_context(5)).announce().share().mask().confirm().unmask()
    done = world.sites[1]
    assert done.secrets is None
    assert done.delivery is None
    assert done.unmask(world.confirmations)[1] == done.reveal


def test_messages_of_the_right_site_over_the_wrong_connection() -> None:
    world = World(make_context(5)).announce().share()
    message: FromSite = world.masked(1)[1]
    for name in ("ward0", "ward2", site_name(4)):
        with pytest.raises(UpdateRejected, match="message of another site"):
            world.server.receive(name, message)
