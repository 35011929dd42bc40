"""What a rollout does to a fleet, and how long it takes.

    OMP_NUM_THREADS=1 python -m benchmarks.fleet [good bad some chances rotation deploy] [--devices N] [--seeds N] [--json OUT]

    good       a good release reaches every device
    bad        one that fails everywhere stops at one device, and every device ends on the old one
    some       one that fails on 5 % of the devices: whole rollouts of real agents, each seed with its own bad devices
    chances    the same over `--seeds` seeds (200) on 1,000 devices, the rollout's own code with devices that answer as told
    rotation   every role's keys are exchanged; every device follows, and takes the next release
    deploy     `cryfed deploy --fleet` on 100 devices: seconds from the command to the last device

All but `chances` run the real agent against the embedded S3 store; see `benchmarks.fleet_devices` for what is simulated.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks import fleet_outcomes
from benchmarks.fleet_devices import Behave, Behaviour, World, obedient
from benchmarks.fleet_home import FLEET, Home, Polling
from infra.edge.fleet.abort import AbortRule, stopping
from infra.edge.fleet.operate import Driver
from infra.edge.fleet.rings import plan
from infra.edge.fleet.state import Phase, Policy, Rollout
from infra.edge.trust.documents import ReleaseDocument
from infra.store import embedded
from infra.store.content import S3Content
from infra.store.embedded import EmbeddedServer

Json = dict[str, Any]

POLICY: Final = Policy(patience_s=120.0)
SHARE_BAD: Final = 0.05


class Bench:
    """A store for the whole run, and a fresh fleet for every section."""

    def __init__(self, folder: Path, server: EmbeddedServer) -> None:
        self.folder, self.server = folder, server
        self._made = 0

    def world(self, size: int, behave: Behave = obedient, **changes: Any) -> World:
        """A fleet of its own, in a bucket of its own."""
        self._made += 1
        store = self.server.connect(bucket=f"{self.folder.name}-{self._made}")
        store.ensure_bucket()
        folder = self.folder / f"fleet-{self._made}"
        folder.mkdir()
        return World(store, self.server, folder, "ward", size, behave, **changes)


def roll(world: World, release: ReleaseDocument) -> tuple[Rollout, Json]:
    """A whole rollout: the deployer looks, then every device polls, and so on."""
    began, looks, widest = time.perf_counter(), 0, 0
    driver = Driver(world.store, world.fleet, world.trust, world.signing)
    driver.start(release, POLICY)
    while not driver.rollout.phase.over and looks < 50:
        driver.step()
        world.poll()
        looks += 1
        widest = max(widest, world.running(release.release))
    rollout = driver.rollout
    return rollout, {
        "phase": str(rollout.phase),
        "why": rollout.why,
        "ring": rollout.rings[rollout.ring].name,
        "asked": rollout.rings[rollout.ring].until,
        "most_at_once": widest,
        "running": world.running(release.release),
        "looks": looks,
        "seconds": round(time.perf_counter() - began, 1),
    }


def good(bench: Bench, args: argparse.Namespace) -> Json:
    """A good release on a fresh fleet, then the next one over it."""
    world = bench.world(args.devices)
    results = [roll(world, world.publish(n))[1] for n in (1, 2)]
    assert all(r["running"] == args.devices and r["phase"] == Phase.CONFIRMED for r in results)
    openssl = sum(d.openssl for d in world.devices.values())
    return {"devices": args.devices, "with_openssl": openssl, "first": results[0], "next": results[1]}


def bad(bench: Bench, args: argparse.Namespace) -> Json:
    """A release that fails everywhere."""
    world = bench.world(args.devices, lambda device, number: Behaviour(healthy=number != 2))  # noqa: ARG005
    first = world.publish(1)
    roll(world, first)
    rollout, result = roll(world, world.publish(2))
    touched = sum("Unhealthy" in d.refusals for d in world.devices.values())
    assert (rollout.phase, touched, world.running(first.release)) == (Phase.ROLLED_BACK, 1, args.devices)
    return {**result, "devices_that_tried_it": touched, "on_the_old_release": world.running(first.release)}


def some(bench: Bench, args: argparse.Namespace) -> Json:
    """A release that fails on 5 % of the devices, a few seeds, every rollout whole."""
    runs = []
    sick: set[str] = set()
    world = bench.world(
        args.devices, lambda device, number: Behaviour(healthy=number == 1 or device not in sick)
    )
    first = world.publish(1)
    roll(world, first)
    for seed in range(args.whole):
        sick.clear()
        sick.update(random.Random(seed).sample(sorted(world.devices), round(SHARE_BAD * args.devices)))  # noqa: S311
        _, result = roll(world, world.publish(2 + seed))
        assert world.running(first.release) == args.devices, "every device ends on the old release"
        runs.append(result)
    return {"devices": args.devices, "runs": runs}


def chances(bench: Bench, args: argparse.Namespace) -> Json:  # noqa: ARG001
    """Which ring stops it, over many seeds, beside the exact chance."""
    size = 1000
    rings = plan(size)
    stopped: Counter[int] = Counter()
    for seed in range(args.seeds):
        fleet = fleet_outcomes.Fleet(size, fleet_outcomes.silent, number=seed + 1)
        sick = set(random.Random(seed).sample(fleet.ids, round(SHARE_BAD * size)))  # noqa: S311
        fleet.answer = fleet_outcomes.refusing(sick)
        ended = fleet.run_quickly()
        assert ended.phase is Phase.ROLLED_BACK
        assert fleet.running(fleet_outcomes.OLD) == size
        stopped[ended.ring] += 1
    exact = stopping(rings, AbortRule(), failing=round(SHARE_BAD * size))
    shares = {
        ring.name: {
            "by_then": sum(stopped[j] for j in range(i + 1)) / args.seeds,
            "exactly": round(exact[i], 4),
        }
        for i, ring in enumerate(rings)
    }
    wrong = 0
    for seed in range(args.seeds):
        draw = random.Random(10_000 + seed)  # noqa: S311
        fleet = fleet_outcomes.Fleet(size, fleet_outcomes.silent, number=seed + 1)
        fleet.answer = fleet_outcomes.refusing(
            {d for d in fleet.ids if draw.random() < AbortRule().base_rate}
        )
        wrong += fleet.run_quickly().phase is Phase.ROLLED_BACK
    return {
        "seeds": args.seeds,
        "bad_on_5_percent": shares,
        "good_wrongly_stopped": wrong / args.seeds,
        "exactly": round(stopping(rings, AbortRule(), rate=AbortRule().base_rate)[-1], 4),
    }


def rotation(bench: Bench, args: argparse.Namespace) -> Json:
    """Every role's keys exchanged, one root after the other; then the next release."""
    world = bench.world(args.devices)
    first = world.publish(1)
    roll(world, first)
    for role in ("fleet", "release", "clinical", "root"):
        world.rotate(role)
    world.state_again(first)
    began = time.perf_counter()
    Driver(world.store, world.fleet, world.trust, world.signing, adopt=True).renew(force=True)
    world.poll()
    followed = sum(not d.refusals and d.root_version == 5 for d in world.devices.values())
    assert followed == args.devices
    seconds = round(time.perf_counter() - began, 1)
    driver = Driver(world.store, world.fleet, world.trust, world.signing)
    driver.start(world.publish(2), POLICY)
    while not driver.rollout.phase.over:
        driver.step()
        world.poll()
    return {
        "devices": args.devices,
        "followed": followed,
        "seconds": seconds,
        "next_release": str(driver.rollout.phase),
    }


