"""Backends. `trtexec` is a look-alike here: command line, exit status, logs and files are tested, TensorRT is not."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from infra.edge.agent.build import (
    Commands,
    OnnxRuntime,
    TensorRT,
    build_command,
    parse_outputs,
    parse_times,
    run_command,
)
from infra.edge.agent.disk import Disk
from infra.edge.agent.errors import BuildFailed, Unhealthy
from infra.edge.agent.health import judge, read_golden
from infra.edge.agent.process import ProgramError, run
from tests.infra.edge.agent.world import bundle_files, lookalike, tensorrt

DISK = Disk(sync=False)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A bundle of 70 frames (more than one batch), and a place to build in."""
    return _bundle(tmp_path, frames=70)


def _bundle(folder: Path, **rule: object) -> tuple[Path, Path]:
    bundle, built = folder / "bundle", folder / "built"
    built.mkdir(exist_ok=True)
    for name, data in bundle_files(**rule).items():  # type: ignore[arg-type]
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / name).write_bytes(data)
    return bundle, built


def _tensor(*values: float) -> dict[str, object]:
    return {"name": "x", "dimensions": "2", "values": list(values)}


class TestTensorRT:
    def test_builds_runs_and_agrees(self, tmp_path: Path, folders: tuple[Path, Path]) -> None:
        backend = tensorrt(tmp_path)
        backend.build(*folders, DISK)
        measured = backend.run(*folders)
        assert {name: len(rows) for name, rows in measured.outputs.items()} == {
            "gate_probability": 70, "reason_probabilities": 70, "energy": 70,
        }  # fmt: skip
        health = judge(read_golden(folders[0]), measured)
        assert health.max_difference < 1e-12
        assert (health.argmax_agreement, health.backend) == (1.0, "tensorrt")
        assert (health.p50_ms, health.p95_ms) == pytest.approx((10.4, 12.7))

    def test_command_lines(self) -> None:
        assert build_command("/t/trtexec", Path("/m.onnx"), Path("/e.plan"), ["--fp16"]) == [
            "/t/trtexec",
            "--onnx=/m.onnx",
            "--saveEngine=/e.plan",
            "--minShapes=waveform:1x16000",
            "--optShapes=waveform:1x16000",
            "--maxShapes=waveform:64x16000",
            "--fp16",
        ]
        line = run_command("trtexec", Path("/e"), Path("/i"), Path("/o"), Path("/t"), 64)
        assert "--loadInputs=waveform:/i" in line
        assert "--shapes=waveform:64x16000" in line

    def test_an_engine_is_kept_until_something_changes(
        self, tmp_path: Path, folders: tuple[Path, Path]
    ) -> None:
        engine = folders[1] / "engine.plan"
        tensorrt(tmp_path).build(*folders, DISK)
        first = engine.stat().st_mtime_ns
        tensorrt(tmp_path).build(*folders, DISK)
        assert engine.stat().st_mtime_ns == first
        TensorRT(str(lookalike(tmp_path)), []).build(*folders, DISK)
        second = engine.stat().st_mtime_ns
        assert second != first, "other flags"
        engine.write_bytes(b"damaged")
        TensorRT(str(lookalike(tmp_path)), []).build(*folders, DISK)
        assert engine.read_bytes().startswith(b"ENGINE "), "another content"
        assert [p.name for p in folders[1].glob("engine*")] == ["engine.plan"]

    def test_each_build_writes_to_a_name_of_its_own(self, tmp_path: Path, folders: tuple[Path, Path]) -> None:
        """What a killed agent had started may still be writing to the last one."""
        names = []

        def noting(trtexec: str, model: Path, engine: Path, flags: list[str]) -> list[str]:
            names.append(engine.name)
            return build_command(trtexec, model, engine, flags)

        for _ in range(2):
            tensorrt(tmp_path, commands=Commands(noting, run_command)).build(*folders, DISK)
            (folders[1] / "build.json").unlink()
        written = [name for name in names if name != "engine.plan"]
        assert len(written) == len(set(written)) == 2

    def test_an_error_is_found_in_the_log(self, tmp_path: Path) -> None:
        with pytest.raises(BuildFailed, match=r"ended with 1: .*No importer registered for op: LayerNorm"):
            tensorrt(tmp_path).build(*_bundle(tmp_path, unsupported=True), DISK)

    def test_success_without_an_engine_is_none(self, tmp_path: Path, folders: tuple[Path, Path]) -> None:
        commands = Commands(lambda *given: ["true"], run_command)
        with pytest.raises(BuildFailed, match="ended with 0"):
            tensorrt(tmp_path, commands=commands).build(*folders, DISK)

    def test_a_build_that_hangs(self, tmp_path: Path) -> None:
        folders = _bundle(tmp_path, build_seconds=60)
        with pytest.raises(BuildFailed, match="not done after"):
            tensorrt(tmp_path, timeout=0.3).build(*folders, DISK)

    def test_no_such_program(self, tmp_path: Path, folders: tuple[Path, Path]) -> None:
        with pytest.raises(BuildFailed, match=r"check backend\.trtexec"):
            TensorRT(str(tmp_path / "nowhere"), []).build(*folders, DISK)

    def test_a_damaged_engine_does_not_run(self, tmp_path: Path, folders: tuple[Path, Path]) -> None:
        backend = tensorrt(tmp_path)
        backend.build(*folders, DISK)
        (folders[1] / "engine.plan").write_bytes(b"x")
        with pytest.raises(Unhealthy, match="Magic tag"):
            backend.run(*folders)

    @pytest.mark.parametrize(
        "raw",
        [None, {}, [1], [{"name": "x"}], [_tensor(1.0)], [_tensor()]],
    )  # fmt: skip
    def test_outputs_that_are_none(self, raw: object) -> None:
        if raw == {}:
            assert parse_outputs(raw, 2) == {}
            return
        with pytest.raises(Unhealthy):
            parse_outputs(raw, 2)

    @pytest.mark.parametrize("raw", [None, [1], [{"computeMs": 1}], [{"latencyMs": "x"}]])
    def test_times_that_are_none(self, raw: object) -> None:
        with pytest.raises(Unhealthy):
            parse_times(raw)


