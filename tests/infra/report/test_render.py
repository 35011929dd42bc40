"""The report: self-contained, complete, and calm about what is missing."""

import json
import re
from html.parser import HTMLParser

import pytest

from infra.report import render, signal_charts
from infra.report.paper import paper_document, sources_of_run
from infra.report.render import render_html, render_report
from models.errors import OutputError

_VOID = {"meta", "br", "hr", "img", "link", "input"}


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.ids, self.references, self.headings = [], [], [], []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag not in _VOID:
            self.open.append(tag)
        if "id" in attributes:
            self.ids.append(attributes["id"])
        self.references += [
            v for k, v in attrs if k in ("href", "src", "xlink:href", "action", "srcset") and v
        ]

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> without a start"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(data.strip())


def parse(html):
    page = _Page()
    page.feed(html)
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def html(metrics):
    return render_html(metrics)


def test_it_is_well_formed_and_has_every_section(html):
    page = parse(html)
    assert len(set(page.ids)) == len(page.ids)
    for heading in (
        "Side by side", "Data", "Federated training", "Cry or not", "Reasons", "Is there anything in the labels?", "Calibration",
        "Knowing when not to answer",
        "In noise, and site by site", "The paper’s claims", "How it came about",
    ):  # fmt: skip
        assert heading in page.headings
    assert html.count("<svg") == 13
    assert len(html) < 500_000
    assert "31 January 2025, 14:22 UTC" in html


def test_it_fetches_nothing(html):
    page = parse(html)
    outside = [r for r in page.references if not r.startswith(("#", "data_docs/"))]
    assert outside == []
    assert "<script" not in html
    for found in re.findall(r"url\(([^)]*)\)", html):
        assert found.startswith("#")
    assert "@import" not in html
    ids = set(page.ids)
    for anchor in [r[1:] for r in page.references if r.startswith("#")] + re.findall(
        r"url\(#([^)]*)\)", html
    ):
        assert anchor in ids


def test_colours_come_from_the_page(html):
    drawings = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
    assert "#0a0b" not in drawings
    assert "var(--blue)" in drawings
    assert set(re.findall(r"#[0-9a-f]{6}\b", drawings)) == set()


def test_equal_documents_give_equal_pages(metrics, html):
    assert render_html(json.loads(json.dumps(metrics))) == html


def test_numbers_are_the_documents(metrics, html):
    reason = metrics["evaluation"]["reason"]
    assert f"{reason['macro_f1']['value']:.3f}" in html
    assert f"{reason['macro_f1']['low']:.3f}–{reason['macro_f1']['high']:.3f}" in html


def test_synthetic_data_is_called_synthetic_everywhere_it_counts(metrics, html):
    assert "Everything here was measured on synthetic audio" in html
    first = paper_document(sources_of_run(metrics))["rows"][0]
    assert first["synthetic"]["protocol"].startswith("synthetic cries")
    assert "absent" in first["real"]
    real = {**metrics, "data": {**metrics["data"], "synthetic": False}, "evaluation": None}
    page = render_html(real)
    assert "synthetic audio" not in page
    real["evaluation"] = metrics["evaluation"]
    first = paper_document(sources_of_run(real))["rows"][0]
    assert first["real"]["protocol"].startswith("recorded cries")
    assert "absent" in first["synthetic"]


def test_a_gate_alone_is_reported_as_such(metrics, scores_of):
    from infra.evaluation.evaluate import evaluate
    from infra.evaluation.protocol import EvaluationConfig

    alone = {**metrics, "evaluation": evaluate(scores_of(reasons=()), config=EvaluationConfig(resamples=50))}
    page = render_html(alone)
    parse(page)
    assert "ships the gate alone" in page
    assert "no reason head" in page


@pytest.mark.parametrize(
    "missing",
    [
        "run",
        "data",
        "data_gate",
        "model",
        "federation",
        "evaluation",
        "export",
        "provenance",
        "timings",
        "all",
    ],
)
def test_a_missing_section_leaves_a_page(metrics, missing, monkeypatch):
    drawn = dict.fromkeys(
        render._charts({}), ""
    )  # what charts do without data is tested with "all" and "evaluation"
    if missing not in ("all", "evaluation", "federation"):
        monkeypatch.setattr(render, "_charts", lambda _metrics: drawn)
    page = render_html({} if missing == "all" else {k: v for k, v in metrics.items() if k != missing})
    parse(page)