def deploy(bench: Bench, args: argparse.Namespace) -> Json:  # noqa: ARG001
    """The command itself, in a process of its own, while 100 devices poll every 2 s, each in its own time."""
    from tests.releases import export_tiny, make_whole_bundle, publish

    size = 100
    with Home(bench.folder, size, openssl_every=25, real_engines=True) as home:
        world, scratch = home.world, bench.folder
        graph, content = export_tiny(scratch / "model.onnx"), S3Content(world.store, scratch / "cache")
        runs = []
        with Polling(world, every_s=2.0):
            for note in ("one", "two"):
                release = publish(content, make_whole_bundle(scratch / note, graph, notes=(note,)))
                world.state(release)
                began = time.perf_counter()
                done = home.cryfed("deploy", "dev", "--fleet", FLEET, "--reference", str(release.version))
                seconds = time.perf_counter() - began
                assert done.returncode == 0, done.stdout + done.stderr
                runs.append(
                    {
                        "seconds": round(seconds, 1),
                        "running": world.running(release.manifest_digest),
                        "said": done.stdout.splitlines()[:2],
                    }
                )
        return {"devices": size, "runs": runs}


SECTIONS: Final[dict[str, Callable[[Bench, argparse.Namespace], Json]]] = {
    "good": good,
    "bad": bad,
    "some": some,
    "chances": chances,
    "rotation": rotation,
    "deploy": deploy,
}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sections", nargs="*", default=list(SECTIONS), metavar="SECTION")
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=200, help="of `chances`")
    parser.add_argument("--whole", type=int, default=3, help="seeds of `some`")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if unknown := set(args.sections) - set(SECTIONS):
        parser.error(f"no section {sorted(unknown)[0]}; there are {', '.join(SECTIONS)}")
    found: Json = {}
    with tempfile.TemporaryDirectory(prefix="fleet-") as name:
        folder = Path(name)
        server = embedded.ensure_running(folder)
        try:
            for section in args.sections:
                found[section] = SECTIONS[section](Bench(_fresh(folder, section), server), args)
                print(section, json.dumps(found[section], indent=2), flush=True)
        finally:
            embedded.stop_running(folder)
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")


def _fresh(folder: Path, section: str) -> Path:
    path = folder / section
    path.mkdir()
    return path


if __name__ == "__main__":
    main()
