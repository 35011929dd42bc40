"""The paper's table: every cell a number with its interval, protocol, seed, n and command, or the reason why there is none."""

import json
import re

import pytest

from infra.report.paper import Sources, cells_of, paper_document
from infra.report.paper_cells import cell, flipped
from infra.report.reproduction import PAGE, PAPER, read_document, render_paper, write_reproduction
from models.errors import DataError

ABLATION = {
    "changes": [{"name": "no_denoiser", "seeds": [1, 2, 3],
                 "difference": {"noisy_macro_f1": {"value": -0.031, "low": -0.05, "high": -0.012}}}],
    "plan": {"preset": "tiny"}, "noisy_db": 0.0, "infants": {"train": 100, "test": 40},
    "command": "cryfed experiments --plan ablation", "quick": False,
}  # fmt: skip
EVIDENCE = {
    "gate": {
        "differences": {"central − no-denoiser": [
            {"noise": "recorded", "snr_db": None, "all": {"value": 0.5, "low": 0.4, "high": 0.6}},
            {"noise": "site", "snr_db": 0.0, "all": {"value": 0.3, "low": 0.2, "high": 0.4}},
            {"noise": "public", "snr_db": 0.0, "all": {"value": 0.011, "low": -0.004, "high": 0.026}},
        ]},
        "arms": {"no-denoiser": {"seeds": [1, 2, 3]}},
    },
    "counts": {"cries": 321, "groups_of_cries": 155}, "command": "cryfed evidence", "quick": False,
}  # fmt: skip
EXPERIMENTS = {
    "plan": {"rounds": 50, "sites": 8, "preset": "tiny"},
    "settings": [
        {"alpha": 0.1, "participation": 1.0, "target": 0.5, "arms": []},
        {"alpha": 100.0, "participation": 1.0, "target": 0.595,
         "arms": [{"arm": "cv", "seeds": [1, 2, 3], "rounds_to_target": {"by_seed": [20, 30, None]}}]},
    ],
    "comparisons": [{"with": "cv", "without": "average", "overall": {"value": -0.04, "low": -0.12, "high": 0.03},
                     "settings": [{"seeds": [1, 2, 3]}] * 6}],
}  # fmt: skip
LATENCY = {
    "synthetic": {"p50": 3.21, "p95": 4.5, "low": 3.1, "high": 3.3, "n": 200, "on": "a chip, 2 cores", "threads": 1},
    "paper": {"p50": 60.4, "p95": 70.0, "low": 59.0, "high": 62.0, "n": 100, "on": "a chip, 2 cores", "threads": 1,
              "parameters": 1_860_000, "upload_bytes": 2_560_000},
}  # fmt: skip


@pytest.fixture
def run(metrics):
    return {**metrics, "parameters": {"preset": "compact", "seed": 7, "manifest": None, "rounds": None}}


@pytest.fixture
def whole(run):
    real = {
        **run,
        "data": {**run["data"], "synthetic": False},
        "parameters": {**run["parameters"], "manifest": "/x/clips.csv"},
    }
    return Sources(run, real, ABLATION, EXPERIMENTS, EVIDENCE, LATENCY)


def rows(sources):
    return {row["claim"]: row for row in paper_document(sources)["rows"]}


def test_every_number_says_how_it_was_made(whole):
    document = paper_document(whole)
    told = cells_of(document)
    assert len(told) == 14  # of 16: rounds cannot be counted on real clips
    for claim, column, c in told:
        for key in ("protocol", "n", "command", "text"):
            assert c[key], (claim, column, key)
        assert c["command"].startswith("cryfed ")
        assert c["seed"] is not None
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_numbers_are_those_of_the_documents(whole, run):
    found = rows(whole)
    f1 = run["evaluation"]["reason"]["macro_f1"]
    c = found["Reason macro-F1"]["synthetic"]
    assert (c["value"], c["low"], c["high"]) == (f1["value"], f1["low"], f1["high"])
    assert c["text"] == f"{f1['value']:.3f}"
    assert found["Reason AUC"]["real"]["value"] == run["evaluation"]["reason"]["auc"]["value"]
    after = run["evaluation"]["reason"]["calibration"]["after"]
    assert found["ECE after temperature scaling"]["synthetic"]["value"] == after["ece"]["value"]
    assert "--manifest CLIPS" in found["Reason macro-F1"]["real"]["command"]
    assert "--manifest" not in c["command"]


