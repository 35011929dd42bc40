"""Logs as `trtexec` of four versions writes them, and the look-alike program (`lookalike.py`)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import pytest

from infra.edge.tensorrt.plan import BuildPlan
from infra.edge.tensorrt.precision import plan_of

HERE = Path(__file__).parent
BANNERS = {"8.2.1": "v8201", "8.5.2": "v8502", "10.3.0": "v100300", "11.1.0": "v110100"}


@pytest.fixture(scope="session")
def tiny_plan(tiny_graph: Path) -> BuildPlan:
    """What a device knows about `tiny_graph`."""
    return plan_of(onnx.load(str(tiny_graph)))


@dataclass
class Lookalike:
    """A program that takes `trtexec`'s command line, and what it is to do."""

    path: Path
    scenario: dict[str, Any] = field(default_factory=dict)

    def set(self, **changes: Any) -> None:
        """Change what it does."""
        self.scenario.update(changes)
        self.path.with_suffix(".json").write_text(json.dumps(self.scenario))

    def calls(self) -> list[list[str]]:
        """Every command line that it was started with."""
        log = self.path.with_suffix(".calls")
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


@pytest.fixture
def lookalike(tmp_path: Path) -> Callable[..., Lookalike]:
    """`lookalike("8.5.2", outputs={…}, errors={"fp16": 0.02})`: NOT TensorRT (see `lookalike.py`)."""

    def make(version: str, **scenario: Any) -> Lookalike:
        path = tmp_path / "bin" / "trtexec"
        path.parent.mkdir(exist_ok=True)
        shutil.copy(HERE / "lookalike.py", path)
        path.chmod(0o755)
        program = Lookalike(path)
        program.set(version=version, banner=BANNERS[version], **scenario)
        return program

    return make
