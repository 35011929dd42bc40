"""The rollout's state machine: what it decides, device by device and ring by ring."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest

from benchmarks.fleet_outcomes import NEW, OLD, Fleet, healthy, refusing
from infra.edge.fleet import rollout
from infra.edge.fleet.rollout import Decision
from infra.edge.fleet.state import Assignment, Phase, Policy, Report, Result


def obedient(device: str, release: str) -> Report:
    return healthy(device, release=release)


def failed(device: str, kind: str = "Unhealthy") -> Report:
    return Report(device, 0, 0, OLD, "rolled back", error=kind, message="max |Δp| 0.4")


def test_a_good_release_reaches_every_device_ring_by_ring() -> None:
    fleet = Fleet(1000, obedient)
    done = fleet.run()
    assert done.phase is Phase.CONFIRMED
    assert fleet.running(NEW) == 1000
    assert fleet.listed == {d: Assignment(NEW) for d in fleet.ids}
    assert [e.ring for e in done.events] == [
        "1 device",
        "5 %",
        "25 %",
        "100 %",
    ]  # nobody failed: no second sample
    assert fleet.version == 1 + 4


def test_a_build_that_fails_everywhere_stops_at_one_device() -> None:
    fleet = Fleet(1000, refusing(set(Fleet(1000, obedient).ids)))
    done = fleet.run()
    assert done.phase is Phase.ROLLED_BACK
    assert sum(d.result is not None for d in done.devices) == 1
    assert fleet.running(OLD) == 1000
    assert "Unhealthy ×1" in done.why
    assert fleet.listed[done.devices[0].id] == Assignment(OLD, rollback=True)
    assert sum(entry.rollback for entry in fleet.listed.values()) == 1


def test_everything_on_the_bad_build_goes_back() -> None:
    """Three of the first 250 fail, a fourth makes it stop: the other 246 ran the bad build and must not keep it."""
    first = [d.id for d in Fleet(1000, obedient).begin().devices]
    bad = {first[60], first[70], first[80], first[90]}
    fleet = Fleet(1000, refusing(bad))
    done = fleet.run()
    assert done.phase is Phase.ROLLED_BACK
    assert done.rings[done.ring].name == "25 %"
    assert fleet.running(OLD) == 1000
    assert sum(d.result is Result.RUNNING for d in done.devices) == 246
    assert all(d.restored for d in done.asked_devices)


def test_one_failure_of_the_5_percent_asks_for_a_second_sample() -> None:
    first = [d.id for d in Fleet(1000, obedient).begin().devices]
    fleet = Fleet(1000, refusing({first[30]}))
    assert [e.ring for e in fleet.run().events] == ["1 device", "5 %", "10 %", "25 %", "100 %"]
    fleet = Fleet(1000, refusing({first[30], first[60], first[70]}))
    done = fleet.run()
    assert (done.phase, done.rings[done.ring].until) == (Phase.ROLLED_BACK, 100)


def test_what_a_device_of_a_ring_passed_over_refused_before_is_no_evidence() -> None:
    """The 10 % are asked with the 25 %. What they refused while only 5 % were asked is about another desired state."""
    fleet = Fleet(1000, obedient)
    later = [d.id for d in fleet.begin().devices][60:70]
    fleet.step()
    while fleet.rollout.rings[fleet.rollout.ring].name != "5 %":
        fleet.step()
    for device in later:
        fleet.reports[device] = replace(
            fleet.reports[device], version=2, desired=1, state="refused", error="Expired", message="clock"
        )
    fleet.answer = lambda d, r: None if d in later else obedient(d, r)
    while fleet.rollout.rings[fleet.rollout.ring].name == "5 %":
        fleet.step()
    fleet.step()
    assert fleet.rollout.rings[fleet.rollout.ring].name == "25 %"
    assert fleet.rollout.phase is Phase.ROLLING
    assert not [d.id for d in fleet.rollout.devices if d.result is Result.FAILED]
    assert fleet.rollout.asked == (2, 3, 4, 4)


def test_it_stops_at_the_failure_that_decides_without_waiting_for_the_rest() -> None:
    fleet = Fleet(1000, obedient)
    first = [d.id for d in fleet.begin().devices]
    fleet.answer = lambda d, r: failed(d) if d in first[1:3] else (obedient(d, r) if d == first[0] else None)
    done = fleet.run(looks=4)
    assert done.phase is Phase.ROLLING_BACK
    assert done.events[-1].at - done.opened <= 30


def test_an_offline_device_holds_its_ring_only_if_too_many_are() -> None:
    policy = Policy(patience_s=300, quorum=0.8)
    first = [d.id for d in Fleet(100, obedient).begin().devices]
    few = Fleet(100, lambda d, r: None if d in first[2:3] else obedient(d, r), policy=policy)
    done = few.run()
    assert done.phase is Phase.CONFIRMED
    assert few.running(NEW) == 99
    assert few.listed[first[2]] == Assignment(NEW)  # it will find it when it comes back

    many = Fleet(100, lambda d, r: None if d in first[1:4] else obedient(d, r), policy=policy)
    assert many.run().phase is Phase.ROLLING
    assert many.decisions[-1] is Decision.HOLD
    for device in first[1:4]:  # they come back
        many.reports[device] = healthy(device, release=NEW, desired=many.version, version=9)
    for _ in range(12):
        many.step()
    assert many.rollout.phase is Phase.CONFIRMED


def test_devices_away_at_the_start_go_last_and_hold_nothing() -> None:
    fleet = Fleet(100, obedient, policy=Policy(patience_s=300))
    away = set(fleet.ids[:30])
    for device in away:
        del fleet.reports[device]
    fleet.answer = lambda d, r: None if d in away else obedient(d, r)
    done = fleet.run()
    assert done.phase is Phase.CONFIRMED
    assert {d.id for d in done.devices[70:]} == away
    assert done.events[-1].at - done.began < 600


def test_a_device_that_was_ill_before_is_no_evidence_against_the_build() -> None:
    fleet = Fleet(100, obedient)
    for device in fleet.ids[:20]:
        fleet.reports[device] = replace(fleet.reports[device], error="Unhealthy", state="rolled back")
    assert {d.id for d in fleet.begin().devices[80:]} == set(fleet.ids[:20])


def test_a_device_that_began_and_fell_silent_counts_as_failed() -> None:
    first = [d.id for d in Fleet(100, obedient).begin().devices]

    def answer(device: str, release: str) -> Report | None:
        if release == NEW and device == first[0]:
            return Report(device, 0, 0, OLD, "installing")
        return healthy(device, release=release)

    fleet = Fleet(100, answer, policy=Policy(patience_s=300))
    done = fleet.run()
    assert done.phase is Phase.ROLLED_BACK
    assert (done.devices[0].result, done.devices[0].kind) == (Result.LOST, "Lost")


def test_a_silent_device_never_counts_as_running() -> None:
    fleet = Fleet(100, lambda d, r: None, policy=Policy(patience_s=300))
    done = fleet.run()
    assert fleet.decisions[-1] is Decision.HOLD
    assert done.ring == 0


@pytest.mark.parametrize("kind", sorted(rollout.NOT_THE_BUILDS_FAULT))
def test_a_full_disk_is_not_the_builds_fault_but_a_fleet_of_them_goes_nowhere(kind: str) -> None:
    fleet = Fleet(100, refusing(set(Fleet(100, obedient).ids), kind), policy=Policy(patience_s=300))
    done = fleet.run()
    assert done.phase is Phase.ROLLING
    assert (fleet.decisions[-1], done.ring) == (Decision.HOLD, 0)


def test_a_failure_stays_one_and_a_success_may_become_one() -> None:
    fleet = Fleet(100, obedient)
    fleet.begin()
    fleet.step()
    first = fleet.rollout.devices[0].id
    fleet.reports[first] = replace(failed(first), desired=fleet.version, version=8)
    fleet.step()
    assert fleet.rollout.phase is Phase.ROLLING_BACK
    late = rollout.advance(
        replace(fleet.rollout, phase=Phase.ROLLING),
        {first: healthy(first, release=NEW, desired=fleet.version, version=9)},
        fleet.now,
    )
    assert late.rollout.devices[0].result is Result.FAILED


def test_an_old_report_is_not_about_this_ring() -> None:
    """The device ran this very release once, under an earlier desired state: that says nothing of now."""
    fleet = Fleet(100, lambda d, r: None)
    fleet.begin()
    fleet.step()
    first = fleet.rollout.devices[0].id
    fleet.reports[first] = healthy(first, release=NEW, desired=fleet.version - 1, version=5)
    assert fleet.step().rollout.devices[0].result is None


def test_a_refusal_of_the_desired_state_itself_counts_once_it_is_new() -> None:
    fleet = Fleet(100, lambda d, r: None)
    first = fleet.begin().devices[0].id
    old = Report(first, 7, 0, OLD, "refused", error="BadSignature", message="0 valid signatures")
    fleet.reports[first] = old
    fleet.step()
    assert fleet.step().rollout.devices[0].result is None
    fleet.reports[first] = replace(old, version=8)
    assert fleet.step().rollout.devices[0].result is Result.FAILED


def test_a_slow_build_is_stopped_by_pairs_and_a_noisy_one_is_not() -> None:
    draw = random.Random(3)
    own = {
        d: draw.uniform(5, 50) for d in Fleet(1000, obedient).ids
    }  # devices differ tenfold; pairs don't care

    def at(factor: float, noise: float):
        def answer(device: str, release: str) -> Report:
            slow = factor if release == NEW else 1.0
            return healthy(device, release=release, p95_ms=own[device] * slow * draw.lognormvariate(0, noise))

        return answer

    def run(factor: float, noise: float) -> Fleet:
        fleet = Fleet(1000, at(factor, noise))
        fleet.reports = {d: healthy(d, p95_ms=own[d]) for d in fleet.ids}
        fleet.run()
        return fleet

    slow = run(1.35, 0.1)
    assert slow.rollout.phase is Phase.ROLLED_BACK
    assert "p95 grew by more than 20%" in slow.rollout.why
    assert slow.rollout.rings[slow.rollout.ring].name == "5 %"
    assert slow.running(OLD) == 1000
    assert run(1.0, 0.2).rollout.phase is Phase.CONFIRMED


def test_a_device_twice_as_slow_is_a_failure_even_alone() -> None:
    fleet = Fleet(100, lambda d, r: healthy(d, release=r, p95_ms=21.0 if r == NEW else 10.0))
    done = fleet.run()
    assert done.phase is Phase.ROLLED_BACK
    assert done.ring == 0
    assert done.devices[0].kind == rollout.SLOWER


def test_a_tail_that_doubles_on_one_busy_device_is_none() -> None:
    """p95 ×2.5, p50 as before: something else ran on that device. The first ring passes, the fleet's pairs decide."""

    def answer(device: str, release: str) -> Report:
        said = healthy(device, release=release)
        return replace(said, p95_ms=25.0) if device == first and release == NEW else said

    fleet = Fleet(100, answer)
    first = fleet.begin().devices[0].id
    assert fleet.run().phase is Phase.CONFIRMED