def test_clips_of_one_side_leave_a_page(metrics, scores_of):
    from infra.evaluation.evaluate import evaluate
    from infra.evaluation.protocol import EvaluationConfig

    s = scores_of()
    for rows in (s.gate == 1, s.gate == 0, (s.view == 0) & (s.site == "site1")):
        parse(
            render_html(
                {**metrics, "evaluation": evaluate(s.select(rows), config=EvaluationConfig(resamples=50))}
            )
        )


def test_a_failed_gate_and_its_override_are_shown(metrics):
    finding = {
        "rule": "group_leakage",
        "severity": "critical",
        "total": 3,
        "paths": [],
        "sites": {},
        "message": "<b>g7</b> is in two parts",
    }
    gate = {
        **metrics["data_gate"],
        "passed": False,
        "criticals": [finding],
        "override_reason": "known duplicate upload",
    }
    page = render_html({"data_gate": gate})
    assert "data gate overridden" in page
    assert "known duplicate upload" in page
    assert "&lt;b&gt;g7&lt;/b&gt;" in page  # messages are escaped


@pytest.fixture
def undrawn(monkeypatch):
    """Charts take seconds, and these tests are about words."""
    drawn = dict.fromkeys(render._charts({}), "")
    monkeypatch.setattr(render, "_charts", lambda _metrics: drawn)


def test_the_leaky_score_is_a_warning_and_nothing_else(metrics, undrawn):
    """It stands in its own box, said not to be a result; the rest of the page does not know of it."""
    page = render_html(metrics)
    box = re.search(r'<div class="notice">.*?</div>\n<p class="quiet">.*?</div>\n', page, re.DOTALL).group()
    assert "A warning, not a result." in box
    assert "0.987" in box
    assert "0.976" in box
    without = render_html({**metrics, "evaluation": {**metrics["evaluation"], "leaky_warning": None}})
    assert page.replace(box, "") == without


def test_the_permutation_test_and_the_probe_are_told(metrics, undrawn):
    page, test = render_html(metrics), metrics["evaluation"]["permutation"]
    assert f"p = {test['p']:.3f}" in page
    assert "within site" in page
    assert "Only confusion counts left the sites" in page
    deaf = {**metrics["data_gate"]["probe"], "signal": False, "p": 0.4}
    page = render_html({**metrics, "data_gate": {**metrics["data_gate"], "probe": deaf}})
    assert "No signal above chance." in page
    little = {**deaf, "judged": False, "macro_f1": None, "p": None}
    page = render_html({**metrics, "data_gate": {**metrics["data_gate"], "probe": little}})
    assert "No statement." in page


def test_an_older_document_without_them_leaves_a_page(metrics, undrawn):
    older = {k: v for k, v in metrics["evaluation"].items() if k not in ("permutation", "leaky_warning")}
    gate = {k: v for k, v in metrics["data_gate"].items() if k != "probe"}
    parse(render_html({**metrics, "evaluation": older, "data_gate": gate}))


def test_a_constant_answer_has_a_chart_of_one_bar(metrics):
    test = metrics["evaluation"]["permutation"]
    flat = {
        "mean": 0.175,
        "quantile_95": 0.175,
        "edges": [0.155 + 0.001 * k for k in range(41)],
        "count": [0] * 20 + [999] + [0] * 19,
    }
    drawn = signal_charts.permutation({**test, "macro_f1": 0.175, "p": 1.0, "null": flat})
    assert "observed 0.175" in drawn


def test_what_was_not_measured_is_said_to_be(metrics, undrawn):
    rows = {row["claim"]: row for row in paper_document(sources_of_run(metrics))["rows"]}
    assert "cryfed reproduce" in rows["Rounds saved by control variates"]["synthetic"]["absent"]
    assert rows["Upload a site and round"]["synthetic"]["text"] == "0.39 MB"
    assert "not a Jetson" in rows["Latency of a one-second frame"]["synthetic"]["protocol"]
    page = render_html(metrics)
    assert "not measured in this run" in page
    assert "0.39 MB" in page


def test_it_is_written_whole_or_not_at_all(metrics, tmp_path):
    out = tmp_path / "runs" / "report.html"
    few = {"run": metrics["run"], "timings": metrics["timings"]}
    render_report(few, out)
    assert out.read_text("utf-8") == render_html(few)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot write the page"):
        render_report(few, tmp_path / "file" / "report.html")
    assert [p.name for p in out.parent.iterdir()] == ["report.html"]
