"""What one second of audio costs on this CPU, by component and as a whole: torch, ONNX Runtime in float32 and in int8, TensorRT.

    python -m benchmarks.latency [--preset compact paper] [--repeats 200] [--blocks 10] [--json OUT]

One frame at a time. Everything is timed in one process, one call of each in turn and in changing order, the calling thread held
on one core: so a ratio compares calls that lie milliseconds apart. Ratios are to torch in eager mode on one thread with its
adapters merged, the faster of its two forms; a block's ratio is that of its medians, and their range over blocks is the spread.
One thread against one thread is compared in the thread's own CPU time, which other processes on a busy machine do not lengthen;
what a second thread gains only wall-clock time says. TensorRT is timed by its own `trtexec`, and only where there is one.

Beside it stand operations and bytes counted from the graph, and the roofline of a Jetson Nano: an ESTIMATE, measured by nobody.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from benchmarks.graph_costs import NANO_SHARE, Cost, costs
from benchmarks.graph_parts import borders, cut
from benchmarks.timing import Spread
from infra import quiet
from infra.edge.export import export_onnx
from infra.edge.quantise import quantise
from infra.edge.tensorrt.build import Golden, build, find_trtexec, measure
from infra.edge.tensorrt.cache import EngineCache
from infra.edge.tensorrt.precision import plan_of
from infra.edge.tensorrt.typed import typed_graph
from models.adapters import merge_adapters
from models.config import FRAME_SAMPLES, preset
from models.network import CryNet

Json = dict[str, Any]
Call = Callable[[], object]

REASONS = ("hungry", "pain", "tired", "burping", "discomfort")
BASE = "torch"
WHOLE = "whole"
TWO = ", 2 threads"
BARS = {"ORT fp32": 0.85, "ORT int8": 0.25}


@dataclass(frozen=True)
class Row:
    """One kind on one part: wall-clock milliseconds over all calls, and ratios to `BASE` over blocks."""

    p50: float
    p95: float
    wall_ratio: Spread
    cpu_ratio: Spread | None  # of one-thread kinds

    @property
    def ratio(self) -> Spread:
        """The one to go by."""
        return self.wall_ratio if self.cpu_ratio is None else self.cpu_ratio

    def to_dict(self) -> Json:
        """Plain JSON types."""
        cpu = None if self.cpu_ratio is None else self.cpu_ratio.to_dict()
        return {
            "p50": self.p50, "p95": self.p95, "ratio": self.ratio.to_dict(),
            "wall_ratio": self.wall_ratio.to_dict(), "cpu_ratio": cpu,
        }  # fmt: skip


@dataclass
class Times:
    """Milliseconds of every call of one kind."""

    wall: list[float]
    cpu: list[float]  # of the calling thread


def summarise(times: dict[str, Times], base: str, blocks: int) -> dict[str, Row]:
    """Rows of kinds that were timed in turn, equally often each.

    Raises:
        ValueError: fewer calls than blocks.
    """
    count = len(times[base].wall)
    if count < blocks:
        raise ValueError(f"{count} calls cannot be cut into {blocks} blocks")
    parts = np.array_split(np.arange(count), blocks)

    def ratio(found: list[float], reference: list[float]) -> Spread:
        return Spread.of(
            float(np.median(np.asarray(found)[at]) / np.median(np.asarray(reference)[at])) for at in parts
        )

    return {
        kind: Row(
            p50=float(np.percentile(found.wall, 50)),
            p95=float(np.percentile(found.wall, 95)),
            wall_ratio=ratio(found.wall, times[base].wall),
            cpu_ratio=None if TWO in kind else ratio(found.cpu, times[base].cpu),
        )
        for kind, found in times.items()
    }


def interleave(calls: dict[str, Call], repeats: int, warm_up: int = 10) -> dict[str, Times]:
    """One call of each in turn; each turn begins with the next one."""
    names = list(calls)
    times = {name: Times([], []) for name in names}
    for turn in range(repeats + warm_up):
        at = turn % len(names)
        for name in [*names[at:], *names[:at]]:
            wall, cpu = time.perf_counter(), time.thread_time()
            calls[name]()
            if turn >= warm_up:
                times[name].cpu.append(1e3 * (time.thread_time() - cpu))
                times[name].wall.append(1e3 * (time.perf_counter() - wall))
    return times


class Bench:
    """One preset: network, graphs, and the calls that are timed."""

    def __init__(self, name: str, folder: Path) -> None:
        net = CryNet(preset(name), REASONS, seed=3).eval()
        with torch.no_grad():
            for key, parameter in net.named_parameters():
                if key.endswith("lora_b") or key.startswith("denoiser.up"):
                    parameter.normal_(0.0, 0.02)  # what starts at zero might be cheaper than what was trained
        self.name, self.apart = name, net
        self.graph = folder / f"{name}.onnx"
        self.operators = export_onnx(net, self.graph)
        self.merged = CryNet(preset(name), REASONS, seed=3).eval()
        self.merged.load_state_dict(net.state_dict())
        merge_adapters(self.merged)
        self.int8 = folder / f"{name}.int8.onnx"
        quantise(self.graph, self.int8)
        self.model = onnx.load(str(self.graph))
        self.plan = plan_of(self.model)
        self.borders = borders(self.model, self.plan.components)
        rng = np.random.default_rng(0)
        self.wave = (0.1 * rng.normal(size=(1, FRAME_SAMPLES))).astype(np.float32)

    def costs(self) -> dict[str, Cost]:
        """Work of every component and of the whole."""
        found = costs(self.model, self.plan.components)
        return {**found, WHOLE: sum(found.values(), Cost())}

    def calls(self) -> dict[str, dict[str, Call]]:
        """Part → kind → call."""
        found: dict[str, dict[str, Call]] = {WHOLE: self._whole()}
        inputs = self._inputs()
        graphs = {
            kind: cut(onnx.load(str(path)), self.borders)
            for kind, path in (("fp32", self.graph), ("int8", self.int8))
        }
        for part, run in self._torch_parts().items():
            x = inputs[part]
            found[part] = {BASE: _eager(run, torch.from_numpy(x))}
            for kind, models in graphs.items():
                for threads in (1, 2):
                    data = models[part].SerializeToString()
                    found[part][_label(kind, threads)] = _session(data, threads, x)
        return found

    def _whole(self) -> dict[str, Call]:
        x = torch.from_numpy(self.wave)
        found: dict[str, Call] = {
            BASE: _eager(self.merged, x),
            "torch, adapters apart": _eager(self.apart, x),
        }
        for kind, path in (("fp32", self.graph), ("int8", self.int8)):
            for threads in (1, 2):
                found[_label(kind, threads)] = _session(path.read_bytes(), threads, self.wave)
        return found

    def _torch_parts(self) -> dict[str, Callable[[torch.Tensor], object]]:
        net = self.merged

        def heads(x: torch.Tensor) -> object:
            pooled = x.mean(dim=1)
            reasons = net.reason_head(pooled)
            return torch.sigmoid(net.gate_head(pooled)), torch.softmax(reasons, -1), net.energy(reasons)

        return {
            "log_mel": net.log_mel,
            "denoiser": net.denoise,
            "tokenizer": net.tokenizer,
            "transformer": net.transformer,
            "heads": heads,
        }

    def _inputs(self) -> dict[str, np.ndarray]:
        """What enters each component."""
        found, x = {}, torch.from_numpy(self.wave)
        with torch.inference_mode():
            for part, run in self._torch_parts().items():
                found[part] = x.numpy()
                if part != "heads":
                    x = run(x)  # type: ignore[assignment]
        return found

    def tensorrt(self, folder: Path) -> Json:
        """TensorRT's own timing, or why there is none."""
        tool = find_trtexec()
        if tool is None:
            return {
                "absent": "no TensorRT here (no trtexec): a release runs on ONNX Runtime, which is what is timed above"
            }
        typed = folder / f"{self.name}.typed.onnx"
        typed.write_bytes(typed_graph(self.model).SerializeToString())
        from infra.edge.runtime import Graph

        rng = np.random.default_rng(1)
        waves = (0.1 * rng.normal(size=(100, FRAME_SAMPLES))).astype("<f4")
        outputs = Graph(self.graph.read_bytes()).run(waves)
        golden = Golden(waves.tobytes(), {k: v.reshape(-1).tolist() for k, v in outputs.items()})
        built = build(
            tool, {"fp32": self.graph, "typed": typed}, self.plan, golden, EngineCache(folder / "engines"),
            soc="benchmark", jetpack="none", work=folder,
        )  # fmt: skip
        timing = measure(tool, built.engine, self.plan, folder)
        return {
            "version": str(tool.version),
            "precision": built.precision,
            **timing.latency._asdict(),
            "components": timing.components,
        }


