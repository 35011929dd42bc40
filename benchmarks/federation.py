"""What the federation costs: rounds an hour against the best plain PyTorch loop, bytes, milliseconds, memory.

    OMP_NUM_THREADS=1 python -m benchmarks.federation [speed stages parts wire costs memory] [--preset compact] [--json OUT]

    speed    rounds an hour of every means (`children`), one round of each in turn, and the same θ from all of them
    stages   where a federated round's time goes, exchange by exchange
    parts    the same by function, in one process; also at `paper` size, where a site takes one step
    wire     bytes of one site in one round, `paper` preset
    costs    milliseconds of each operation, `paper` preset
    memory   largest resident sets, `paper` preset

All at 8 sites, secure aggregation, control variates, 8 bits unless said. Frames and weights are random.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import costs, parts, stages, wire
from benchmarks.children import FEDERATED, PLAIN
from benchmarks.jobs import World, make_world
from benchmarks.timing import Child, Series, Spread, interleave
from models.adapters import adapter_schema
from models.local_step import LocalConfig

Json = dict[str, Any]
Table = list[tuple[str, ...]]

SITES = 8
BEST = ("1x2-torch", "1x2-sites", "2x1")  # what the federation must keep up with, on two cores


def speed(args: argparse.Namespace, folder: Path) -> tuple[Json, Table]:
    """Rounds an hour, paired within each repetition."""
    world = _world(args, folder)
    runs: list[dict[str, Series]] = []
    for number in range(args.repeats):
        children = []
        for kind in args.kinds:
            place = folder / f"{number}-{kind}"
            world.job(place, rounds=args.rounds + 1, eval_every=0, local={"steps": args.steps})
            children.append(Child(kind, place / "job.json", folder / f"{number}-{kind}.log"))
        runs.append(interleave(children, args.rounds))
    agree(runs)
    return summary(runs)


def agree(runs: list[dict[str, Series]]) -> None:
    """The same θ from every means, bit for bit; two threads inside torch sum in another order, and need not.

    Raises:
        AssertionError: some θ differs.
    """
    digests = {(kind, s.digest) for run in runs for kind, s in run.items() if kind != "1x2-torch"}
    if len({digest for _, digest in digests}) != 1:
        raise AssertionError(f"not one θ: {sorted(digests)}")


def summary(runs: list[dict[str, Series]]) -> tuple[Json, Table]:
    """Medians and ranges over repetitions; a ratio is of two times of the same repetition."""
    found: Json = {"theta": runs[0]["flower"].digest, "kinds": {}}
    table: Table = [
        ("", "rounds/h", "s a round", "CPU s a round", "of the best plain loop", "cold start s", "MiB")
    ]
    best = [min(run[kind].seconds for kind in BEST if kind in run) for run in runs]
    for kind in runs[0]:
        own = [run[kind] for run in runs]
        row = {
            "rounds_per_hour": Spread.of(3600.0 / s.seconds for s in own),
            "seconds": Spread.of(s.seconds for s in own),
            "cpu_seconds": Spread.of(s.cpu / len(s.rounds) for s in own),
            "of_best": Spread.of(b / s.seconds for b, s in zip(best, own, strict=True)),
            "cold_start": Spread.of(s.cold_start for s in own),
            "peak_mib": Spread.of(max(s.peak_mib.values()) for s in own),
        }
        same = {s.digest for s in own} == {found["theta"]}
        found["kinds"][kind] = {**{k: v.to_dict() for k, v in row.items()}, "same_theta": same}
        table.append((kind if same else f"{kind} (other bits)", *(str(v) for v in row.values())))
    return found, table


def time_stages(args: argparse.Namespace, folder: Path) -> tuple[Json, Table]:
    """Exchanges of a federated round."""
    world = _world(args, folder)
    found: Json = {}
    table: Table = [("ms a round", "tally", "wall", "dispatch", "busy, Σ sites", "idle, Σ actors", "collect")]
    for every in (0, 1):
        place = folder / f"staged-{every}"
        world.job(place, rounds=args.rounds + 1, eval_every=every)
        child = Child("staged", place / "job.json", folder / "staged.log")
        interleave([child], args.rounds)
        spans = stages.breakdown(place)
        found[f"eval_every={every}"] = {s: {n: v.to_dict() for n, v in p.items()} for s, p in spans.items()}
        for stage, parted in spans.items():
            cells = [
                str(parted[n]) if n in parted else "" for n in ("wall", "dispatch", "busy", "idle", "collect")
            ]
            table.append((stage, "yes" if every else "no", *cells))
    return found, table


def time_parts(args: argparse.Namespace, folder: Path) -> tuple[Json, Table]:
    """Functions of a round."""
    paper = make_world(folder / "paper", preset_name="paper", clips=24)
    found = {
        args.preset: parts.measure(_world(args, folder), folder / "parts", args.rounds),
        "paper, one step": parts.measure(paper, folder / "paper-parts", 3, local=wire.SETTLED),
    }
    table: Table = [("ms a round, Σ over 8 sites in one process", "calls", *found)]
    table += [
        (name, str(calls), *(str(each[name][1]) for each in found.values()))
        for name, (calls, _) in found[args.preset].items()
    ]
    return {
        case: {name: {"calls": calls, **ms.to_dict()} for name, (calls, ms) in each.items()}
        for case, each in found.items()
    }, table


def count_bytes(_args: argparse.Namespace, folder: Path) -> tuple[Json, Table]:
    """Bytes of one site in one round."""
    worlds = {
        freeze: make_world(folder / f"wire-{freeze}", preset_name="paper", clips=24, freeze_a=freeze)
        for freeze in (False, True)
    }
    cases = {
        f"{'FFA-LoRA, ' if freeze else ''}{bits} bits, masked": wire.of_federation(
            world, folder / f"wire-{freeze}-{bits}", codec={"bits": bits}
        )
        for freeze, world in worlds.items()
        for bits in (8, 4)
    }
    size = adapter_schema(worlds[False].net).size
    whole = sum(p.numel() for p in worlds[False].net.parameters())
    cases["Flower's SecAgg+, adapters"] = wire.of_secaggplus(size, SITES)
    cases["whole model, fp16"] = wire.of_model(whole, 2)
    cases["whole model, fp32"] = wire.of_model(whole, 4)
    table: Table = [
        (
            "of one site in one round",
            "values",
            "up MB",
            "down MB",
            "up beside the vector, KB",
            "up in Flower's frame, MB",
        )
    ]
    for name, case in cases.items():
        beside, framed = "", ""
        if "stages" in case:
            largest = max(both["up"] for both in case["stages"].values())
            beside = f"{(case['up'] - largest) / 1e3:.1f}"
            framed = _mb(case.get("framed", case)["up"])
        table.append((name, str(case["parameters"]), _mb(case["up"]), _mb(case["down"]), beside, framed))
    return cases, table


def time_costs(args: argparse.Namespace, folder: Path) -> tuple[Json, Table]:
    """Milliseconds on one core."""
    torch.set_num_threads(1)
    world = make_world(folder / "costs", preset_name="paper", sites=1, clips=12)
    size = adapter_schema(world.net).size
    by_bits = {bits: costs.measure(size, bits, SITES, args.times) for bits in (8, 4)}
    table: Table = [(f"ms, P = {size}, {SITES} sites", "8 bits", "4 bits")]
    table += [(a, str(v), str(w)) for (a, v), w in zip(by_bits[8].items(), by_bits[4].values(), strict=True)]
    return {f"{b} bits": {n: v.to_dict() for n, v in c.items()} for b, c in by_bits.items()}, table


def weigh(args: argparse.Namespace, folder: Path) -> tuple[Json, Table]:
    """Peak resident sets of the server's process and of the largest actor; an actor serves half of the sites in turn."""
    world = make_world(folder / "memory", preset_name="paper", clips=24)
    peaks: list[dict[str, float]] = []
    for number in range(args.repeats):
        place = folder / f"memory-{number}"
        world.job(place, rounds=3, eval_every=0, local=wire.SETTLED)
        peaks.append(
            interleave([Child("flower", place / "job.json", folder / "memory.log")], 2)["flower"].peak_mib
        )
    table: Table = [("paper, MiB", "peak resident set")]
    found: Json = {}
    for role, name in (("process", "server, with Flower's runtime"), ("actor", "an actor that does sites")):
        spread = Spread.of(p[role] for p in peaks)
        found[role] = spread.to_dict()
        table.append((name, str(spread)))
    return found, table


