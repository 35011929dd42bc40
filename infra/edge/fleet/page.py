"""The fleet's view as one self-contained page in the report's style, and as rows for a table."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from infra.edge.fleet import charts
from infra.edge.fleet.abort import AbortRule
from infra.edge.fleet.state import Phase
from infra.edge.fleet.view import DeviceView, FleetView
from infra.report.pages import environment, stylesheet
from infra.report.render import count, num, seconds, short, when

MAX_ROWS: Final = 500
"""Devices that the page names one by one; those in trouble come first."""

_FOLDER = Path(__file__).parent
_TONE: Final = {
    Phase.ROLLING: "warn",
    Phase.ROLLING_BACK: "bad",
    Phase.CONFIRMED: "good",
    Phase.ROLLED_BACK: "bad",
}


def render_page(view: FleetView) -> str:
    """The page; equal views give equal pages."""
    from markupsafe import Markup

    templates = environment(_FOLDER)
    titles = {v.digest: v.title for v in view.versions}
    templates.filters.update(
        num=num,
        count=count,
        seconds=seconds,
        short=short,
        when=when,
        clock=clock,
        named=lambda digest: titles.get(digest, "–") if digest else "–",
        sentence=lambda text: text[:1].upper() + text[1:],
    )
    rule = view.rollout.policy.rule if view.rollout else AbortRule()
    drawn = {
        "ratios": charts.ratios(view.ratios, rule),
        "latency": charts.latency(view.devices, [(v.digest, v.title) for v in view.versions]),
    }
    return templates.get_template("page.html.j2").render(
        view=view,
        rollout=view.rollout,
        rule=rule,
        tone=_TONE[view.rollout.phase] if view.rollout else "quiet",
        headline=headline(view),
        lede=lede(view),
        trouble=[d for d in view.devices if not d.agrees][:MAX_ROWS],
        well=[d for d in view.devices if d.agrees][:MAX_ROWS],
        failed=view.failed[:MAX_ROWS],
        css=stylesheet(),
        charts={name: Markup(figure) for name, figure in drawn.items()},  # noqa: S704 — drawn and escaped by us
    )


def headline(view: FleetView) -> str:
    """What is happening, in a few words."""
    rollout = view.rollout
    if rollout is None:
        return f"{view.fleet}: no rollout yet"
    ring = rollout.rings[rollout.ring].name
    return {
        Phase.ROLLING: f"{rollout.title} is on its way, in ring {ring}",
        Phase.ROLLING_BACK: f"{rollout.title} is being rolled back",
        Phase.CONFIRMED: f"{rollout.title} is confirmed",
        Phase.ROLLED_BACK: f"{rollout.title} was rolled back",
    }[rollout.phase]


def lede(view: FleetView) -> str:
    """One sentence on how things stand."""
    total, rollout = len(view.devices), view.rollout
    said = f"{count(view.agreeing)} of {count(total)} devices run what they ought to"
    failing = sum(n for _, n in view.failures)
    if failing:
        said += f"; {count(failing)} report an error"
    if rollout is None:
        return said + "."
    why = rollout.why or (rollout.events[-1].why if rollout.events else "the first device has been asked")
    return f"{said}. {why[:1].upper()}{why[1:]}."


def rows(view: FleetView, *, limit: int = 100) -> list[dict[str, Any]]:
    """The first devices as rows of a table, those in trouble first."""
    titles = {v.digest: v.title for v in view.versions}
    return [_row(d, titles) for d in view.devices[:limit]]


def ring_rows(view: FleetView) -> list[dict[str, Any]]:
    """One row a ring."""
    return [
        {
            "ring": r.name,
            "devices": r.devices,
            "running": r.tally.running,
            "failed": r.tally.failed,
            "installing": r.tally.installing,
            "unable": r.tally.unable,
            "silent": r.tally.silent,
            "stops at": f"{r.stop_at} failures",
            "": "passed over"
            if r.skipped
            else (("second sample" if r.again else "open") if r.opened else ""),
        }
        for r in view.rings
    ]


def clock(at: float) -> str:
    """Seconds since the epoch as a time of day in UTC."""
    return f"{datetime.fromtimestamp(at, UTC):%d %b %H:%M:%S}"


def _row(d: DeviceView, titles: dict[str, str]) -> dict[str, Any]:
    def named(digest: str | None) -> str:
        return titles.get(digest, "–") if digest else "–"

    return {
        "device": d.id,
        "hardware": d.hardware,
        "ring": d.ring or "–",
        "desired": named(d.desired),
        "reported": named(d.reported),
        "state": d.state,
        "error": d.error or "",
        "p50 ms": num(d.p50_ms, 1),
        "p95 ms": num(d.p95_ms, 1),
        "reported at": d.issued,
    }
