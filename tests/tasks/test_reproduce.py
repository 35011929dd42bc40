"""Runs that are there are found again by their parameters, and on the clips as they are now."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flows.parameters import ReproduceParameters, RetrainParameters
from infra.data.synth.config import SynthConfig
from infra.data.synth.corpus import synthesise
from tasks.reproduce import find_run


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CRYFED_RUNS_DIR", str(tmp_path / "runs"))
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


def put(runs: Path, name: str, parameters: dict[str, Any], manifest: str = "") -> Path:
    folder = runs / name
    folder.mkdir()
    metrics = {"parameters": parameters, "data": {"manifest_digest": manifest}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def test_the_newest_run_with_these_parameters(runs: Path) -> None:
    wanted = RetrainParameters().model_dump(mode="json")
    assert find_run.fn(wanted) is None
    put(runs, "20260101-000000-aaaa", wanted)
    newest = put(runs, "20260102-000000-bbbb", wanted)
    put(runs, "20260103-000000-cccc", {**wanted, "seed": 8})
    (runs / "20260104-000000-dddd").mkdir()
    (runs / "20260104-000000-dddd" / "metrics.json").write_text("{")
    (runs / "latest").symlink_to("20260101-000000-aaaa")
    assert Path(str(find_run.fn(wanted))) == newest


def test_a_run_on_clips_that_changed_is_none(runs: Path, tmp_path: Path) -> None:
    from infra.data.manifest import load_manifest

    small = SynthConfig(
        sites=1, infants_per_site=2, cries_per_infant=1, noncries_per_site=1, public_noise=1, clip_seconds=1.0
    )
    manifest = synthesise(small, tmp_path / "clips")
    wanted = RetrainParameters(manifest=manifest).model_dump(mode="json")
    put(runs, "20260101-000000-aaaa", wanted, "0" * 64)
    assert find_run.fn(wanted) is None
    same = put(runs, "20260102-000000-bbbb", wanted, load_manifest(manifest).digest)
    assert Path(str(find_run.fn(wanted))) == same


def test_quick_and_full_contradict_each_other() -> None:
    with pytest.raises(ValueError, match="contradict"):
        ReproduceParameters(quick=True, full=True)