class TestOnnxRuntime:
    def test_a_runner_that_fails(self, tmp_path: Path, folders: tuple[Path, Path]) -> None:
        """The model is no ONNX; the runner is the real one."""
        with pytest.raises(Unhealthy, match="ONNX Runtime ended with 1"):
            OnnxRuntime().run(*folders)

    @pytest.mark.parametrize("left", ["", "[]", '{"outputs": {}}', '{"outputs": NaN}'])
    def test_a_runner_that_leaves_nonsense(
        self, tmp_path: Path, folders: tuple[Path, Path], left: str
    ) -> None:
        fake = tmp_path / "python"
        fake.write_text(
            f'#!/bin/sh\nwhile [ "$1" != --outputs ]; do shift; done\nprintf %s {left!r} > "$2"\n'
        )
        fake.chmod(0o755)
        with pytest.raises(Unhealthy):
            OnnxRuntime(str(fake)).run(*folders)

    def test_outputs_of_the_last_run_are_not_taken_for_this_ones(
        self, tmp_path: Path, folders: tuple[Path, Path]
    ) -> None:
        good = {"outputs": {}, "latency_ms": [1.0], "backend": "x"}
        (folders[1] / "golden.json").write_text(json.dumps(good))
        with pytest.raises(Unhealthy, match="cannot be read"):
            OnnxRuntime("true").run(*folders)


class TestProcess:
    def test_what_it_says_is_bounded(self, tmp_path: Path) -> None:
        done = run(["/bin/sh", "-c", "yes | head -c 1000000; echo end"], tmp_path / "log", 30)
        assert len(done.tail) <= 4000
        assert done.tail.endswith("end\n")

    def test_its_children_end_with_it(self, tmp_path: Path) -> None:
        mark = tmp_path / "mark"
        command = ["/bin/sh", "-c", f"(sleep 1; touch {mark}) & sleep 60"]
        with pytest.raises(ProgramError, match="not done"):
            run(command, tmp_path / "log", 0.2)
        time.sleep(1.2)
        assert not mark.exists()

    def test_no_such_program(self, tmp_path: Path) -> None:
        with pytest.raises(ProgramError, match="cannot be started"):
            run([str(tmp_path / "nowhere")], tmp_path / "log", 1)