def test_a_fleet_that_waits_for_its_first_release_is_present() -> None:
    """Devices without any release report that there is nothing for them; they are there all the same."""
    fleet = Fleet(20, obedient)
    fleet.listed = {}
    fleet.reports = {
        d: Report(d, 1, 0, None, "refused", error="StoreUnreachable", message="the store does not have it")
        for d in fleet.ids
    }
    assert all(d.present for d in fleet.begin().devices)
    done = fleet.run()
    assert (done.phase, fleet.running(NEW)) == (Phase.CONFIRMED, 20)


def test_a_ring_soaks() -> None:
    fleet = Fleet(20, obedient, policy=Policy(soak_s=600))
    done = fleet.run(looks=200)
    widened = [e.at for e in done.events]
    assert min(b - a for a, b in itertools.pairwise(widened)) >= 600


def test_a_mixed_fleet_goes_back_to_what_each_ran() -> None:
    older = "2" * 64
    fleet = Fleet(10, obedient)
    for i, device in enumerate(fleet.ids):
        if i % 2:
            fleet.reports[device] = healthy(device, release=older)
            fleet.listed[device] = Assignment(older)
    fleet.begin()
    for _ in range(2):
        fleet.step()
    assert fleet.running(NEW) == 3
    fleet.rollout = rollout.stop(fleet.rollout, "the ward asked for it", fleet.now)
    for _ in range(4):
        if rollout.unpublished(fleet.rollout):
            fleet.publish()
        fleet.step()
    assert fleet.rollout.phase is Phase.ROLLED_BACK
    assert [fleet.reports[d].release for d in fleet.ids] == [older if i % 2 else OLD for i in range(10)]


