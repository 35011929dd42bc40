"""The abstention page: whole, and true to its document whatever that holds."""

import copy
import re
from dataclasses import replace

import numpy as np
import pytest

from infra.evaluation.protocol import EvaluationConfig
from infra.evidence.abstention import abstention_evidence
from infra.report.abstention import answer, render_abstention, travels
from tests.infra.report.test_render import parse


@pytest.fixture(scope="module")
def document(scores_of):
    s = scores_of(snrs=(0.0,), noncries=15)
    s = replace(s, part=(np.unique(s.group, return_inverse=True)[1] % 5).astype(np.int8))
    return abstention_evidence(
        {3: s, 4: s},
        distance={k: s.energy + np.random.default_rng(k).normal(size=len(s)) for k in (3, 4)},
        name="federated <&>",
        command="cryfed evidence abstention",
        config=EvaluationConfig(resamples=20),
    )


@pytest.fixture(scope="module")
def html(document):
    return render_abstention(document)


def test_it_is_well_formed_self_contained_and_the_same_twice(document, html):
    page = parse(html)
    assert len(set(page.ids)) == len(page.ids)
    assert all(r.startswith("#") for r in page.references)
    assert "<script" not in html
    assert "federated &lt;&amp;&gt;" in html
    assert html.count("<svg") == 7
    assert render_abstention(document) == html


def test_it_names_its_protocol_and_its_command(html):
    protocol = ("averaged, not their scores", "5 grouped folds", "2 seeds", "20 resamples")
    for said in (*protocol, "cryfed evidence abstention"):
        assert said in html


def test_numbers_are_those_of_the_document(document, html):
    energy = document["ranking"]["all"]["signals"]["energy"]
    for key in ("auroc", "fpr95", "average_precision", "pooled_auroc"):
        assert f"{energy[key]['value']:.3f}" in html
    table = document["thresholds"]["energy"]
    for row in table["sites"]:
        assert f"{row['threshold']:.2f}".replace("-", "−") in html
    assert all(re.search(rf"{c['count']:g}<br>", html) for c in table["cross"]["kept"][0])


def test_the_first_sentence_follows_the_numbers(document):
    doc = copy.deepcopy(document)
    d = doc["ranking"]["all"]["against_energy"]
    d["gate"]["auroc"] = {"value": 0.02, "low": 0.01, "high": 0.03, "groups": 9}
    d["max_softmax"]["auroc"] = {"value": -0.02, "low": -0.03, "high": -0.01, "groups": 9}
    d["mahalanobis"]["auroc"] = {"value": 0.0, "low": -0.01, "high": 0.01, "groups": 9}
    doc["bar"] |= {"met": False}
    said = answer(doc)
    assert "the bar of 0.95 is missed" in said
    assert "gate probability is better" in said
    assert "top reason probability is worse" in said
    assert "Mahalanobis distance is not to be told apart from it" in said
    doc["bar"]["measured"] = None
    assert answer(doc) == "This run has no energy to judge."


def test_one_site_is_not_compared_with_others(document):
    table = copy.deepcopy(document["thresholds"]["energy"])
    table["spread"]["other"]["kept"]["sd"] = None
    assert "one site" in travels(table)


def test_a_run_without_reasons_thresholds_or_noise_is_still_a_page(scores_of):
    s = scores_of(snrs=(), reasons=(), noncries=15)
    s = replace(s, energy=np.full(len(s), np.nan))
    html = render_abstention(abstention_evidence(s, config=EvaluationConfig(resamples=10)))
    parse(html)
    for said in (
        "no energy to judge",
        "Nothing to compare",
        "no reason head",
        "No threshold could be fitted",
    ):
        assert said in html
