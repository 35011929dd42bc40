"""Rollouts driven through a real store, with real agents: good and bad, stopped, with keys exchanged on the way."""

from __future__ import annotations

from datetime import timedelta

import pytest

from benchmarks.fleet_devices import Behaviour, now
from infra.edge.fleet import ledger
from infra.edge.fleet.operate import rings_of
from infra.edge.fleet.rollout import Decision, begin
from infra.edge.fleet.state import Assignment, Phase
from infra.edge.fleet_signing import set_desired
from infra.edge.trust.documents import ReportDocument
from infra.edge.trust.envelope import sign
from models.errors import BadSignature, ConfigError, ConflictError, KeyRevoked, StoreError
from tests.infra.edge.fleet.driving import QUICK, Make, desired, driver, run

pytestmark = pytest.mark.slow


def test_a_good_release_reaches_all_and_the_next_one_that_fails_everywhere_one(make_world: Make) -> None:
    world = make_world(24, lambda device, number: Behaviour(healthy=number != 2), openssl_every=12)
    first, second = world.publish(1), world.publish(2)
    assert run(world, first).phase is Phase.CONFIRMED
    assert world.running(first.release) == 24

    ended = run(world, second)
    assert ended.phase is Phase.ROLLED_BACK
    assert "Unhealthy ×1" in ended.why
    assert world.running(first.release) == 24
    touched = [d for d in world.devices.values() if "Unhealthy" in d.refusals]
    assert [d.name for d in touched] == [ended.devices[0].id]
    assert desired(world)[touched[0].name] == Assignment(first.release, rollback=True)
    assert world.store.stat("fleets/ward/rollouts/1.json")
    assert world.store.stat("fleets/ward/rollouts/2.json")


def test_everything_on_a_bad_build_goes_back_to_the_old_one(make_world: Make) -> None:
    """Bad on two of the first five devices: one of the five, at least, runs the bad build and has to leave it."""
    sick: set[str] = set()
    world = make_world(20, lambda device, number: Behaviour(healthy=number == 1 or device not in sick))
    first, second = world.publish(1), world.publish(2)
    run(world, first)
    planned = begin(
        fleet="ward",
        number=2,
        release=second.release,
        title="",
        devices=world.devices,
        reports=driver(world).reports.read(),
        assigned={},
        policy=QUICK,
        now=0.0,
    )
    sick.update(d.id for d in planned.devices[2:4])
    driving = driver(world)
    driving.start(second, QUICK)
    most = 0
    for _ in range(12):
        driving.step()
        world.poll()
        most = max(most, world.running(second.release))
        if driving.rollout.phase.over:
            break
    assert driving.rollout.phase is Phase.ROLLED_BACK
    assert most >= 2
    assert world.running(first.release) == 20
    assert all(d.restored for d in driving.rollout.asked_devices)


def test_another_release_waits_for_the_rollout_to_end(make_world: Make) -> None:
    world = make_world(6)
    first, second = world.publish(1), world.publish(2)
    driver(world).start(first, QUICK)
    with pytest.raises(ConflictError, match="infant-cry@1 on ward is rolling"):
        driver(world).start(second, QUICK)


def test_one_that_every_device_runs_is_no_rollout(make_world: Make) -> None:
    world = make_world(3)
    first = world.publish(1)
    run(world, first)
    assert driver(world).start(first, QUICK) is None


def test_stopped_by_hand_it_goes_back(make_world: Make) -> None:
    world = make_world(8)
    first, second = world.publish(1), world.publish(2)
    run(world, first)
    driving = driver(world)
    driving.start(second, QUICK)
    for _ in range(3):
        driving.step()
        world.poll()
    assert world.running(second.release) >= 1
    driver(world).stop("the ward asked for it")
    ended = run(world, second)
    assert (ended.phase, ended.number) == (Phase.ROLLED_BACK, 2)
    assert ended.why == "the ward asked for it"
    assert world.running(first.release) == 8


def test_a_device_that_is_switched_off_goes_back_when_it_returns(make_world: Make) -> None:
    world = make_world(8)
    first, second = world.publish(1), world.publish(2)
    run(world, first)
    clock = {"at": now().timestamp()}
    driving = driver(world, clock=lambda: clock["at"])
    driving.start(second, QUICK)
    driving.step()
    world.poll()
    off = world.devices[driving.rollout.devices[0].id]
    assert off.running == second.release
    off.off = True
    driving.stop("by hand")
    for _ in range(6):
        driving.step()
        world.poll()
        clock["at"] += 20
    assert driving.rollout.phase is Phase.ROLLED_BACK
    assert "1 are away and go back when they return" in driving.rollout.events[-1].why
    assert off.running == second.release
    off.off = False
    off.restart()
    world.poll()
    assert off.running == first.release


def test_no_release_begins_that_devices_could_not_come_back_from(make_world: Make) -> None:
    world = make_world(4)
    first, second = world.publish(1), world.publish(2)
    run(world, first)
    world.rotate("clinical")  # by a new root the old sign-offs count no more
    world.state_again(second)
    with pytest.raises(ConfigError, match="could not go back to it"):
        driver(world).start(second, QUICK)