def test_a_withheld_head_and_labels_at_random_are_told(whole, run):
    evaluation = run["evaluation"]
    held = {
        **run,
        "evaluation": {**evaluation, "release": {**evaluation["release"], "ship_reason_head": False}},
    }
    first = rows(Sources(synthetic=run, real=held))["Reason macro-F1"]
    assert first["synthetic"]["note"] == ""
    assert first["real"]["note"] == "withheld by the release gate"
    assert f"with p = {evaluation['permutation']['p']:.3f}" in first["why"]
    assert "carers" not in rows(Sources(synthetic=run))["Reason macro-F1"]["why"]


def test_the_denoisers_gain_is_the_recipe_less_what_lacks_it(whole):
    """Without it 3.1 points are lost (1.2 to 5.0), so it gains as many; on real clips it is the row of public noise at 0 dB."""
    row = rows(whole)["Denoiser at 0 dB"]
    assert (row["synthetic"]["text"], row["synthetic"]["ends"]) == ("+3.1 points of macro-F1", "+1.2 to +5.0")
    assert (row["real"]["text"], row["real"]["ends"]) == ("+1.1 points of gate AUROC", "−0.4 to +2.6")


def test_rounds_count_those_that_never_got_there(whole):
    """20, 30 and 51 for the one that did not: 33.67 on average."""
    c = rows(whole)["Rounds to converge"]["synthetic"]
    assert c["value"] == pytest.approx(101 / 3)
    assert "α = 100" in c["protocol"]
    assert "1 seeds never reached it and count as 51" in c["protocol"]
    assert rows(whole)["Rounds saved by control variates"]["synthetic"]["text"] == "−4 %"
    assert rows(whole)["Rounds saved by control variates"]["synthetic"]["ends"] == "−12 to +3"


def test_latency_is_said_to_be_of_no_nano(whole):
    row = rows(whole)["Latency of a one-second frame"]
    assert row["synthetic"]["text"] == "3.2 ms median"
    assert "a chip" in row["synthetic"]["protocol"]
    assert "Not measured on a Nano" in row["why"]
    assert "60.4 ms (59.0–62.0)" in row["why"]
    assert "2.56 MB, computed" in rows(whole)["Upload a site and round"]["why"]


def test_what_is_missing_says_why(run):
    found = rows(Sources(synthetic=run, missing={"real": "absent: no clips", "evidence": "not run"}))
    assert found["Reason macro-F1"]["real"] == {"absent": "absent: no clips"}
    assert found["Denoiser at 0 dB"]["real"] == {"absent": "not run"}
    assert "cryfed reproduce" in found["Denoiser at 0 dB"]["synthetic"]["absent"]
    empty = paper_document(Sources())
    assert cells_of(empty) == []
    assert len(empty["rows"]) == 8


def test_a_quick_look_is_called_one(whole):
    quick = Sources(ablation={**ABLATION, "quick": True})
    assert "MEANS NOTHING" in rows(quick)["Denoiser at 0 dB"]["synthetic"]["protocol"]


def test_an_undefined_number_is_no_number():
    made = cell({"value": None, "low": None, "high": None}, protocol="p", seed=1, n="1", command="c")
    assert "undefined" in made["absent"]
    assert flipped({"value": None, "low": None, "high": None}, 100) == {
        "value": None,
        "low": None,
        "high": None,
    }
    assert flipped({"value": 0.1, "low": None, "high": None}, 100)["low"] is None


def test_the_page_and_the_runs_reports_hold_the_same_table(whole, run, tmp_path, monkeypatch):
    from infra.report import render

    drawn = dict.fromkeys(render._charts({}), "")
    monkeypatch.setattr(render, "_charts", lambda _metrics: drawn)
    folder = tmp_path / "run"
    folder.mkdir()
    found = [{"name": "ablation", "from": "ablation/ablation.json", "how": "<b>made</b>"}]
    page = write_reproduction(whole, found, tmp_path / "out", {"synthetic": folder})
    assert page.name == PAGE
    document = read_document(tmp_path / "out" / PAPER)
    assert read_document(folder / PAPER) == document
    text = page.read_text()
    assert text == render_paper(document)
    assert "<script" not in text
    assert "&lt;b&gt;made&lt;/b&gt;" in text
    report = (folder / "report.html").read_text()
    for words in ("+3.1 points of macro-F1", "−0.4 to +2.6", "3.2 ms median", "cryfed evidence"):
        assert words in text
        assert words in report
    assert "quick look" not in text
    assert "None" not in re.sub(r"<style>.*?</style>|<[^>]*>", " ", text, flags=re.S)
    assert "14 of 16 numbers" in text


@pytest.mark.parametrize(
    ("content", "why"), [(None, "cannot read"), ("[1]", "no JSON object"), ("{", "is no JSON")]
)
def test_what_is_no_document_is_refused(tmp_path, content, why):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=why):
        read_document(path)
