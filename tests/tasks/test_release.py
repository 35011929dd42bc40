"""The export stage by itself: what a release carries, and the same bytes from the same inputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from infra.data.synth.config import SynthConfig
from infra.data.synth.corpus import synthesise
from infra.edge.acceptance import require_acceptable
from infra.edge.bundle import load_bundle
from infra.edge.golden import INPUTS, OUTPUTS
from infra.edge.runtime import Graph
from infra.evaluation.evaluate import evaluate
from infra.evaluation.protocol import EvaluationConfig
from infra.federation.files import encode_arrays
from infra.settings import load_settings
from infra.stages import Workspace
from models.adapters import get_vector
from models.config import preset
from models.network import CryNet
from models.predict import ClipScores
from models.state import to_arrays
from tasks import corpus, release
from tasks.release import export
from tasks.stage import Job
from tests.infra.conftest import REASONS, make_scores
from validation.verdict import Verdict

CORPUS = SynthConfig(
    sites=2, infants_per_site=5, cries_per_infant=2, noncries_per_site=6, public_noise=12, clip_seconds=1.2
)
SPLIT = {"folds": 5, "test_fold": 0, "val_fold": 1}
HISTORY = {
    "sites": ["a", "b"], "parameters": 1234, "rounds": [{"bytes_up": {"a": 1000, "b": 3000}}],
    "plan": {"codec": {"bits": 8}, "secure": True, "control_variates": True, "local": {"prox_mu": 0.01}, "gate": None},
}  # fmt: skip


@dataclass(frozen=True)
class FromFolder(Job):
    """A job whose parents' files lie in a folder, not in a store."""

    def file(self, parent: str, name: str) -> Path:
        return Path(self.local["parents"]) / parent / name


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, an untrained network and the evaluation of scores that deserve their reason head."""
    folder = tmp_path_factory.mktemp("world")
    synthesise(CORPUS, folder / "corpus")
    net = CryNet(preset("tiny"), REASONS, seed=3)
    scores: ClipScores = make_scores(infants=8)
    phones = {str(c): "android" if k % 2 else "ios" for k, c in enumerate(scores.clip_id)}
    document = evaluate(scores, {}, config=EvaluationConfig(resamples=50), metadata={"platform": phones})
    assert document["release"]["ship_reason_head"]
    files = {
        "base/base.safetensors": encode_arrays(dict(to_arrays(net))),
        "federate/theta.safetensors": encode_arrays({"theta": get_vector(net)}),
        "gate/verdict.json": Verdict("federation", True, (), (), (), {}, ()).to_json().encode(),
        "federate/history.json": json.dumps(HISTORY).encode(),
        "evaluate/evaluation.json": json.dumps(document).encode(),
    }
    for name, data in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def run(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, Path]]:
    """`run(folder)` exports into a folder of that name; returns the stage's result and where it lies."""
    for module in (release, corpus):
        monkeypatch.setattr(module, "runtime", lambda: SimpleNamespace(settings=load_settings()))
    monkeypatch.setattr(release, "read_calibrations", lambda _uris: {})
    config = {
        "network": preset("tiny").to_dict(), "reasons": list(REASONS), "split": SPLIT, "vad": {}, "ship_reasons": True,
        "data": {"manifest": "a" * 64, "synthetic": True}, "seed": 7, "override": None,
    }  # fmt: skip

    def run(name: str, **changes: Any) -> tuple[Any, Path]:
        space = Workspace(tmp_path / name / "out", tmp_path / name)
        space.out.mkdir(parents=True)
        progress = SimpleNamespace(update=lambda *_: None)
        local = {"manifest": str(world / "corpus" / "manifest.csv"), "calibration": {}, "parents": str(world)}
        job = FromFolder({**config, **changes}, {}, 7, space, progress, local)  # type: ignore[arg-type]
        return export.body(job), space.out

    return run


