"""Rollouts that are killed, resumed, or overtaken by another process, through a real store."""

from __future__ import annotations

import itertools

import pytest

from benchmarks.fleet_devices import now
from infra.edge.fleet.operate import Driver, Listed, listing
from infra.edge.fleet.state import Assignment, Phase, Report
from infra.edge.fleet_signing import set_desired
from infra.edge.trust.trusted import TrustedRoot
from infra.store.client import ObjectStore
from models.errors import ConflictError
from tests.infra.edge.fleet.driving import QUICK, Killed, Make, desired, driver, run

pytestmark = pytest.mark.slow


def test_killed_at_every_write_and_resumed_it_goes_on(
    make_world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every write of the deployer is tried three times over: killed before it, killed after it, and then let go on."""
    world = make_world(12)
    first = world.publish(1)
    writes = itertools.count()
    whole = type(world.store)._conditional_put

    def deadly(self: ObjectStore, key: str, data: bytes, condition: dict[str, str]) -> str | None:
        ours = key.endswith(("desired.json", "rollout.json"))
        turn = next(writes) % 3 if ours else 2
        if turn == 0:
            raise Killed
        written = whole(self, key, data, condition)
        if turn == 1:
            raise Killed
        return written

    deaths, looks = 0, 0
    while True:
        try:
            monkeypatch.setattr(type(world.store), "_conditional_put", deadly)
            driving = driver(world)
            driving.start(first, QUICK)
            while not driving.rollout.phase.over:
                driving.step()
                world.poll()
                looks += 1
            break
        except Killed:
            deaths += 1
            world.poll()
        assert looks + deaths < 80
    assert deaths >= 8
    assert driving.rollout.phase is Phase.CONFIRMED
    assert driving.rollout.number == 1
    assert world.running(first.release) == 12
    assert [e.ring for e in driving.rollout.events] == ["1 device", "25 %", "100 %"]


def test_of_two_drivers_the_slower_changes_nothing(make_world: Make) -> None:
    world = make_world(6)
    first = world.publish(1)
    one = driver(world)
    one.start(first, QUICK)
    two = driver(world)
    assert two.start(first, QUICK) == one.rollout
    one.step()
    with pytest.raises(ConflictError, match="driven by another process"):
        two.step()


@pytest.mark.parametrize("overtaken", ["before it reads", "after it has read"])
def test_a_ring_is_not_opened_over_a_rollback_that_came_between(
    make_world: Make, monkeypatch: pytest.MonkeyPatch, overtaken: str
) -> None:
    """One process has decided to widen and is slow; another stops the rollout and tells the devices so. Coming back, the slow one
    must not tell them to take the release after all."""
    world = make_world(8)
    first, second = world.publish(1), world.publish(2)
    run(world, first)
    slow = driver(world)
    slow.start(second, QUICK)
    slow.step()
    world.poll()
    whole = Driver.listed

    def listed(self: Driver, trust: TrustedRoot) -> Listed:
        read = whole(self, trust)
        if self is slow and slow.rollout.ring == 1:
            monkeypatch.setattr(Driver, "listed", whole)
            other = driver(world)
            other.stop("by hand")
            other.step()
            if overtaken == "before it reads":
                read = whole(self, trust)
        return read

    monkeypatch.setattr(Driver, "listed", listed)
    with pytest.raises(ConflictError, match="driven by another process"):
        slow.step()
    assert second.release not in {entry.release for entry in desired(world).values()}
    assert run(world, second).phase is Phase.ROLLED_BACK
    assert world.running(first.release) == 8


def test_a_way_back_is_written_even_where_nothing_changes(make_world: Make) -> None:
    """Devices without a release before: the desired state is the same, but whoever was about to widen must find it changed."""
    world = make_world(4)
    first = world.publish(1)
    set_desired(world.documents, world.trust(), [], world.signing.values(), now=now())
    driving = driver(world)
    driving.start(first, QUICK)
    driving.stop("by hand")
    driving.step()
    found = world.documents.find_desired(world.trust())
    assert found is not None
    assert (found.document.version, listing(found.document)) == (2, {})


def test_a_renewal_does_not_undo_what_was_published_meanwhile(make_world: Make) -> None:
    world = make_world(6)
    first, second = world.publish(1), world.publish(2)
    run(world, first)
    renewing = driver(world)
    whole = renewing.reports.read

    def read() -> dict[str, Report]:
        rolling = driver(world)
        rolling.start(second, QUICK)
        rolling.step()
        return whole()

    renewing.reports.read = read  # type: ignore[method-assign]
    with pytest.raises(ConflictError, match="changed by another writer"):
        renewing.renew(force=True)
    assert list(desired(world).values()).count(Assignment(second.release)) == 1


def test_the_record_of_a_rollout_is_kept_though_its_end_was_cut_short(
    make_world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(3)
    first, second = world.publish(1), world.publish(2)
    whole = type(world.store).put_if_absent

    def put(self: ObjectStore, key: str, data: bytes) -> bool:
        if "/rollouts/" in key:
            raise Killed
        return whole(self, key, data)

    with monkeypatch.context() as patched:
        patched.setattr(type(world.store), "put_if_absent", put)
        with pytest.raises(Killed):
            run(world, first)
    assert world.store.stat("fleets/ward/rollouts/1.json") is None
    driver(world).start(second, QUICK)
    assert world.store.stat("fleets/ward/rollouts/1.json")
