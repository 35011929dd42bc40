"""The fleet at a glance: numbers, rings, table rows and the page."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from benchmarks.fleet_outcomes import NEW, OLD, Fleet, healthy, refusing
from infra.edge.fleet.page import headline, lede, render_page, ring_rows, rows
from infra.edge.fleet.state import Phase, Report
from infra.edge.fleet.view import FleetView, look, spread

TITLES = {OLD: "infant-cry@1", NEW: "infant-cry@2"}


def view(fleet: Fleet, **changes: object) -> FleetView:
    facts: dict[str, object] = {
        "fleet": "ward",
        "at": fleet.now,
        "version": fleet.version,
        "expires": "2026-12-19T12:00:00Z",
        "hardware": dict.fromkeys(fleet.ids, "jetson-nano"),
        "listed": fleet.listed,
        "reports": fleet.reports,
        "doubtful": {},
        "rollout": fleet.rollout,
        "titles": TITLES,
        **changes,
    }
    return look(**facts)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def rolled_back() -> Fleet:
    fleet = Fleet(200, refusing(set()))
    first = [d.id for d in fleet.begin().devices]
    fleet.answer = refusing(set(first[3:5]))
    fleet.run()
    assert fleet.rollout.phase is Phase.ROLLED_BACK
    return fleet


def test_rings_count_their_own_devices(rolled_back: Fleet) -> None:
    found = view(rolled_back)
    assert [
        (r.name, r.devices, r.opened, r.tally.running, r.tally.failed, r.stop_at) for r in found.rings
    ] == [
        ("1 device", 1, True, 1, 0, 1),
        ("5 %", 9, True, 7, 2, 2),
        ("10 %", 0, False, 0, 0, 2),
        ("25 %", 40, False, 0, 0, 2),
        ("100 %", 150, False, 0, 0, 3),
    ]
    assert sum(r.devices for r in found.rings) == 200
    assert found.agreeing == 200
    assert [(v.title, v.desired, v.reported) for v in found.versions] == [("infant-cry@1", 200, 200)]


def test_what_failed_stays_on_the_page_after_the_way_back(rolled_back: Fleet) -> None:
    found = view(rolled_back)
    assert [(d.ring, d.kind) for d in found.failed] == [("5 %", "Unhealthy")] * 2
    page = render_page(found)
    assert all(d.id in page for d in found.failed)
    assert headline(found) == "infant-cry@2 was rolled back"
    assert "2 of 10 devices failed (Unhealthy ×2)" in lede(found)


def test_trouble_comes_first_and_is_named() -> None:
    fleet = Fleet(12, refusing(set()))
    fleet.run()
    last = fleet.ids[-1]
    fleet.reports[last] = Report(last, 9, 4, OLD, "refused", error="NoSpace", message="3 MiB are free <b>")
    del fleet.reports[fleet.ids[5]]
    found = view(fleet, doubtful={fleet.ids[5]: "0 valid signatures"})
    assert [d.id for d in found.devices[:2]] == [last, fleet.ids[5]]
    table = rows(found)
    assert (table[0]["error"], table[0]["desired"], table[0]["reported"]) == (
        "NoSpace",
        "infant-cry@2",
        "infant-cry@1",
    )
    assert table[1]["state"] == "never reported"
    assert found.failures == (("NoSpace", 1),)
    page = render_page(found)
    assert "3 MiB are free &lt;b&gt;" in page
    assert "1 report not believed" in page
    assert "10 of 12 devices run what they ought to; 1 report an error" in lede(found)
    assert [r["running"] for r in ring_rows(found)] == [1, 2, 9]


def test_latency_is_of_those_that_run_it() -> None:
    fleet = Fleet(40, lambda d, r: healthy(d, release=r, p95_ms=11.0 if r == NEW else 10.0))
    fleet.run()
    slow = fleet.ids[7]
    fleet.reports[slow] = replace(fleet.reports[slow], p95_ms=31.0)
    found = view(fleet)
    (version,) = found.versions
    assert version.p95_ms is not None
    assert (version.p95_ms.n, version.p95_ms.median, version.p95_ms.worst) == (40, 11.0, 31.0)
    assert found.ratios == pytest.approx([1.1] * 40)
    page = render_page(found)
    assert page.count("<svg") == 2
    assert "0 of 40 devices are more than 1.2 times slower" in page


def test_the_page_is_self_contained_and_repeats(rolled_back: Fleet) -> None:
    page = render_page(view(rolled_back))
    assert page == render_page(view(rolled_back))
    assert not re.search(r"<script|<link|src=|@import|url\(\s*['\"]?http", page)
    assert "default-src 'none'" in page


def test_a_fleet_before_its_first_rollout_has_a_page(rolled_back: Fleet) -> None:
    found = view(rolled_back, rollout=None, reports={}, listed={}, version=0, expires="")
    assert headline(found) == "ward: no rollout yet"
    assert "ward: no rollout yet" in render_page(found)
    assert ring_rows(found) == []


def test_order_statistics() -> None:
    assert spread([]) is None
    found = spread([5.0, 1.0, 3.0, 2.0, 4.0])
    assert found is not None
    assert (found.n, found.median, found.p90, found.worst) == (5, 3.0, 5.0, 5.0)
