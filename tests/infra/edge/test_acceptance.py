"""No channel for a release whose graph, manifest and evidence tell different stories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra.edge.acceptance import require_acceptable
from models.errors import BundleError, ExportError
from tests.releases import evidence, make_bundle

GATE_ALONE: dict[str, Any] = {"heads": ("gate",), "reasons": (), "evidence": evidence(ship=False)}


def test_whole_releases_are_accepted_and_described(
    tiny_graph: Path, gate_graph: Path, tmp_path: Path
) -> None:
    facts = require_acceptable(
        make_bundle(tmp_path / "both", tiny_graph, notes=("gate overridden: because",))
    )
    assert (facts["heads"], facts["synthetic"], facts["notes"]) == (
        ["gate", "reason"],
        True,
        ["gate overridden: because"],
    )
    assert facts["headline"]["gate_auroc"]["value"] == 0.98
    assert require_acceptable(make_bundle(tmp_path / "gate", gate_graph, **GATE_ALONE))["heads"] == ["gate"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evidence": {}}, "carries no evaluation"),
        ({"evidence": {"decision": {"ship_reason_head": True}}}, "carries no evaluation"),
        ({"evidence": evidence(ship=False)}, "has the reason head that its evaluation withheld"),
        ({"evidence": {**evidence(), "decision": {}}}, "has the reason head that its evaluation withheld"),
        (GATE_ALONE, "names 0 reasons, its graph has 3"),
        ({"reasons": ("hungry", "tired")}, "names 2 reasons, its graph has 3"),
    ],
)
def test_graph_manifest_and_evidence_must_agree(
    tiny_graph: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        require_acceptable(make_bundle(tmp_path / "release", tiny_graph, **changes))


def test_a_head_that_was_allowed_has_to_be_there(gate_graph: Path, tmp_path: Path) -> None:
    changes = {**GATE_ALONE, "evidence": evidence(ship=True)}
    with pytest.raises(BundleError, match="lacks the reason head that its evaluation allowed"):
        require_acceptable(make_bundle(tmp_path / "release", gate_graph, **changes))


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ExportError, match="not a valid ONNX file"):
        require_acceptable(make_bundle(tmp_path / "release", tmp_path / "model.onnx"))
