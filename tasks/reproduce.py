"""The reproduction's tasks: find what was made already, time the graphs, write the table."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import task

from infra.data.manifest import load_manifest
from infra.data.synth.config import REASONS
from infra.edge.export import export_onnx
from infra.edge.latency import FRAMES, measure_latency, noise_frames
from infra.edge.release import MODEL_NAME
from infra.experiments.cells import Arm
from infra.experiments.plans import RECIPE
from infra.report.paper import Sources
from infra.report.reproduction import read_document, write_reproduction
from infra.settings import load_settings
from models.adapters import adapter_schema
from models.config import preset
from models.errors import DataError
from models.network import CryNet
from tasks.progress import Board, StageProgress

Json = dict[str, Any]

PAPER_SITES = 8
"""Sites whose sum the codec's ring has to hold, in what is computed for the paper's size: those of the benchmark."""


@task(name="find run", persist_result=False)
def find_run(parameters: Json) -> str | None:
    """The newest run folder with just these parameters, on the manifest as it is now; None where there is none."""
    for folder in sorted(load_settings().runs_dir.glob("*/"), reverse=True):
        if folder.is_symlink() or not (folder / "metrics.json").is_file():
            continue
        try:
            metrics = read_document(folder / "metrics.json")
        except DataError:  # of something else
            continue
        if metrics.get("parameters") == parameters and _same_clips(metrics, parameters):
            return str(folder)
    return None


def _same_clips(metrics: Json, parameters: Json) -> bool:
    manifest = parameters.get("manifest")
    if manifest is None:
        return True
    return bool(load_manifest(Path(manifest)).digest == (metrics.get("data") or {}).get("manifest_digest"))


@task(name="latency", persist_result=False)
def time_graphs(runs: Mapping[str, str], *, paper_size: bool) -> dict[str, Json]:
    """One second of audio through each run's graph, and, where it is asked for, through an untrained one of the paper's size."""
    frames = noise_frames(FRAMES if paper_size else FRAMES // 10)
    with StageProgress(Board(), "latency") as progress:
        timed = {
            name: measure_latency((Path(folder) / MODEL_NAME).read_bytes(), frames)
            for name, folder in runs.items()
        }
        if paper_size:
            progress.update(0.5, "the paper's size")
            timed["paper"] = {**_paper_size(frames[: FRAMES // 2]), "preset": "paper"}
    return timed


def _paper_size(frames: Any) -> Json:
    net = CryNet(preset("paper"), REASONS)
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / MODEL_NAME
        export_onnx(net, graph)
        timed = measure_latency(graph.read_bytes(), frames)
    size = adapter_schema(net).size
    arm: Arm = RECIPE.arm
    return {**timed, "parameters": size, "upload_bytes": arm.upload_bytes(size, PAPER_SITES)}


@task(name="paper's table", persist_result=False)
def tabulate(
    runs: Mapping[str, str],
    documents: Mapping[str, str],
    missing: Mapping[str, str],
    how: Sequence[Mapping[str, str]],
    latency: Mapping[str, Json],
    out: Path,
    *,
    quick: bool,
) -> str:
    """Write the table from run folders by column and documents by name; returns the page."""
    read = {name: read_document(Path(folder) / "metrics.json") for name, folder in runs.items()}
    for name, path in documents.items():
        read[name] = read_document(Path(path))
        if Path(path).is_relative_to(out):  # of a plan of ours, which no other command makes
            read[name] |= {"command": "cryfed reproduce" + (" --quick" if quick else ""), "quick": quick}
    sources = Sources(**read, latency=latency, missing=missing)
    folders = {name: Path(folder) for name, folder in runs.items()}
    return str(write_reproduction(sources, how, out, folders, quick=quick))
