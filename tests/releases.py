"""A small real release for tests: a network of the tiny preset, exported, with evidence that allows what it ships."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from infra.edge.bundle import Bundle, describe_files, write_bundle
from infra.edge.contents import add_contents
from infra.edge.export import export_onnx
from infra.edge.release import BundleManifest, DataProvenance
from infra.edge.variants import write_device_files
from infra.store import registry
from infra.store.content import S3Content
from infra.store.registry import Release
from models.config import preset
from models.network import CryNet
from models.segmentation import VadConfig

REASONS = ("hungry", "tired", "burping")


def evidence(ship: bool = True) -> dict[str, Any]:
    """What an evaluation leaves in a release."""
    decision = {"ship_reason_head": ship, "why": "macro-F1 0.9 is above the majority class"}
    return {"decision": decision, "headline": {"gate_auroc": {"value": 0.98, "low": 0.97, "high": 0.99}}}


def export_tiny(path: Path, *, seed: int = 3, reason_head: bool = True) -> Path:
    """The graph alone."""
    export_onnx(CryNet(preset("tiny"), REASONS, seed=seed), path, reason_head=reason_head)
    return path


def make_bundle(folder: Path, graph: Path, **changes: Any) -> Bundle:
    """A bundle around a graph; `changes` are fields of its manifest."""
    manifest = _manifest(graph, changes)
    return write_bundle(folder, manifest, {"model.onnx": graph})


def make_whole_bundle(folder: Path, graph: Path, **changes: Any) -> Bundle:
    """The same with what a device builds from, golden clips, model card and bill of materials, as the pipeline exports it."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"model.onnx": graph, **write_device_files(graph, folder)}
    manifest, sources = add_contents(_manifest(graph, changes), files, folder)
    return write_bundle(folder, manifest, sources)


def _manifest(graph: Path, changes: dict[str, Any]) -> BundleManifest:
    fields: dict[str, Any] = {
        "heads": ("gate", "reason"),
        "reasons": REASONS,
        "model": preset("tiny").to_dict(),
        "vad": asdict(VadConfig()),
        "data": DataProvenance(manifest_digest="a" * 64, synthetic=True),
        "evidence": evidence(),
        "files": describe_files({"model.onnx": graph}),
        **changes,
    }
    return BundleManifest(**fields)


def publish(content: S3Content, bundle: Bundle, name: str = "infant-cry") -> Release:
    """Put a bundle into a store as the next version of a name."""
    for file in bundle.manifest.files:
        content.put_file(bundle.path(file))
    return registry.publish(content, bundle.manifest.model_dump(mode="json"), name)