Section = Callable[[argparse.Namespace, Path], tuple[Json, Table]]
SECTIONS: dict[str, Section] = {
    "speed": speed,
    "stages": time_stages,
    "parts": time_parts,
    "wire": count_bytes,
    "costs": time_costs,
    "memory": weigh,
}


def _world(args: argparse.Namespace, folder: Path) -> World:
    return make_world(folder / "world", preset_name=args.preset, sites=SITES)


def _mb(size: float) -> str:
    return f"{size / 1e6:.3f}"


def show(table: Table) -> str:
    """Columns, aligned."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], help="all by default")
    parser.add_argument("--preset", default="compact", help="of speed, stages and parts")
    parser.add_argument("--rounds", type=int, default=12, help="timed rounds of speed, stages and parts")
    parser.add_argument("--steps", type=int, default=LocalConfig().steps, help="a site and round, of speed")
    kinds = (*FEDERATED, *PLAIN)
    parser.add_argument(
        "--kinds",
        nargs="+",
        choices=kinds,
        default=kinds,
        help="of speed; flower and one of the best plain loops at least",
    )
    parser.add_argument("--repeats", type=int, default=3, help="of speed and memory")
    parser.add_argument("--times", type=int, default=7, help="calls of each operation of costs")
    parser.add_argument("--json", type=Path, help="also write everything there")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    results: Json = {}
    for name in args.sections or SECTIONS:
        with tempfile.TemporaryDirectory(prefix="cryfed-benchmark-") as folder:
            results[name], table = SECTIONS[name](args, Path(folder))
        print(show(table), flush=True)
        print(flush=True)
        if args.json:
            args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
