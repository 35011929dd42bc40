"""What a release has to show before a channel may point at it: a graph that is what the manifest says, and evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infra.edge.bundle import Bundle
from infra.edge.graph import check_graph
from infra.edge.runtime import Graph
from infra.edge.variants import require_device_files
from models.errors import BundleError


def require_acceptable(bundle: Bundle) -> dict[str, Any]:
    """Hold a verified bundle's heads against its graph and its evidence; returns the facts a person decides on.

    Raises:
        BundleError: heads that the graph lacks or hides, files for devices that are not what it gives, no evidence, or a
            reason head that its evaluation withheld.
        ExportError: the graph breaks a rule of the oldest target.
    """
    manifest, where = bundle.manifest, f"release {bundle.digest[:12]}…"
    check_graph(bundle.path(), name=f"{where} model.onnx")
    require_device_files(bundle)
    graph = Graph(bundle.read(), name=f"{where} model.onnx")
    if graph.has_reasons != ("reason" in manifest.heads) or graph.n_reasons != len(manifest.reasons):
        raise BundleError(
            f"{where}: its manifest names {len(manifest.reasons)} reasons, its graph has {graph.n_reasons}: they do not "
            "belong together; export and publish anew"
        )
    decision, headline = manifest.evidence.get("decision"), manifest.evidence.get("headline")
    if not isinstance(decision, Mapping) or not isinstance(headline, Mapping):
        raise BundleError(
            f"{where}: it carries no evaluation, so nothing says how good it is; `cryfed retrain` adds it"
        )
    if decision.get("ship_reason_head") is not graph.has_reasons:
        carries, allowed = ("has", "withheld") if graph.has_reasons else ("lacks", "allowed")
        raise BundleError(
            f"{where}: its graph {carries} the reason head that its evaluation {allowed} "
            f"({decision.get('why', 'no reason given')}); export and publish anew"
        )
    return {
        "heads": list(manifest.heads),
        "reasons": list(manifest.reasons),
        "synthetic": manifest.data.synthetic,
        "data": manifest.data.manifest_digest,
        "decision": decision.get("why"),
        "headline": dict(headline),
        "notes": list(manifest.notes),
    }