def _label(kind: str, threads: int) -> str:
    return f"ORT {kind}" + ("" if threads == 1 else TWO)


def _eager(run: Callable[[torch.Tensor], object], x: torch.Tensor) -> Call:
    def call() -> object:
        with torch.inference_mode():
            return run(x)

    return call


def _session(model: bytes, threads: int, x: np.ndarray) -> Call:
    quiet.apply()
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # a worker that spins between two calls would take its core from the kind that is timed next
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: x}
    return lambda: session.run(None, feed)


def measure_preset(name: str, repeats: int, blocks: int) -> Json:
    """Everything about one preset."""
    with tempfile.TemporaryDirectory(prefix="latency-") as folder:
        bench = Bench(name, Path(folder))
        parts = bench.calls()
        # sessions of two threads have made theirs by now; this holds the calling thread alone
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(cores)})
        try:
            rows = {
                part: summarise(interleave(calls, repeats), BASE, blocks) for part, calls in parts.items()
            }
        finally:
            os.sched_setaffinity(0, cores)
        work = bench.costs()
        return {
            "preset": name,
            "parameters": sum(p.numel() for p in bench.merged.parameters()),
            "opset": next(o.version for o in bench.model.opset_import if o.domain in ("", "ai.onnx")),
            "operators": bench.operators,
            "bytes": {"fp32": bench.graph.stat().st_size, "int8": bench.int8.stat().st_size},
            "rows": {
                part: {kind: row.to_dict() for kind, row in found.items()} for part, found in rows.items()
            },
            "work": {
                part: {
                    "mflop": c.flops / 1e6,
                    "weights_mb_fp16": 2 * c.weights / 1e6,
                    "nano_estimate_ms": c.nano_ms(),
                    "nano_estimate_at_54_percent_ms": c.nano_ms(NANO_SHARE),
                }
                for part, c in work.items()
            },
            "tensorrt": bench.tensorrt(Path(folder)),
        }


