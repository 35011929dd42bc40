"""The page: whole, by itself, and as honest as its numbers."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from infra.experiments.page import answer, render_page, render_summary, verdict
from tests.infra.experiments.test_summarise import CURVES, document


def test_the_page_needs_nothing_from_elsewhere() -> None:
    page = render_page(document(CURVES))
    assert "<script" not in page
    assert not re.search(r'(?:src|href)="(?!#)', page)
    figures = re.findall(r"<svg.*?</svg>", page, re.S)
    assert len(figures) == 5
    for figure in figures:
        ET.fromstring(figure)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_equal_documents_give_equal_pages() -> None:
    assert render_page(document(CURVES)) == render_page(document(CURVES))


def test_the_first_sentence_says_it_when_control_variates_cost_rounds() -> None:
    swapped = {"average": CURVES["cv"], "cv": CURVES["average"]}
    assert "took 145 % more rounds" in answer(document(swapped))
    assert "took 59 % fewer rounds" in answer(document(CURVES))


def test_an_interval_across_zero_is_no_verdict() -> None:
    assert verdict({"low": -0.1, "high": 0.5}) == "no difference shown"
    assert verdict({"low": 0.1, "high": 0.5}) == "fewer rounds"
    assert verdict({"low": -0.5, "high": -0.1}) == "more rounds"
    assert verdict({"low": None, "high": None}) == "one seed says nothing"


def test_the_summary_has_every_arm_and_every_comparison() -> None:
    found = document(CURVES)
    text = render_summary(found)
    for arm in found["settings"][0]["arms"]:
        assert f"`{arm['arm']}`" in text
    assert text.count("**all settings**") == len(found["comparisons"])
    assert "–, –" in text  # a target that no seed reached
