"""The pages on long recordings and on behaviour: every number of theirs is the document's, and what is undefined is a dash."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from infra.evidence.alarm_tuning import Limits
from infra.evidence.alarms import Rule
from infra.evidence.behaviour import behaviour_document, synthetic_cries
from infra.evidence.long_recordings import long_recordings_document
from infra.evidence.long_track import Track
from infra.evidence.panel import Judge
from infra.evidence.soundscape import TrueBout
from infra.report.behaviour import answer as behaviour_answer
from infra.report.behaviour import render_behaviour, tiny
from infra.report.long_recordings import answer, kept_limit, render_long_recordings
from models.calibration import SiteCalibration

RULES = (
    Rule("frame"),
    Rule("mean", window_s=3.0),
    Rule("hysteresis", window_s=3.0, off_margin=1.0, least_s=1.5),
)


def made_up(name: str, seed: int) -> Track:
    rng = np.random.default_rng(seed)
    logit = rng.normal(-2.0, 1.2, 3600)
    bouts = []
    for k, begin in enumerate(range(60, 1700, 120)):
        bouts.append(TrueBout(begin, begin + 20, f"{name} infant {k % 5}", "real", 5.0 * (k % 4)))
        logit[2 * begin : 2 * begin + 40] += 3.0
    groups = (f"{name} fan", f"{name} <dog>")
    return Track(
        name=name, seconds=1800.5, hop=8000, logit=logit, bouts=tuple(bouts),
        background=((np.arange(3601) // 150) % 2).astype(np.int32), groups=groups, kinds=("fan", "<dog>"),
        materials=frozenset(groups) | {b.group for b in bouts},
    )  # fmt: skip


@pytest.fixture(scope="module")
def recordings():
    return long_recordings_document(
        [made_up("tuning", 1)], [made_up("test", 2)], limits=Limits(per_hour=6.0), rules=RULES, resamples=100
    )


@pytest.fixture(scope="module")
def behaviour():
    def net(wave):
        logit = 3.0 - 40.0 * np.mean(np.abs(np.diff(wave)), axis=1)
        return logit, np.full(len(logit), -4.0)

    return behaviour_document(
        [Judge(net, SiteCalibration("ward <1>"))],
        cries=synthetic_cries(1, infants=4, each=1),
        probes=5,
        resamples=50,
    )


def text(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def test_long_recordings_page(recordings) -> None:
    page = render_long_recordings({**recordings, "name": "<b>"})
    assert page == render_long_recordings({**recordings, "name": "<b>"})
    assert "&lt;b&gt;" in page
    assert "<dog>" not in page
    t = recordings["rules"]["hysteresis"]["test"]
    said = text(page)
    assert f"{t['bouts'] - t['bouts_missed']} of {t['bouts']} bouts of crying are told" in said
    assert f"{t['false_per_hour']['value']:.1f} false alarms an hour" in said
    assert f"{recordings['chosen']['device']['gate_threshold']:.3f}" in said
    assert page.count("<svg") >= 3
    assert "None" not in said
    assert "nan" not in said.lower().split()


def test_a_limit_that_does_not_hold_is_said(recordings) -> None:
    def with_rate(low: float, value: float, **more) -> dict:
        one = recordings["rules"]["hysteresis"]
        test = {**one["test"], "false_per_hour": {"value": value, "low": low, "high": 99.0, "groups": 3}}
        return {**recordings, "rules": {**recordings["rules"], "hysteresis": {**one, "test": test, **more}}}

    assert "above the limit by more than chance" in kept_limit(with_rate(7.0, 9.0))
    assert "no further than chance" in kept_limit(with_rate(5.0, 9.0))
    assert kept_limit(with_rate(1.0, 2.0)).endswith("within it.")
    assert "came nearest" in kept_limit(with_rate(1.0, 2.0, feasible=False))


def test_nothing_found_is_no_error(recordings) -> None:
    deaf = replace(made_up("test", 2), logit=np.full(3600, -9.0))
    document = long_recordings_document([made_up("tuning", 1)], [deaf], rules=RULES, resamples=20)
    assert "0 of 14 bouts" in answer(document)
    page = text(render_long_recordings(document))
    assert "No alarm was false" in page


def test_behaviour_page(behaviour) -> None:
    page = render_behaviour(behaviour)
    assert "ward &lt;1&gt;" in page
    said = text(page)
    failed = [c for c in behaviour["checks"] if not c["passed"]]
    assert said.count(" fails ") >= len(failed) > 0
    assert said.count(" holds ") == len(behaviour["checks"]) - len(failed)
    assert failed[0]["what"] in behaviour_answer(behaviour)
    assert "not all hold" in said
    assert "None" not in said
    good = {**behaviour, "checks": [c for c in behaviour["checks"] if c["passed"]]}
    assert behaviour_answer(good).startswith("All ")


@pytest.mark.parametrize(
    ("value", "said"), [(0.0, "0"), (1e-6, "< 0.0001"), (0.0123, "0.0123"), (-0.01, "−0.0100"), (None, "–")]
)
def test_small_differences(value: float | None, said: str) -> None:
    assert tiny(value) == said