def test_every_role_is_rotated_and_every_device_follows(make_world: Make) -> None:
    world = make_world(10)
    first = world.publish(1)
    run(world, first)
    for role in ("fleet", "release", "clinical", "root"):
        world.rotate(role)
    with pytest.raises(KeyRevoked):
        driver(world)
    world.state_again(first)
    assert driver(world, adopt=True).renew(force=True)
    driving = driver(world)
    world.poll()
    assert world.running(first.release) == 10
    assert not [d.name for d in world.devices.values() if d.refusals]
    second = world.publish(2)
    driving.start(second, QUICK)
    for _ in range(8):
        driving.step()
        world.poll()
    assert driving.rollout.phase is Phase.CONFIRMED
    assert world.running(second.release) == 10


def test_the_record_of_a_rollout_is_signed_and_a_forged_one_refused(make_world: Make) -> None:
    world = make_world(4)
    first = world.publish(1)
    driving = driver(world)
    driving.start(first, QUICK)
    world.store.put(
        "fleets/ward/rollout.json",
        sign(ledger.PAYLOAD_TYPE, b"{}", world.keys["release"]).to_bytes(),
    )
    with pytest.raises(BadSignature):
        driver(world)
    world.store.put(
        "fleets/ward/rollout.json", sign(ledger.PAYLOAD_TYPE, b"{}", world.keys["fleet"]).to_bytes()
    )
    with pytest.raises(StoreError, match="is not the state of a rollout"):
        driver(world)


def test_a_forged_or_old_report_changes_nothing(make_world: Make) -> None:
    world = make_world(4)
    first = world.publish(1)
    run(world, first)
    name = next(iter(world.devices))
    reading = driver(world).reports
    honest = reading.read()[name]
    key, kind = f"fleets/ward/reports/{name}.json", ReportDocument.payload_type()
    old = world.store.get(key)

    forged = ReportDocument(
        fleet="ward",
        version=99,
        device=name,
        desired=9,
        release=None,
        slot=None,
        state="refused",
        issued=now(),
        expires=now() + timedelta(days=1),
    )
    other = world.devices[list(world.devices)[1]].key
    world.store.put(key, sign(kind, forged.to_bytes(), [other]).to_bytes())
    assert reading.read()[name] == honest
    assert "0 valid signature" in reading.doubtful[name]

    newer = forged.model_copy(update={"release": honest.release})
    world.store.put(key, sign(kind, newer.to_bytes(), [world.devices[name].key]).to_bytes())
    assert reading.read()[name].version == 99
    world.store.put(key, old)
    assert reading.read()[name].version == 99
    assert "an old one was put back" in reading.doubtful[name]


def test_one_device_cannot_push_the_version_out_of_reach(make_world: Make) -> None:
    """It claims to have seen version 9,000 of the desired state; if that were believed, no other device would follow."""
    world = make_world(6)
    first, second = world.publish(1), world.publish(2)
    run(world, first)
    liar = world.devices["ward-0003"]
    liar.off = True
    claim = ReportDocument(
        fleet="ward",
        version=999,
        device=liar.name,
        desired=900_000,
        release=first.release,
        slot="a",
        state="running",
        issued=now(),
        expires=now() + timedelta(days=1),
    )
    world.documents.put_report(liar.name, sign(claim.payload_type(), claim.to_bytes(), [liar.key]))
    driving = driver(world)
    driving.start(second, QUICK)
    driving.step()
    found = world.documents.find_desired(world.trust())
    assert found is not None
    assert found.document.version < 20


def test_renewal_keeps_the_rings_and_is_due_at_half_time(make_world: Make) -> None:
    world = make_world(4)
    first = world.publish(1)
    run(world, first)
    before = desired(world)
    assert not driver(world).renew()
    later = now() + timedelta(days=16)
    assert driver(world, clock=later.timestamp).renew()
    assert desired(world) == before
    gone = now() + timedelta(days=80)  # expired: what it lists is carried on all the same
    assert driver(world, clock=gone.timestamp).renew()
    assert desired(world) == before


def test_devices_outside_the_rollout_keep_what_they_are_listed_for(make_world: Make) -> None:
    """One device runs the new release already, by hand; the rollout goes to the others and leaves it alone."""
    world = make_world(5)
    first, second = world.publish(1), world.publish(2)
    run(world, first)
    wanted = {**desired(world), "ward-0004": Assignment(second.release)}
    set_desired(world.documents, world.trust(), rings_of(wanted), world.signing.values(), now=now())
    world.poll()
    driving = driver(world)
    started = driving.start(second, QUICK)
    assert started is not None
    assert "ward-0004" not in {d.id for d in started.devices}
    step = driving.step()
    assert step.decision is Decision.PUBLISH
    assert desired(world)["ward-0004"] == Assignment(second.release)
