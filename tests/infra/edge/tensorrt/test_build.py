"""From graph to accepted engine, against a look-alike of `trtexec`.

The look-alike is NOT TensorRT: these tests show that our commands are spelled as each version wants them, that exit codes,
refusals and files are read, and that what disagrees is not used. What TensorRT makes of our graphs: `test_rtx.py`, `test_gpu.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.edge.runtime import Graph
from infra.edge.tensorrt import build as building
from infra.edge.tensorrt.build import Golden, Tool, build, check, find_trtexec, measure
from infra.edge.tensorrt.cache import EngineCache
from infra.edge.tensorrt.commands import parse_version
from infra.edge.tensorrt.errors import BuildFailed, Unhealthy
from infra.edge.tensorrt.plan import BuildPlan
from tests.infra.edge.tensorrt import logs_of
from tests.infra.edge.tensorrt.conftest import Lookalike

VERSIONS = ("8.2.1", "8.5.2", "10.3.0", "11.1.0")
Make = Callable[..., Lookalike]


@pytest.fixture(scope="module")
def golden(tiny_graph: Path, waves: np.ndarray) -> Golden:
    """10 frames, and what ONNX Runtime says about them."""
    chosen = waves[::10]
    reference = {n: v.reshape(-1).tolist() for n, v in Graph(tiny_graph.read_bytes()).run(chosen).items()}
    return Golden(chosen.astype("<f4").tobytes(), reference)


class Bench:
    """One device of one version."""

    def __init__(
        self, program: Lookalike, tmp_path: Path, graph: Path, plan: BuildPlan, golden: Golden
    ) -> None:
        found = find_trtexec((str(program.path),))
        assert found is not None
        self.program, self.tool, self.golden, self.plan, self.work = program, found, golden, plan, tmp_path
        self.cache = EngineCache(tmp_path / "cache")
        self.graphs = {"fp32": graph, "typed": graph}

    def build(self, **changes: Any) -> Any:
        options = {"soc": "t210", "jetpack": "4.6.1", "work": self.work, **changes}
        return build(self.tool, self.graphs, self.plan, self.golden, self.cache, **options)


@pytest.fixture
def bench(
    lookalike: Make, tmp_path: Path, tiny_graph: Path, tiny_plan: BuildPlan, golden: Golden
) -> Callable[..., Bench]:
    """`bench("8.5.2", errors={"fp16": 0.02})`."""

    def make(version: str, **scenario: Any) -> Bench:
        program = lookalike(version, outputs=dict(golden.reference), **scenario)
        return Bench(program, tmp_path, tiny_graph, tiny_plan, golden)

    return make


@pytest.mark.parametrize("version", VERSIONS)
def test_builds_checks_and_keeps(bench: Callable[..., Bench], version: str) -> None:
    device = bench(version)
    assert device.tool.version == parse_version(version)
    built = device.build()
    assert built.precision == ("typed" if version == "11.1.0" else "fp16")
    assert (built.cached, built.refused) == (False, ())
    assert built.parity.frames == 10
    assert 0 < built.parity.max_difference < 1e-5  # six digits of a C++ stream
    assert built.engine.parent == device.cache.folder
    # --help, one build, 10 frames in batches of 8 and 2
    calls = device.program.calls()
    assert [c for c in calls if any("saveEngine" in part for part in c)] == calls[1:2]
    assert [p.partition(":")[2] for c in calls[2:] for p in c if p.startswith("--shapes")] == [
        "8x16000", "2x16000",
    ]  # fmt: skip
    assert sorted(p.name for p in device.work.iterdir()) == sorted(["bin", "cache", f"{built.precision}.log"])


def test_a_second_time_it_comes_from_the_cache_and_is_checked_again(bench: Callable[..., Bench]) -> None:
    device = bench("8.5.2")
    first = device.build()
    before = len(device.program.calls())
    again = device.build()
    assert (again.engine, again.cached) == (first.engine, True)
    assert not [c for c in device.program.calls()[before:] if any("saveEngine" in p for p in c)]
    assert len(device.program.calls()) == before + 2
    # another flag is another engine
    assert device.build(max_batch=4).cached is False
    # one that does not run any more is made anew
    note = json.loads(first.engine.read_text())
    kept = device.cache.put(_key_of(first.engine), _damaged(device.work, note))
    anew = device.build()
    assert (anew.cached, anew.parity.frames) == (False, 10)
    assert anew.engine != kept
    # and one that no longer agrees is not used, cached or not
    device.program.set(errors={"fp16": 0.02, "fp32": 0.02})
    with pytest.raises(Unhealthy, match=r"fp16.*0\.0200.*fp32"):
        device.build()


class _Key:
    """A key that is known by its digest alone."""

    def __init__(self, digest: str) -> None:
        self._digest = digest

    def digest(self) -> str:
        return self._digest


def _key_of(engine: Path) -> Any:
    return _Key(engine.name.partition("-")[0])


def _damaged(folder: Path, note: dict[str, Any]) -> Path:
    """An engine that takes no batch, as one of another TensorRT would take none."""
    path = folder / "other.engine"
    path.write_text(json.dumps({**note, "max_batch": 0}))
    return path


@pytest.mark.parametrize("version", VERSIONS)
def test_what_disagrees_gives_way_to_fp32(bench: Callable[..., Bench], version: str) -> None:
    fast = "typed" if version == "11.1.0" else "fp16"
    built = bench(version, errors={fast: 0.02}).build()
    assert built.precision == "fp32"
    assert len(built.refused) == 1
    assert f"the {fast} engine differs from the reference by 0.0200" in built.refused[0]


def test_what_is_refused_gives_way_to_fp32(bench: Callable[..., Bench]) -> None:
    built = bench("10.3.0", refuse=["fp16"]).build()
    assert built.precision == "fp32"
    assert "Could not find any implementation" in built.refused[0]


def test_nothing_usable(bench: Callable[..., Bench]) -> None:
    with pytest.raises(BuildFailed, match=r"TensorRT 8\.2\.1 gives no usable engine: fp16: .*fp32: "):
        bench("8.2.1", refuse=["fp16", "fp32"]).build()


def test_a_tool_that_passes_and_writes_nothing(bench: Callable[..., Bench]) -> None:
    device = bench("8.2.1", forget_engine=True)
    with pytest.raises(BuildFailed, match="passed and wrote no engine"):
        device.build()
    device.program.set(forget_engine=False, forget_outputs=True)
    with pytest.raises(BuildFailed, match="did not write it"):
        device.build()
    assert device.cache.size() == (0, 0)


def test_values_that_are_not_finite_are_refused(bench: Callable[..., Bench], golden: Golden) -> None:
    device = bench("8.2.1")
    values = dict(device.golden.reference)
    values["gate_probability"] = [float("nan"), *values["gate_probability"][1:]]
    device.program.set(outputs=values)
    with pytest.raises(Unhealthy, match="differs from the reference by inf"):
        device.build()


def test_a_build_that_takes_too_long_is_stopped(bench: Callable[..., Bench]) -> None:
    device = bench("8.5.2")
    device.program.set(sleep=30)
    with pytest.raises(BuildFailed, match=r"not done after 1 s"):
        device.build(seconds=1)


def test_commands_of_another_version_are_refused_by_the_tool(bench: Callable[..., Bench]) -> None:
    """The look-alike knows the options of its version alone, so a wrong dialect shows."""
    device = bench("10.3.0")
    device.tool = Tool(device.tool.path, parse_version("8.2.1"))
    with pytest.raises(BuildFailed, match="Unknown option: --buildOnly"):
        device.build()
    device = bench("11.1.0")
    device.tool = Tool(device.tool.path, parse_version("10.3.0"))
    built = device.build()
    assert built.precision == "fp32"
    assert "Unknown option: --fp16" in built.refused[0]


def test_a_release_without_a_typed_graph(bench: Callable[..., Bench], tiny_graph: Path) -> None:
    device = bench("11.1.0")
    device.graphs = {"fp32": tiny_graph}
    built = device.build()
    assert built.precision == "fp32"
    assert built.refused == ("typed: the release has no graph for it",)


@pytest.mark.parametrize("cut", [b"", b"\0" * 7])
def test_golden_frames_that_are_none(bench: Callable[..., Bench], cut: bytes) -> None:
    device = bench("8.5.2")
    with pytest.raises(Unhealthy, match="not whole frames"):
        check(device.tool, device.work / "m.engine", device.plan, Golden(cut, {}), device.work)


def test_measures_by_component(bench: Callable[..., Bench]) -> None:
    device = bench("8.2.1", times=logs_of.times([2.0, 4.0], warm_up=5, old=True), profile=logs_of.PROFILE)
    built = device.build()
    timing = measure(device.tool, built.engine, device.plan, device.work, seconds=1)
    assert (timing.latency.p50, timing.latency.queries) == (3.0, 2)
    assert timing.components["transformer"] == 4.0


def test_no_tensorrt_is_no_error() -> None:
    assert find_trtexec(("no-such-trtexec",)) is None


def test_a_program_of_another_kind(tmp_path: Path) -> None:
    other = tmp_path / "trtexec"
    other.write_text("#!/bin/sh\necho hello\n")
    other.chmod(0o755)
    with pytest.raises(BuildFailed, match="no banner of trtexec"):
        find_trtexec((str(other),))
    other.write_text("#!/bin/sh\necho '&&&& RUNNING TensorRT.trtexec [TensorRT v7103] # x'\n")
    with pytest.raises(BuildFailed, match=r"7\.1\.3 is older than 8\.2"):
        find_trtexec((str(other),))


def test_output_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "MAX_OUTPUT", 1000)
    noisy = tmp_path / "trtexec"
    noisy.write_text("#!/bin/sh\nseq 100000\necho '&&&& RUNNING TensorRT.trtexec [TensorRT v8201] # x'\n")
    noisy.chmod(0o755)
    found = find_trtexec((str(noisy),))
    assert found is not None
    assert json.dumps(found.version) == "[8, 2, 1]"
