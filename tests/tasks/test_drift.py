"""Drift in the pipeline: the reference is of the sites' training clips as the gate measured them, and a look at it stops nothing.

Sites measure in this process; that flows call the tasks in their order is shown by the whole run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from infra.data.synth.config import SynthConfig
from infra.data.synth.corpus import synthesise
from infra.federation.local.work import carry_out, measuring
from infra.settings import load_settings
from infra.stages import StageKey, Workspace, run_stage
from infra.store.content import DirectoryContent
from models.frames import TRAIN
from tasks import corpus, drift, gate
from tasks.runtime import Runtime
from tasks.sites import PUBLIC
from tasks.stage import Job
from validation.reference import FILE, read_reference

SPLIT = {"folds": 5, "test_fold": 0, "val_fold": 1}
CORPUS = SynthConfig(
    sites=2, infants_per_site=8, cries_per_infant=2, noncries_per_site=10, public_noise=20, clip_seconds=1.0, seed=5,
)  # fmt: skip


class LocalRuntime(Runtime):
    """Folders and settings; no store and no servers."""

    def __init__(self) -> None:
        self.settings = load_settings()
        self.work = self.settings.work_dir
        self.content = cast("Any", DirectoryContent(self.work / "content"))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesise(CORPUS, tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def rt(monkeypatch: pytest.MonkeyPatch) -> LocalRuntime:
    made = LocalRuntime()
    for module in (corpus, drift, gate):
        monkeypatch.setattr(module, "runtime", lambda: made)
    return made


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was put where a person looks."""
    texts: list[str] = []
    monkeypatch.setattr(drift, "create_markdown_artifact", lambda text, **_: texts.append(text))
    return texts


@pytest.fixture
def measurements(rt: LocalRuntime, manifest: Path) -> dict[str, str]:
    """As the gate's first task leaves them: artifact URIs by site."""
    loaded = corpus.load_corpus(manifest, SPLIT)
    made = {}
    for site in [*loaded.manifest.sites, ""]:
        work = measuring(loaded.rows_of(site), loaded.manifest.root, rt.settings.limits)
        made[site or PUBLIC] = carry_out(work, rt.site_folder(site or PUBLIC)).uri
    return made


def make(rt: LocalRuntime, manifest: Path, measurements: dict[str, str]) -> str:
    local = {"manifest": str(manifest), "measurements": measurements}

    def body(space: Workspace) -> Any:
        return drift.drift_reference.body(Job({"split": SPLIT}, {}, 0, space, cast("Any", None), local))

    key = StageKey("drift-reference", {}, {}, 0, "")
    return run_stage(rt.content, key, body, scratch_root=rt.scratch).uri


def test_the_reference_is_of_the_training_clips_of_sites(
    rt: LocalRuntime, manifest: Path, measurements: dict[str, str], tmp_path: Path
) -> None:
    drift.copy_reference(make(rt, manifest, measurements), tmp_path)
    made = read_reference(tmp_path)
    loaded = corpus.load_corpus(manifest, SPLIT)
    train = loaded.table[(loaded.parts == TRAIN) & (loaded.table["site"] != "")]
    assert (made.clips, made.groups) == (len(train), train["group"].nunique())
    assert 0 < made.clips < (loaded.table["site"] != "").sum()
    assert made.manifest == loaded.manifest.digest
    role = next(f for f in made.features if f.name == "role")
    assert sum(role.counts) == len(train)


def test_the_gate_looks_where_a_run_left_a_reference(
    rt: LocalRuntime, manifest: Path, measurements: dict[str, str], told: list[str]
) -> None:
    assert drift.drift.fn(str(manifest), SPLIT, measurements) is None
    assert told == []
    run = rt.settings.runs_dir / "run-1"
    run.mkdir(parents=True)
    run.with_name("latest").symlink_to(run.name)
    drift.copy_reference(make(rt, manifest, measurements), run)
    found = drift.drift.fn(str(manifest), SPLIT, measurements)
    assert found is not None
    assert found.startswith(("no drift", "watch"))
    assert told == [f"Against what run `run-1` learned from: {found}"]

    document = json.loads((run / FILE).read_text())
    level = next(f for f in document["features"] if f["name"] == "rms_db")
    level["edges"] = [e + 30.0 for e in level["edges"]]
    (run / FILE).write_text(json.dumps(document))
    assert "drift: rms_db" in (drift.drift.fn(str(manifest), SPLIT, measurements) or "")


def test_a_reference_that_cannot_be_used_stops_nothing(
    rt: LocalRuntime, manifest: Path, measurements: dict[str, str], told: list[str]
) -> None:
    run = rt.settings.runs_dir / "latest"
    run.mkdir(parents=True)
    (run / FILE).write_text("{")
    found = drift.drift.fn(str(manifest), SPLIT, measurements)
    assert found is not None
    assert found.startswith("not judged:")
    assert "is no drift reference" in found
