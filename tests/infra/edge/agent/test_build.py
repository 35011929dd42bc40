"""ONNX Runtime as a backend, and the programs that a device starts. TensorRT: `test_engine.py`."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from infra.edge.agent.build import OnnxRuntime
from infra.edge.agent.errors import Unhealthy
from infra.edge.process import ProgramError, run
from tests.infra.edge.agent.world import bundle_files


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A bundle, and a place to build in."""
    bundle, built = tmp_path / "bundle", tmp_path / "built"
    built.mkdir()
    for name, data in bundle_files().items():
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / name).write_bytes(data)
    return bundle, built


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
