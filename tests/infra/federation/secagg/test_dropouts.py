"""Whoever drops out wherever: the sum is exact, bit for bit, or the round is refused with a typed error. Nothing in between.

Each site drops before one of the five stages or never: 6^n patterns. They share their beginnings, and a stage that fewer than
t sites reach ends every pattern that begins so; walked as a tree, all are covered. Every state and message goes through bytes.
"""

from __future__ import annotations

from itertools import combinations, product
from random import Random

import pytest

from models.errors import FederationError, RoundSkipped
from tests.infra.federation.secagg.world import World, make_context, plain_sum, site_name

STAGES = ("announce", "share", "mask", "confirm", "unmask")


def _check(world: World) -> None:
    total, survivors = world.total(), sorted(world.survivors.sites)
    assert [section.tolist() for section in total.sums] == plain_sum(world.context, survivors)
    assert total.survivors == tuple(map(site_name, survivors))
    assert total.wrong_shares == ()


def _walk(world: World, stage: int, alive: tuple[int, ...]) -> int:
    """Patterns covered from this state on."""
    if stage == len(STAGES):
        _check(world)
        return 1
    covered = 0
    for size in range(len(alive) + 1):
        for staying in combinations(alive, size):
            fork = world.fork()
            if size < world.context.threshold:
                nobody_masked = stage < 2 or (stage == 2 and not staying)
                with pytest.raises(FederationError, match="are needed; missing") as refused:
                    getattr(fork, STAGES[stage])(staying).total()
                assert (type(refused.value) is RoundSkipped) != nobody_masked
                # each of those who stayed drops before a later stage, or never
                covered += (len(STAGES) - stage) ** size
            else:
                getattr(fork, STAGES[stage])(staying)
                covered += _walk(fork, stage + 1, staying)
    return covered


def test_every_pattern_of_five_sites() -> None:
    """t = 4."""
    assert _walk(World(make_context(5)), 0, tuple(range(5))) == 6**5


def test_patterns_of_two_of_seven_sites() -> None:
    """t = 5: all succeed. A sample; every pattern is under `soak`."""
    context, random = make_context(7), Random(7)
    pairs = [
        list(zip(sites, stages, strict=True))
        for sites in combinations(range(7), 2)
        for stages in product(range(5), repeat=2)
    ]
    for pattern in random.sample(pairs, 16):
        drops, world = dict(pattern), World(context)
        for number, stage in enumerate(STAGES):
            getattr(world, stage)([i for i in range(7) if drops.get(i, 5) > number])
        _check(world)


@pytest.mark.soak
def test_every_pattern_of_seven_sites() -> None:
    assert _walk(World(make_context(7)), 0, tuple(range(7))) == 6**7


def test_three_sites_need_all_three() -> None:
    context = make_context(3)
    total = World(context).announce().share().mask().confirm().unmask().total()
    assert [s.tolist() for s in total.sums] == plain_sum(context, range(3))
    with pytest.raises(FederationError, match=r"3 are needed; missing: 'ward1'"):
        World(context).announce().share([0, 2])


def test_sites_that_drop_at_the_end_stay_in_the_sum() -> None:
    """Eight sites, t = 6: one never shares, one never uploads, six are left."""
    context = make_context(8)
    world = World(context).announce().share([0, 1, 2, 3, 4, 5, 6]).mask([0, 1, 2, 3, 5, 6])
    world.confirm().unmask()
    total = world.total()
    assert total.survivors == tuple(site_name(i) for i in (0, 1, 2, 3, 5, 6))
    assert total.dropped == ("ward4",)
    assert [s.tolist() for s in total.sums] == plain_sum(context, [0, 1, 2, 3, 5, 6])
