"""The page on behaviour: `infra.evidence.behaviour.behaviour_document` as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infra.report.abstention import share
from infra.report.figures import BLUE, GREY, MUTED, ORANGE, draw, styled, svg
from infra.report.pages import Link, environment, stylesheet
from infra.report.render import est, num, pct

Json = Mapping[str, Any]

TITLES = {
    "gain": "Louder or softer",
    "polarity": "Turned upside down",
    "shift": "A moment earlier or later",
    "noise": "More noise",
    "refusal": "No cry at all",
}
_FOLDER = Path(__file__).parent
_COLOURS = (BLUE, ORANGE, GREY)


def render_behaviour(document: Json, nav: Sequence[Link] = ()) -> str:
    """Document → HTML; equal documents give equal pages."""
    from markupsafe import Markup

    checks: dict[str, list[Json]] = {name: [] for name in TITLES}
    for check in document["checks"]:
        checks[check["check"]].append(check)
    templates = environment(_FOLDER)
    templates.filters.update(num=num, est=est, pct=pct, share=share, tiny=tiny)
    return templates.get_template("behaviour.html.j2").render(
        {"name": "", "unlabelled": [], **document},
        css=stylesheet(),
        nav=nav,
        by=checks,
        titles=TITLES,
        noise_chart=Markup(noise(checks["noise"], document["calibration"])),  # noqa: S704 — drawn and escaped by us
        answer=answer(document),
    )


def tiny(value: float | None) -> str:
    """A small difference: what is exactly nothing is told from what rounds to it."""
    if value is None:
        return "–"
    return "0" if value == 0 else "< 0.0001" if 0 < value < 1e-4 else num(value, 4)


def answer(document: Json) -> str:
    """The page's first sentence: how many checks hold, and which do not."""
    checks = document["checks"]
    failed = [
        f"{c['what'].replace('-', '−')} ({TITLES[c['check']].lower()})" for c in checks if not c["passed"]
    ]
    if not failed:
        return f"All {len(checks)} checks hold."
    return f"{len(checks) - len(failed)} of {len(checks)} checks hold; what fails is {', '.join(failed)}."


@styled
def noise(checks: list[Json], calibration: Json) -> str:
    """Mean confidence by SNR, cleanest first."""
    if not checks:
        return ""
    figure, (ax,) = draw(9.4, 3.1)
    rows = checks[0]["curve"]
    x = list(range(len(rows)))
    for check, colour in zip(checks, _COLOURS, strict=False):
        cells = [r["confidence"] for r in check["curve"]]
        if all(c["low"] is not None for c in cells):
            ax.fill_between(
                x,
                [c["low"] for c in cells],
                [c["high"] for c in cells],
                color=colour,
                alpha=0.14,
                linewidth=0,
            )
        ax.plot(
            x,
            [c["value"] for c in cells],
            color=colour,
            marker="o",
            markersize=3.5,
            label=f"{check['what']} noise",
        )
    ax.axhline(calibration["gate_threshold"], color=MUTED, linewidth=0.8, linestyle=(0, (4, 4)))
    names = ["none" if r["snr_db"] is None else f"{r['snr_db']:g}".replace("-", "−") for r in rows]
    ax.set_xticks(x, names)
    ax.set_xlabel("SNR of the noise mixed into cries, dB")
    ax.set_ylabel("mean calibrated p(cry)")
    ax.set_ylim(-0.02, 1.02)
    ax.legend(loc="lower left", labelcolor=MUTED)
    ax.set_title("Mean confidence in crying, by the noise mixed in")
    return svg(figure, "behaviour-noise", "Mean confidence in crying by signal-to-noise ratio")
