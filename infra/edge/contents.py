"""What a release carries beside its graph: golden clips, a model card, a bill of materials."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from infra.edge.bom import BOM_NAME, bill_of_materials
from infra.edge.bundle import describe_files
from infra.edge.card import CARD_NAME, model_card
from infra.edge.golden import write_golden
from infra.edge.release import MODEL_NAME, BundleManifest
from infra.provenance import lock_file


def add_contents(
    manifest: BundleManifest, files: Mapping[str, Path], folder: Path
) -> tuple[BundleManifest, dict[str, Path]]:
    """Write them into `folder`; returns the manifest that names all files, and what `write_bundle` is to copy.

    Args:
        manifest: of the release, but for what is added here.
        files: the graph, and what else goes with it.
        folder: a scratch folder.

    Raises:
        BundleError: ONNX Runtime cannot load the graph.
    """
    sources = {**files, **write_golden(folder, files[MODEL_NAME]), CARD_NAME: folder / CARD_NAME}
    sources[CARD_NAME].write_text(model_card(manifest), encoding="utf-8")
    named = manifest.model_copy(update={"files": describe_files(sources)})
    # last, as it names the others; the manifest names it
    sources[BOM_NAME] = folder / BOM_NAME
    sources[BOM_NAME].write_bytes(bill_of_materials(named, lock_file()))
    return named.model_copy(update={"files": describe_files(sources)}), sources