def test_bad_on_5_percent_over_200_seeds() -> None:
    """The state machine itself, a thousand devices, fifty bad ones drawn anew, its own order of asking every time."""
    stopped_by = []
    for seed in range(200):
        bad = set(random.Random(seed).sample(Fleet(1000, obedient).ids, 50))
        fleet = Fleet(1000, refusing(bad), number=seed + 1)
        done = fleet.run_quickly()
        assert done.phase is Phase.ROLLED_BACK
        assert fleet.running(OLD) == 1000
        stopped_by.append(done.rings[done.ring].until)
    shares = [sum(s <= until for s in stopped_by) / 200 for until in (50, 100, 250)]
    assert shares[0] >= 0.70  # 0.7323 expected, ± 0.031
    assert shares[1] >= 0.80  # ring 2 with its second sample: 0.8781 expected, ± 0.023
    assert shares[2] >= 0.98


def test_a_good_build_is_rarely_stopped() -> None:
    """30 rollouts at a base failure rate of 0.2 %: 0.4 stopped expected; P[more than 3] = 0.04 %."""
    stopped = 0
    for seed in range(30):
        draw = random.Random(seed)
        bad = {d for d in Fleet(1000, obedient).ids if draw.random() < 0.002}
        stopped += Fleet(1000, refusing(bad), number=seed + 1).run_quickly().phase is Phase.ROLLED_BACK
    assert stopped <= 3
