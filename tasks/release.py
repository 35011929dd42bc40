"""From weights to a release: one ONNX graph that agrees with the network, a bundle, a version in the store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from prefect import task
from prefect.artifacts import create_markdown_artifact

from infra.data.audio import read_audio
from infra.data.summary import by_corpus, by_part, by_site
from infra.edge import golden
from infra.edge.bundle import describe_files, write_bundle
from infra.edge.contents import add_contents
from infra.edge.export import export_onnx, require_agreement
from infra.edge.graph import check_graph
from infra.edge.latency import measure_latency
from infra.edge.release import BundleManifest, CalibrationDocument, DataProvenance
from infra.edge.variants import write_device_files
from infra.evaluation.evaluate import headline
from infra.federation.base import load_base
from infra.federation.files import decode_arrays
from infra.federation.results import describe_training
from infra.stages import StageResult, fetch, materialise, resolve
from infra.store import registry
from models.adapters import set_vector
from models.calibration import pool_calibrations
from models.config import ModelConfig
from models.frames import TEST
from models.segmentation import VadConfig, frames
from tasks.corpus import Corpus, load_corpus
from tasks.runtime import runtime
from tasks.score import read_calibrations
from tasks.stage import Job, stage
from validation.verdict import Verdict

PARITY_CLIPS = 100
PARITY_TOLERANCE = 1e-4


@stage(
    "export",
    code=(
        "infra.edge.export",
        "infra.edge.graph",
        "infra.edge.bundle",
        "infra.edge.variants",
        "infra.edge.contents",
        "models.segmentation",
    ),
)
def export(job: Job) -> StageResult:
    """Export the network as ONNX, hold it against torch on 100 clips, and wrap it with its calibration as a bundle."""
    config = job.config
    model = ModelConfig.from_dict(config["network"])
    reasons = tuple(config["reasons"])
    net, _ = load_base(job.file("base", "base.safetensors"), model, reasons)
    theta = job.file("federate", "theta.safetensors")
    set_vector(net, decode_arrays(theta.read_bytes(), str(theta))["theta"])
    ship_reasons = bool(config["ship_reasons"])
    graph = job.space.scratch / "model.onnx"
    export_onnx(net, graph, reason_head=ship_reasons)
    operators = check_graph(graph)
    job.progress.update(0.4, "comparing with torch")
    unusable = Verdict.from_json(job.file("gate", "verdict.json").read_text()).unusable
    loaded = load_corpus(Path(job.local["manifest"]), config["split"])
    waves = _waves(loaded.without(unusable))
    difference = require_agreement(graph, net, waves, PARITY_TOLERANCE)
    files = {"model.onnx": graph, **write_device_files(graph, job.space.scratch)}
    calibrations = read_calibrations(job.local["calibration"])
    manifest = BundleManifest(
        heads=("gate", "reason") if ship_reasons else ("gate",),
        reasons=reasons if ship_reasons else (),
        model=config["network"],
        vad=config["vad"],
        default_calibration=CalibrationDocument.of(pool_calibrations(list(calibrations.values()))),
        calibrations={site: CalibrationDocument.of(c) for site, c in calibrations.items()},
        data=_data(config["data"], config["split"], loaded),
        provenance={
            "parents": {name: artifact.digest for name, artifact in job.parents.items()},
            "seed": config["seed"],
            "golden": golden.provenance(),
        },
        evidence={**_evidence(job), "data": _contents(loaded), "training": _training(job)},
        notes=(f"data-quality gate overridden: {config['override']}",) if config["override"] else (),
        files=describe_files(files),
    )
    manifest, sources = add_contents(manifest, files, job.space.scratch)
    write_bundle(job.out, manifest, sources)
    return StageResult(
        values={"release": manifest.digest(), "operators": operators, "parity_clips": len(waves)},
        info={
            "parity": difference,
            "latency_ms": measure_latency(graph.read_bytes(), waves),
            "note": f"opset 13, {len(operators)} operators, differs from torch by {difference:.1e}",
        },
    )


def _data(corpus: Mapping[str, Any], split: Mapping[str, int], loaded: Corpus) -> DataProvenance:
    return DataProvenance(
        manifest_digest=corpus["manifest"],
        synthetic=corpus["synthetic"],
        corpora=tuple(sorted(set(loaded.table["corpus"]))),
        n_folds=split["folds"],
        test_fold=split["test_fold"],
        val_fold=split["val_fold"],
    )


def _evidence(job: Job) -> dict[str, Any]:
    """The release decision, the headline numbers it rests on, and the same by part."""
    document = json.loads(job.file("evaluate", "evaluation.json").read_text())
    by_site = (
        "site",
        "groups",
        "cries",
        "noncries",
        "gate_auroc",
        "gate_fpr95",
        "macro_f1",
        "gate_ece",
        "reason_ece",
    )
    test = document["permutation"]
    return {
        "decision": document["release"],
        "headline": headline(document),
        "counts": document["counts"],
        "sites": [{key: row[key] for key in by_site} for row in document["sites"]],
        "snr": document["snr"],
        "false_alarms_by_label": document["gate"]["false_alarms_by_label"],
        "protocol": document["protocol"],
        "negatives": {
            kind: {name: row[name] for name in ("clips", "auroc", "fpr95")}
            for kind, row in document["gate"]["negatives"].items()
        },
        "slices": document["slices"],
        "calibration_spread": document["calibration_spread"],
        "permutation": test and {name: test.get(name) for name in ("p", "within")},
    }


def _contents(loaded: Corpus) -> dict[str, Any]:
    """What the corpus is made of."""
    table = loaded.table
    return {
        "parts": by_part(table, loaded.parts.to_numpy()),
        "corpora": by_corpus(table),
        "sites": by_site(table),
    }


def _training(job: Job) -> list[dict[str, Any]]:
    """The phases in which sites trained, from their histories."""
    base = job.parents.get("base")
    phases = [("adapters and heads", "federate")]
    if (
        base is not None and "history.json" in base.files
    ):  # it learned at the sites too, and not in pretraining alone
        phases.insert(0, ("the cry gate", "base"))
    return [
        describe_training(name, json.loads(job.file(parent, "history.json").read_text()))
        for name, parent in phases
    ]


def _waves(loaded: Corpus) -> np.ndarray:
    """The first frame of 100 clips spread over the test part and, where that is smaller, the rest."""
    order = np.argsort(loaded.parts.to_numpy() != TEST, kind="stable")
    step = max(1, int((loaded.parts == TEST).sum()) // PARITY_CLIPS)
    chosen = loaded.table.iloc[order[::step][:PARITY_CLIPS]]
    limits = runtime().settings.limits
    waves = [
        frames(
            read_audio(
                loaded.manifest.root / p, max_seconds=limits.max_clip_seconds, max_bytes=limits.max_file_bytes
            ),
            VadConfig(),
        )[0]
        for p in chosen["path"]
    ]
    return np.stack(waves)


@task(name="publish", retries=3, retry_delay_seconds=2, timeout_seconds=600, persist_result=False)
def publish(bundle: str, name: str, channel: str, run_id: str) -> dict[str, Any]:
    """Publish a bundle as a version and move the channel to it; an identical release adds nothing."""
    rt = runtime()
    artifact = resolve(rt.content, bundle)
    manifest = BundleManifest.model_validate_json(fetch(rt.content, artifact, "manifest.json").read_bytes())
    document = {**manifest.model_dump(mode="json"), "info": {"run": run_id}}
    release = registry.publish(rt.content, document, name)
    current = registry.get_channel(rt.store, f"{name}-{channel}")
    if current is None or current.manifest_digest != release.manifest_digest:
        registry.move_channel(
            rt.store,
            f"{name}-{channel}",
            release.manifest_digest,
            expect=None if current is None else current.manifest_digest,
        )
    create_markdown_artifact(
        f"**{name}** version {release.version} ({'new' if release.created else 'unchanged'}), "
        f"`{release.manifest_digest}`, on channel `{name}-{channel}`.",
        key="release",
    )
    return {
        "name": name,
        "version": release.version,
        "digest": release.manifest_digest,
        "created": release.created,
        "channel": f"{name}-{channel}",
    }


def copy_bundle(bundle: str, folder: Path) -> None:
    """Put the bundle's files into a run's folder."""
    rt = runtime()
    materialise(rt.content, resolve(rt.content, bundle), folder)
