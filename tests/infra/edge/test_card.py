"""The model card: other people's words are words, whatever they hold; what is not known is left out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from infra.edge.bundle import Bundle
from infra.edge.card import LIMITS, OUT_OF_SCOPE, model_card
from infra.edge.card_markdown import LONGEST, plain
from infra.edge.release import CalibrationDocument
from tests.infra.edge.test_contents import EVIDENCE, INTERVAL
from tests.releases import make_whole_bundle

HOSTILE = (
    "<script>alert(1)</script>",
    "a|b",
    "x | 1.000 |\n| y",
    "\n# Heading\n",
    "[click](https://evil.example)",
    "![x](https://evil.example/x.png)",
    "`code`",
    "**bold** __bold__ ~~gone~~",
    "<https://evil.example>",
    "https://evil.example",
    "www.evil.example",
    "- item",
    "1. item",
    "--- ",
    "&lt;b&gt;",
    "\\",
    "\u202eright to left",
    "\x00\x1b[31m",
    '"><img src=x onerror=alert(1)>',
    "x" * 10_000,
)


@pytest.fixture(scope="module")
def bundle(tiny_graph: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_whole_bundle(tmp_path_factory.mktemp("card"), tiny_graph, evidence=EVIDENCE)


def card(bundle: Bundle, **evidence: Any) -> str:
    return model_card(bundle.manifest.model_copy(update={"evidence": {**EVIDENCE, **evidence}}))


@pytest.mark.parametrize("word", HOSTILE)
def test_hostile_words_are_text_wherever_they_stand(bundle: Bundle, word: str) -> None:
    """A card with them has the lines, headings, tables and cells of one with harmless words, and no markup more."""
    calm = _with(bundle, "calm")
    wild = _with(bundle, word)
    assert len(wild.splitlines()) == len(calm.splitlines())
    for one, other in zip(calm.splitlines(), wild.splitlines(), strict=True):
        assert _cells(one) == _cells(other)
        assert one.startswith("#") == other.startswith("#")
        assert len(re.findall(r"(?<!\\)`", one)) == len(re.findall(r"(?<!\\)`", other))
    assert not re.search(r"<[a-zA-Z/!]", wild)
    assert not re.search(r"(?<!\\)\]\(", wild)
    assert not re.search(r"://(?!arxiv)", wild)
    assert "www.evil" not in wild
    assert not re.search("[\x00\x1b\u202e]", wild)
    assert max(map(len, wild.splitlines())) < 12 * LONGEST


def _with(bundle: Bundle, word: str) -> str:
    """The same word as a site, a sound, a corpus, a licence, a platform, a reason and a note."""
    row = {"value": word, "groups": 3, "cries": 4, "gate_auroc": INTERVAL, "macro_f1": INTERVAL}
    site = {**EVIDENCE["sites"][0], "site": word, "gate_ece": {"before": 0.1, "after": 0.05}}
    changes = {
        "reasons": (word, "tired"),
        "calibrations": {word: CalibrationDocument(site=word, gate_fitted=True, n_cries=9, n_noncries=8)},
        "notes": (word,),
        "evidence": {
            **EVIDENCE,
            "decision": {"ship_reason_head": True, "why": word},
            "sites": [site],
            "slices": {"platform": [row]},
            "false_alarms_by_label": [{"label": word, "kind": "site", "clips": 3, "called_cry": 0.5}],
            "data": {"corpora": [{"corpus": word, "licence": word, "clips": 5, "groups": 2}],
                     "sites": [{"site": word, "groups": 1, "cries": 2, "noncries": 3}]},
        },
    }  # fmt: skip
    return model_card(bundle.manifest.model_copy(update=changes))


def _cells(line: str) -> int:
    return len(re.findall(r"(?<!\\)\|", line))


def test_plain_words_stay_as_they_are() -> None:
    for word in ("belly_pain", "site02", "ODbL-1.0/DbCL-1.0", "dog bark", "ward 7 (north)", "café", "0.5"):
        assert plain(word) == word
    assert plain("a\n b\t c") == "a b c"
    assert plain("x" * (LONGEST + 5)) == "x" * (LONGEST - 1) + "…"
    assert plain("_x_ a_b") == r"\_x\_ a_b"


def test_calibration_of_every_site_and_of_any_other(bundle: Bundle) -> None:
    ward = CalibrationDocument(
        site="ward", gate_temperature=1.25, gate_bias=-0.5, gate_threshold=0.4, gate_fitted=True, n_cries=31, n_noncries=29
    )  # fmt: skip
    sites = [{**EVIDENCE["sites"][0], "site": "ward", "gate_ece": {"before": 0.123, "after": 0.045}}]
    spread = {"mean": 0.04, "sd": 0.01, "min": 0.02, "max": 0.06}
    made = bundle.manifest.model_copy(
        update={
            "calibrations": {"ward": ward, "new": CalibrationDocument(site="new")},
            "evidence": {**EVIDENCE, "sites": sites, "calibration_spread": {"gate_ece_after": spread}},
        }
    )  # fmt: skip
    text = model_card(made)
    assert "| ward | 31 cries, 29 others | 1.25 | −0.50 | 0.40 | 1, a default | 0.123 | 0.045 |" in text
    assert "| new | too few clips: defaults |" in text
    assert "| any other | pooled |" in text
    assert "0.040 on average, from 0.020 to 0.060" in text


def test_limits_have_this_runs_numbers(bundle: Bundle) -> None:
    text = card(
        bundle, negatives={"public": {"clips": 20, "auroc": INTERVAL, "fpr95": INTERVAL}},
        permutation={"p": 0.4321, "within": "platform"},
    )  # fmt: skip
    assert "Nothing above 4000 Hz is heard" in text
    assert "never heard, its AUROC is 0.910 (0.850–0.950)." in text
    assert "within each platform scores as well with p = 0.432." in text
    for line in (*LIMITS, *OUT_OF_SCOPE):
        assert f"- {line}" in text


def test_a_float_upload_without_masks_is_told_as_such(bundle: Bundle) -> None:
    phase = {
        "name": "adapters and heads", "rounds": 8, "sites": 3, "parameters": 1000, "codec": None, "secure": False,
        "control_variates": False, "prox_mu": 0.0, "upload_bytes": None, "privacy": None,
    }  # fmt: skip
    text = card(bundle, training=[phase])
    assert (
        "1,000 numbers travel, float32, not masked; plain averaging; no differential privacy on record."
        in text
    )
    assert "epsilon 3" in card(bundle, training=[{**phase, "privacy": "epsilon 3"}])


def test_provenance_names_parents_and_graph(bundle: Bundle) -> None:
    made = bundle.manifest.model_copy(update={"provenance": {"seed": 7, "parents": {"federate": "b" * 64}}})
    text = model_card(made)
    assert "- Seed 7." in text
    assert f"- federate: `{'b' * 64}`" in text
    assert bundle.manifest.files["model.onnx"].sha256 in text
