"""Model card and bill of materials: from the manifest alone, the same bytes each time, nothing withheld shown."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from infra.digest import digest_file
from infra.edge.bom import BOM_NAME, bill_of_materials
from infra.edge.bundle import Bundle, load_bundle
from infra.edge.card import CARD_NAME, NOT_A_DEVICE, model_card
from infra.provenance import lock_file
from models.errors import ConfigError
from tests.releases import evidence, make_whole_bundle

INTERVAL = {"value": 0.91, "low": 0.85, "high": 0.95, "groups": 12}
EVIDENCE: dict[str, Any] = {
    **evidence(),
    "headline": {"gate_auroc": INTERVAL, "gate_fpr95": INTERVAL, "macro_f1": INTERVAL, "auc": None},
    "counts": {
        "clips": 90, "sites": 2, "cries": 40, "groups_of_cries": 12, "site_noncries": 30, "public_noncries": 20,
    },
    "sites": [{"site": "ward|7", "groups": 6, "cries": 20, "gate_auroc": INTERVAL, "macro_f1": INTERVAL}],
    "snr": [
        {"snr_db": None, "gate_auroc": INTERVAL, "macro_f1": INTERVAL},
        {"snr_db": -5.0, "gate_auroc": INTERVAL, "macro_f1": {"value": None, "low": None, "high": None}},
    ],
    "false_alarms_by_label": [
        {"label": "fan", "kind": "site", "clips": 10, "called_cry": 0.0},
        {"label": "rooster", "kind": "public", "clips": 22, "called_cry": 0.8182},
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tiny_graph: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_whole_bundle(tmp_path_factory.mktemp("whole"), tiny_graph, evidence=EVIDENCE)


def bom(bundle: Bundle) -> dict[str, Any]:
    return json.loads(bundle.read(BOM_NAME))


def test_a_whole_bundle_is_a_bundle_and_comes_out_the_same_twice(
    whole: Bundle, tiny_graph: Path, tmp_path: Path
) -> None:
    assert load_bundle(whole.folder).digest == whole.digest
    assert len(whole.manifest.files) == 7
    again = make_whole_bundle(tmp_path / "again", tiny_graph, evidence=EVIDENCE)
    assert again.digest == whole.digest


def test_the_card_says_what_it_is_and_how_good(whole: Bundle) -> None:
    card = whole.read(CARD_NAME).decode()
    for part in (
        NOT_A_DEVICE, "SYNTHETIC", "a" * 64, "90 clips of 2 sites", "| cry or not, AUROC | 0.910 (0.850–0.950) |",
        "reason, macro-F1", "The reason head ships", "| ward&#124;7 | 6 | 20 | 0.910", "| -5 dB | 0.910 (0.850–0.950) | – |",
    ):  # fmt: skip
        assert part in card, part
    rooster, fan = card.index("| rooster | public | 22 | 81.8 % |"), card.index("| fan | site | 10 | 0.0 % |")
    assert rooster < fan, "the worst comes first"


def test_of_a_withheld_head_only_the_reason_is_told(gate_graph: Path, tmp_path: Path) -> None:
    made = make_whole_bundle(
        tmp_path / "gate", gate_graph, heads=("gate",), reasons=(), notes=("gate overridden:\n# me",),
        evidence={**EVIDENCE, "decision": {"ship_reason_head": False, "why": "below the majority class"}},
    )  # fmt: skip
    card = made.read(CARD_NAME).decode()
    assert "The reason head is withheld: below the majority class." in card
    assert "macro-F1" not in card
    assert "- gate overridden: \\# me\n" in card
    metrics = bom(made)["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert {m["type"] for m in metrics} == {"gate_auroc", "gate_fpr95"}


def test_a_card_without_an_evaluation_says_so(whole: Bundle) -> None:
    bare = whole.manifest.model_copy(update={"evidence": {}})
    assert "It was not evaluated." in model_card(bare)
    assert bill_of_materials(bare, lock_file())


def test_the_bom_names_model_files_data_and_every_library(whole: Bundle) -> None:
    made = bom(whole)
    assert (made["bomFormat"], made["specVersion"]) == ("CycloneDX", "1.6")
    assert "serialNumber" not in made
    assert "timestamp" not in made["metadata"]
    model = made["metadata"]["component"]
    assert model["hashes"][0]["content"] == digest_file(whole.path())
    metrics = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert {
        "type": "gate_auroc",
        "slice": "SNR -5 dB",
        "value": "0.9100",
        "confidenceInterval": {"lowerBound": "0.8500", "upperBound": "0.9500"},
    } in metrics
    kinds = {
        kind: [c for c in made["components"] if c["type"] == kind] for kind in ("data", "file", "library")
    }
    assert kinds["data"][0]["version"] == "a" * 64
    assert {c["name"]: c["hashes"][0]["content"] for c in kinds["file"]} == {
        name: entry.sha256
        for name, entry in whole.manifest.files.items()
        if name not in ("model.onnx", BOM_NAME)
    }
    pinned = [line for line in lock_file().read_text().splitlines() if "==" in line]
    assert len(kinds["library"]) == len(pinned)
    assert "pkg:pypi/jinja2@3.1.6" in {c["purl"] for c in kinds["library"]}
    refs = [model["bom-ref"], *(c["bom-ref"] for c in made["components"])]
    assert len(set(refs)) == len(refs)
    graph = {d["ref"]: d.get("dependsOn", []) for d in made["dependencies"]}
    assert set(graph) == set(refs)
    assert sorted(graph["model"]) == sorted(refs[1:])
    assert re.fullmatch(r"[0-9a-f]{64}", model["version"])


def test_a_lock_file_that_pins_nothing_is_refused(whole: Bundle, tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text("# made by hand\nnumpy==2.4.6\n\ntorch>=2\n")
    with pytest.raises(ConfigError, match="'torch>=2' is not NAME==VERSION"):
        bill_of_materials(whole.manifest, lock)
