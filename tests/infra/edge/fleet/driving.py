"""A rollout driven to its end, for tests."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.fleet_devices import World
from infra.edge.fleet.operate import Driver, listing
from infra.edge.fleet.state import Assignment, Policy, Rollout
from infra.edge.trust.documents import ReleaseDocument

Make = Callable[..., World]
QUICK = Policy(patience_s=30)


class Killed(Exception):
    """The process ends here."""


def driver(world: World, **changes: object) -> Driver:
    return Driver(world.store, world.fleet, world.trust, world.signing, **changes)  # type: ignore[arg-type]


def run(world: World, release: ReleaseDocument, *, looks: int = 20, policy: Policy = QUICK) -> Rollout:
    driving = driver(world)
    driving.start(release, policy)
    for _ in range(looks):
        if driving.rollout.phase.over:
            break
        driving.step()
        world.poll()
    return driving.rollout


def desired(world: World) -> dict[str, Assignment]:
    found = world.documents.find_desired(world.trust())
    return {} if found is None else listing(found.document)
