"""What listening costs, and how late it is: speed on one core, memory over hours, latency.

    OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.listen --bundle runs/latest --manifest clips.csv [speed] [memory] [latency]

The streams are made of a manifest's clips: sounds that are no cry, and in between, crying. Their onsets are known, so it can be
told how late a bout is told, which were missed, and how often there was none. Of the manifest that the release learned from, only
the test part is heard.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil

from benchmarks.timing import Spread
from infra import quiet
from infra.edge.bundle import Bundle, load_bundle
from infra.edge.listen.detector import Detector
from infra.edge.listen.events import Bout
from infra.edge.scorer import Scorer
from models.config import SAMPLE_RATE
from models.frames import TEST

Json = dict[str, Any]
Wave = npt.NDArray[np.float32]

_BLOCK = SAMPLE_RATE // 10
_CRY_SECONDS = 9.0
_REST_EVERY = 40.0  # seconds of work after which others may have the core


@dataclass(frozen=True)
class Clips:
    """16 kHz waves by what is heard in them."""

    cries: list[list[Wave]]  # by infant
    others: list[Wave]


def load_clips(path: Path, bundle: Bundle, limit: int = 400) -> Clips:
    """Clips of a manifest that the release has not learned from, evenly over its rows."""
    from infra.data.audio import read_audio
    from infra.data.manifest import load_manifest
    from infra.data.splits import assign_folds, parts

    manifest, data = load_manifest(path), bundle.manifest.data
    table = manifest.table
    if manifest.digest == data.manifest_digest:
        folds = assign_folds(table, n_folds=data.n_folds, seed=data.fold_seed)
        table = table[np.asarray(parts(folds, test_fold=data.test_fold, val_fold=data.val_fold)) == TEST]
    cries: dict[str, list[Wave]] = {}
    others: list[Wave] = []
    for role in ("cry", "ood_noncry", "noise"):
        rows = table[table["role"] == role]
        for row in rows.iloc[:: max(1, len(rows) // limit)].itertuples():
            wave = read_audio(manifest.root / str(row.path), max_seconds=600, max_bytes=2**28)
            if role == "cry":
                cries.setdefault(str(row.group), []).append(wave)
            else:
                others.append(wave)
    return Clips(list(cries.values()), others)


def night(
    clips: Clips, seconds: float, seed: int = 0, cry_every: float = 60.0, quiet: float = 0.0
) -> Iterator[tuple[str, Wave]]:
    """A stream of about `seconds`: other sounds, a share `quiet` of them too soft to be scored, and every `cry_every` seconds
    an infant cries for 9 s."""
    rng = np.random.default_rng(seed)
    done = since = 0.0
    while done < seconds:
        if since >= cry_every:
            infant = clips.cries[rng.integers(len(clips.cries))]
            parts = [infant[i] for i in rng.permutation(len(infant))]
            wave = np.resize(np.concatenate(parts), round(_CRY_SECONDS * SAMPLE_RATE))
            kind, since = "cry", 0.0
        else:
            wave = clips.others[rng.integers(len(clips.others))]
            if rng.uniform() < quiet:
                wave = wave * np.float32(1e-3)
            kind, since = "other", since + len(wave) / SAMPLE_RATE
        done += len(wave) / SAMPLE_RATE
        yield kind, wave


def blocks(wave: Wave) -> Iterator[Wave]:
    """A tenth of a second at a time."""
    for at in range(0, len(wave), _BLOCK):
        yield wave[at : at + _BLOCK]


def speed(scorer: Scorer, clips: Clips, minutes: float, repeats: int) -> Json:
    """Times real time, by CPU time of this process, which is bound to one core."""
    every = np.concatenate([w for _, w in night(clips, 60 * minutes)])
    rows: Json = {}
    for name, rate, channels in (
        ("16 kHz mono", 16_000, 1),
        ("44.1 kHz stereo", 44_100, 2),
        ("48 kHz mono", 48_000, 1),
    ):
        wave = np.interp(
            np.arange(round(len(every) * rate / SAMPLE_RATE)) * SAMPLE_RATE / rate,
            np.arange(len(every)),
            every,
        )
        block = np.repeat(wave.astype(np.float32)[:, None], channels, axis=1)
        times, scored = [], 0
        for _ in range(repeats):
            listening = Detector.of(scorer)
            began = time.process_time()
            for at in range(0, len(block), rate // 10):
                listening.feed(block[at : at + rate // 10], rate)
            listening.finish()
            times.append((len(block) / rate) / (time.process_time() - began))
            scored = listening.frames_scored
        rows[name] = {
            "times_real_time": Spread.of(times).to_dict(),
            "frames_scored_per_s": scored / (60 * minutes),
        }
    frame = every[:SAMPLE_RATE][None]
    parts = []
    for _ in range(200):
        began = time.process_time()
        scorer.graph.run(frame)
        parts.append(1000 * (time.process_time() - began))
    rows["graph_ms_per_frame"] = Spread.of(parts).to_dict()
    return rows


def memory(bundle: Path, manifest: Path, hours: float, rest: float) -> Json:
    """Resident set by simulated hour, of a process that does nothing but listen."""
    child = subprocess.run(
        [sys.executable, "-m", "benchmarks.listen", "--bundle", str(bundle), "--manifest", str(manifest), "hours",
         "--hours", str(hours), "--rest", str(rest)],
        stdout=subprocess.PIPE, check=True, text=True,
    )  # fmt: skip
    found: Json = json.loads(child.stdout.splitlines()[-1])
    return found


def hours_of_listening(scorer: Scorer, clips: Clips, hours: float, rest: float) -> Json:
    """The child of `memory`. Its clips lie in memory throughout, so they do not count as growth."""
    process = psutil.Process()
    listening = Detector.of(scorer)
    rss: dict[str, float] = {}
    bouts = 0
    due, worked = 0.5, time.monotonic()
    for _, wave in night(clips, 3600 * hours, cry_every=300.0, quiet=0.7):
        for block in blocks(wave):
            bouts += sum(isinstance(e, Bout) and e.phase == "end" for e in listening.feed(block))
        if listening.seconds / 3600 >= due:
            rss[f"{due:g}"] = process.memory_info().rss / 2**20
            print(f"{due:g} h: {rss[f'{due:g}']:.1f} MiB", file=sys.stderr, flush=True)
            due += 0.5
        if rest and time.monotonic() - worked > _REST_EVERY:
            time.sleep(rest)
            worked = time.monotonic()
    return {
        "hours": listening.seconds / 3600, "bouts": bouts, "cpu_s": sum(process.cpu_times()[:2]), "rss_mib": rss,
        "high_water_mib": _high_water(),
    }  # fmt: skip


def _high_water() -> float:
    (line,) = [s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def latency(scorer: Scorer, clips: Clips, minutes: float) -> Json:
    """From sample to event: computing, and waiting to be sure."""
    listening = Detector.of(scorer)
    compute: list[float] = []
    truth: list[tuple[float, float]] = []
    told: list[tuple[float, float, float]] = []  # begin, at, end; of both kinds
    opened: Bout | None = None
    for kind, wave in night(clips, 60 * minutes, cry_every=30.0):
        begin = listening.seconds
        for block in blocks(wave):
            began = time.perf_counter()
            found = listening.feed(block)
            compute.append(1000 * (time.perf_counter() - began))
            for event in found:
                if isinstance(event, Bout):
                    if event.phase == "begin":
                        opened = event
                    elif opened is not None:
                        told.append((opened.begin, opened.at, event.end or event.at))
        if kind == "cry":
            truth.append((begin, listening.seconds))
    late, begins, ends, missed = [], [], [], 0
    false = list(told)
    for begin, end in truth:
        hits = [t for t in told if t[0] < end and t[2] > begin]
        false = [t for t in false if t not in hits]
        if not hits:
            missed += 1
            continue
        late.append(hits[0][1] - begin)
        begins.append(hits[0][0] - begin)
        ends.append(hits[-1][2] - end)
    percent = dict(
        zip(("p50", "p95", "p99", "max"), np.percentile(compute, (50, 95, 99, 100)).tolist(), strict=True)
    )
    return {
        "compute_ms_per_block_of_100_ms": percent,
        "onset_to_event_s": dict(zip(("p50", "p95", "max"), np.percentile(late, (50, 95, 100)).tolist(), strict=True)),
        "error_of_begin_s": Spread.of(begins).to_dict(),
        "error_of_end_s": Spread.of(ends).to_dict(),
        "bouts_of_crying": len(truth), "missed": missed,
        "false_bouts": len(false), "hours_without_crying": (listening.seconds - sum(e - b for b, e in truth)) / 3600,
    }  # fmt: skip


def main() -> None:
    """Run what was asked for and print it as JSON."""
    quiet.apply()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", default=["speed", "memory", "latency"])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument(
        "--minutes", type=float, default=20.0, help="of audio, for speed; latency takes three times as much"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--hours", type=float, default=10.0)
    parser.add_argument("--rest", type=float, default=0.0, help="seconds of sleep after every 40 of work")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    bundle = load_bundle(options.bundle)
    scorer = Scorer(bundle)
    if options.sections == ["hours"]:
        clips = load_clips(options.manifest, bundle, limit=60)
        print(json.dumps(hours_of_listening(scorer, clips, options.hours, options.rest)))
        return
    clips = load_clips(options.manifest, bundle)
    out: Json = {"release": scorer.bundle.digest, "cpu": _cpu()}
    if "speed" in options.sections:
        out["speed"] = speed(scorer, clips, options.minutes, options.repeats)
    if "latency" in options.sections:
        out["latency"] = latency(scorer, clips, 3 * options.minutes)
    if "memory" in options.sections:
        out["memory"] = memory(options.bundle, options.manifest, options.hours, options.rest)
    text = json.dumps(out, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown"


if __name__ == "__main__":
    main()