def bars(found: Json) -> list[str]:
    """The two bars of the export, against both forms of torch."""
    rows = found["rows"][WHOLE]
    apart = rows["torch, adapters apart"]["ratio"]["median"]
    lines = []
    for kind, bar in BARS.items():
        merged = rows[kind]["ratio"]["median"]
        verdict = ["missed", "met against torch with its adapters apart only", "met"][
            int(merged / apart <= bar) + int(merged <= bar)
        ]
        lines.append(
            f"{kind}, one thread: {merged:.3f} of torch, {merged / apart:.3f} of torch with its adapters apart; "
            f"the bar is {bar}: {verdict}"
        )
    return lines


def show(found: Json) -> str:
    """Tables for a person."""
    out = [f"{found['preset']}: {found['parameters'] / 1e6:.2f} M parameters, opset {found['opset']}"]
    out.append(f"{'':12} {'':24} {'p50 ms':>8} {'p95 ms':>8}  ratio of medians (over blocks)")
    for part, kinds in found["rows"].items():
        for kind, row in kinds.items():
            r = row["ratio"]
            out.append(
                f"{part:12} {kind:24} {row['p50']:8.2f} {row['p95']:8.2f}  "
                f"{r['median']:.3f} ({r['low']:.3f} … {r['high']:.3f})"
            )
    out.append("")
    out.append(
        f"{'':12} {'MFLOP':>9} {'MB fp16':>8}   Nano, ms: ESTIMATES from its roofline, at peak and at 54 % of it"
    )
    for part, c in found["work"].items():
        out.append(
            f"{part:12} {c['mflop']:9.1f} {c['weights_mb_fp16']:8.2f}   "
            f"{c['nano_estimate_ms']:.2f}  {c['nano_estimate_at_54_percent_ms']:.2f}"
        )
    out += [
        "",
        *bars(found),
        f"TensorRT: {found['tensorrt'].get('absent') or json.dumps(found['tensorrt'])}",
        "",
    ]
    return "\n".join(out)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__)
    parser.add_argument("--preset", nargs="+", default=["compact", "paper"])
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    results = []
    for name in args.preset:
        results.append(measure_preset(name, args.repeats, args.blocks))
        print(show(results[-1]), flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
