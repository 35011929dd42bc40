"""The gate's rule about the labels: a warning with its numbers, and silence where nothing can be said."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from models.probe import ProbeResult
from tests.validation.conftest import Federation
from validation.gate import run_gate, site_verdict
from validation.measure import measure_site
from validation.suites import NO_SIGNAL
from validation.verdict import Verdict

DEAF = ProbeResult(
    judged=True, signal=False, macro_f1=0.214, low=0.18, high=0.251, chance=0.2, needed=0.245, p=0.31, clips=253,
    groups=124, draws=499,
)  # fmt: skip


def judge(fed: Federation, probe: ProbeResult | None) -> Verdict:
    return run_gate(fed.table, measure_site(fed.table, fed.root), fed.parts, probe=probe)


def test_labels_without_signal_are_a_warning_with_the_numbers_and_no_row(pristine: Federation) -> None:
    verdict = judge(pristine, DEAF)
    assert verdict.passed
    (finding,) = verdict.warnings
    assert (finding.rule, finding.severity, finding.total, finding.paths) == (NO_SIGNAL, "warning", 0, ())
    for said in (
        "labels carry no signal above chance", "0.214 (0.180–0.251)", "0.200 on average", "p = 0.310", "above 0.245",
        "253 cries of 124 groups", "holds its reason head back",
    ):  # fmt: skip
        assert said in finding.message
    assert Verdict.from_json(verdict.to_json()) == verdict
    assert json.loads(verdict.to_json())["probe"]["p"] == 0.31


@pytest.mark.parametrize(
    "probe",
    [
        None,
        replace(DEAF, signal=True, p=0.002),
        ProbeResult(False, False, None, None, None, None, None, None, clips=12, groups=4, draws=499),
    ],
)
def test_a_signal_or_too_little_to_say_breaks_nothing(
    pristine: Federation, probe: ProbeResult | None
) -> None:
    verdict = judge(pristine, probe)
    assert verdict.warnings == ()
    assert NO_SIGNAL in verdict.rules
    assert verdict.probe is None or not verdict.probe["judged"] or verdict.probe["signal"]


def test_only_the_rule_leaves_a_site(pristine: Federation) -> None:
    own = (pristine.table["site"] == "ward1").to_numpy()
    rows = pristine.table[own]
    verdict = site_verdict("ward1", rows, measure_site(rows, pristine.root), pristine.parts[own], probe=DEAF)
    assert NO_SIGNAL in {f.rule for f in verdict.warnings}
    bare = verdict.without_paths()
    assert bare.probe is None
    assert "0.214" not in bare.to_json()