def test_a_release_carries_what_a_device_needs(run: Callable[..., tuple[Any, Path]]) -> None:
    result, out = run("first")
    bundle = load_bundle(out)
    assert bundle.digest == result.values["release"]
    assert set(bundle.manifest.files) == {
        "model.onnx", "model.typed.onnx", "tensorrt.json", "model_card.md", "bom.cdx.json", INPUTS, OUTPUTS,
    }  # fmt: skip
    assert {p.name for p in out.iterdir()} == {
        "manifest.json",
        "model.onnx",
        "model.typed.onnx",
        "tensorrt.json",
        "model_card.md",
        "bom.cdx.json",
        "golden",
    }
    assert bundle.manifest.provenance["golden"]["synthetic"] is True
    assert {"decision", "headline", "counts", "sites", "snr"} <= set(bundle.manifest.evidence)
    assert require_acceptable(bundle)["heads"] == ["gate", "reason"]
    answers = json.loads(bundle.read(OUTPUTS))
    frames = np.frombuffer(bundle.read(INPUTS), "<f4").reshape(answers["frames"], -1)
    outputs = Graph(bundle.read()).run(frames)
    assert np.abs(outputs["reason_probabilities"] - answers["reason_probabilities"]).max() < 1e-5


def test_the_cards_numbers_are_those_of_the_runs_documents(
    world: Path, run: Callable[..., tuple[Any, Path]]
) -> None:
    _, out = run("first")
    card = (out / "model_card.md").read_text()
    document = json.loads((world / "evaluate" / "evaluation.json").read_text())
    for part in ("### By site", "### By noise mixed in", "### By platform", "SYNTHETIC", "## Provenance"):
        assert part in card
    f1, public = document["reason"]["macro_f1"], document["gate"]["negatives"]["public"]
    assert f"| reason, macro-F1 | {told(f1)} |" in card
    assert f"| public noise of unheard classes | {public['clips']} | {told(public['auroc'])} |" in card
    for row in document["sites"]:
        assert f"| {row['site']} | {row['groups']} | {row['cries']} | {told(row['gate_auroc'])} |" in card
    for row in document["slices"]["platform"]:
        assert f"| {row['value']} | {row['groups']} | {row['cries']} | {told(row['gate_auroc'])} |" in card
    zero = next(r for r in document["snr"] if r["snr_db"] is not None)
    assert f"| {zero['snr_db']:g} dB | {told(zero['gate_auroc'])} | {told(zero['macro_f1'])} |" in card
    assert f"{document['permutation']['p']:.3f}" in card
    assert (
        "adapters and heads: 1 rounds over 2 sites; 1,234 numbers travel, 8 bits a number, under masks"
        in card
    )
    assert (
        "0.00 MB a site and round; control variates and a proximal term (μ = 0.01); no differential privacy on record"
        in card
    )
    cries = CORPUS.sites * CORPUS.infants_per_site * CORPUS.cries_per_infant
    rows = [
        line.split("|") for line in card.splitlines() if line.startswith(("| train |", "| val |", "| test |"))
    ]
    assert sum(int(row[3]) for row in rows) == cries
    assert "| synth-1 | " in card or "synth" in card


def told(value: dict[str, Any]) -> str:
    return f"{value['value']:.3f} ({value['low']:.3f}–{value['high']:.3f})"


def test_two_runs_give_one_release(run: Callable[..., tuple[Any, Path]]) -> None:
    (first, one), (second, two) = run("first"), run("second")
    assert first.values == second.values
    files = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
    assert {f: (one / f).read_bytes() for f in files} == {f: (two / f).read_bytes() for f in files}


def test_golden_clips_are_no_recordings(world: Path, run: Callable[..., tuple[Any, Path]]) -> None:
    """None of the corpus's samples is in them, whatever corpus it is."""
    import soundfile

    _, out = run("first", data={"manifest": "a" * 64, "synthetic": False})
    frames = np.frombuffer((out / INPUTS).read_bytes(), "<f4").reshape(-1, 16_000)
    golden = {
        (f[k : k + 64] * 32768).astype(np.int64).tobytes() for f in frames for k in range(0, 15_000, 1_000)
    }
    for path in sorted((world / "corpus").rglob("*.wav")):
        wave = soundfile.read(path, dtype="int16")[0].astype(np.int64)
        windows = np.lib.stride_tricks.sliding_window_view(wave, 64)
        loud = windows[np.ptp(windows, axis=1) > 100]
        assert not golden & {w.tobytes() for w in loud[::7]}
