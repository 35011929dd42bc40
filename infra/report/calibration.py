"""The calibration page: `infra.evidence.calibration.calibration_document` as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infra.report import calibration_charts as charts
from infra.report.abstention import share
from infra.report.pages import Link, fill
from infra.report.render import count, est, num, pct

Json = Mapping[str, Any]


def render_calibration(document: Json, nav: Sequence[Link] = ()) -> str:
    """Document → HTML; equal documents give equal pages."""
    drawn = {
        "reliability": charts.reliability(document["reliability"], document["clips"]),
        "bands": charts.bands(document["own"]),
        "ece": charts.matrix(document["matrix"], "ece", "ECE, 15 bins of equal width"),
        "log_loss": charts.matrix(document["matrix"], "log_loss", "Log loss, nats"),
    }
    return fill(
        Path(__file__).with_name("calibration.html.j2"),
        document,
        drawn,
        {"num": num, "est": est, "count": count, "pct": pct, "share": share},
        nav=nav,
        inside=sum(site["inside"] for site in document["own"].values()),
        answer=answer(document),
    )


def answer(document: Json) -> str:
    """The page's first sentence."""
    pooled, own = document["pooled"], document["own"]
    inside = sum(site["inside"] for site in own.values())
    coverage = document["conformal"]["together"]["coverage"]["value"]
    return (
        f"With a temperature and a bias of its own, {inside} of {len(own)} sites lie inside the band that perfect calibration "
        f"would show; the debiased ECE over all clips is {pooled['own']['debiased']['value']:.3f}, "
        f"{pooled['federated']['debiased']['value']:.3f} with one fit from sums over sites, and "
        f"{pooled['none']['debiased']['value']:.3f} as learned. Sets promised to hold the truth "
        f"{100 * document['conformal']['nominal']:.0f} % of the time hold it {100 * coverage:.1f} % of the time."
    )
