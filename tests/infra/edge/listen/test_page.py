"""The live page in a real browser: what is heard is what is seen, and a page that hears nothing says so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from infra.edge.listen.server import page
from infra.report.pages import palette, stylesheet
from tests.infra.edge.listen.browser import PROGRAM, Browser
from tests.infra.edge.listen.conftest import World
from tests.infra.edge.listen.sounds import REASONS, detector, noise, odd, silence, tone

needs_browser = pytest.mark.skipif(PROGRAM is None, reason="no chromium here: apt-get install chromium")
WORD = "document.documentElement.dataset.word"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture
def shown(world: World, browser: Browser) -> Iterator[Browser]:
    """The page, connected; it must not complain about anything."""
    world.begin()
    browser.call("Page.navigate", url="about:blank")
    browser.complaints.clear()
    browser.call("Page.navigate", url=world.url)
    browser.wait_for(f"{WORD} === 'starting'")
    yield browser
    complaints = list(browser.complaints)
    browser.call("Page.navigate", url="about:blank")  # or it would go on asking for the server of this test
    assert complaints == []


def says(browser: Browser, name: str) -> str:
    return str(browser.evaluate(f"document.getElementById('{name}').textContent"))


@needs_browser
def test_what_is_heard_is_seen(world: World, shown: Browser) -> None:
    listening = detector()
    world.hear(listening, noise(3, level=1e-5))
    shown.wait_for(f"{WORD} === 'quiet'")
    world.hear(listening, noise(4))
    shown.wait_for(f"{WORD} === 'sound'")
    assert says(shown, "say") == "There is sound, and it is not crying."

    world.hear(listening, tone(6))
    shown.wait_for(f"{WORD} === 'cry'")
    assert says(shown, "word") == "Crying"
    assert re.fullmatch(r"for \d+ s, most likely hungry \(\d+ %\)", says(shown, "say"))
    bars = shown.evaluate(
        "[...document.querySelectorAll('#bars span:nth-child(3n+1)')].map(e => e.textContent)"
    )
    assert sorted(bars) == sorted(REASONS)
    assert shown.evaluate("document.title").startswith("Crying")
    assert float(says(shown, "gate").split()[-1]) > 0.9
    assert shown.evaluate("document.getElementById('rms').getBoundingClientRect().width") > 100

    world.hear(listening, noise(5, level=1e-5))
    shown.wait_for(f"{WORD} === 'quiet'")
    assert "Crying, hungry" in says(shown, "recent")


@needs_browser
def test_abstention_looks_unlike_crying(world: World, shown: Browser) -> None:
    listening = detector()
    colour = "getComputedStyle(document.querySelector('.now')).backgroundColor"
    world.hear(listening, tone(4))
    shown.wait_for(f"{WORD} === 'cry'")
    crying = shown.evaluate(colour)
    world.hear(listening, odd(9))
    shown.wait_for(f"{WORD} === 'abstain'")
    assert says(shown, "word") == "Unsure"
    assert "Listen yourself" in says(shown, "say")
    assert says(shown, "bars") == ""
    assert shown.evaluate(colour) != crying
    assert shown.evaluate("getComputedStyle(document.querySelector('.now')).borderStyle") == "dashed"


@needs_browser
def test_no_signal_is_never_shown_as_quiet(world: World, shown: Browser) -> None:
    listening = detector()
    world.hear(listening, noise(2, level=1e-5))
    shown.wait_for(f"{WORD} === 'quiet'")
    for event in listening.lost(4.0, "no samples arrive"):
        world.hub.publish(event.to_dict())
    shown.wait_for(f"{WORD} === 'no signal'")
    assert "no samples arrive" in says(shown, "say")
    assert says(shown, "level") == "–"


@needs_browser
def test_problems_of_the_recording_are_named(world: World, shown: Browser) -> None:
    listening = detector()
    world.hear(listening, silence(6))
    shown.wait_for("document.getElementById('problems').textContent.includes('muted or unplugged')")
    world.hear(listening, noise(1))
    shown.wait_for("document.getElementById('problems').textContent === ''")


@needs_browser
def test_it_picks_up_what_is_already_going_on(world: World, shown: Browser) -> None:
    world.hear(detector(), noise(1), tone(6))
    shown.call("Page.reload")
    shown.wait_for(f"{WORD} === 'cry'")
    shown.wait_for("document.getElementById('say').textContent.includes('hungry')")


@needs_browser
def test_the_end_and_an_error(world: World, shown: Browser) -> None:
    world.whole(world.block(tone(3)))
    shown.wait_for(f"{WORD} === 'ended'")
    assert "Nothing is being watched" in says(shown, "say")
    end = {"event": "stream", "phase": "end", "seconds": 3.0, "error": "the cable <b>fell</b> out"}
    world.hub.publish(end)
    shown.wait_for(f"{WORD} === 'failed'")
    assert says(shown, "say") == "the cable <b>fell</b> out"


@needs_browser
def test_names_from_outside_are_text(world: World, shown: Browser) -> None:
    """Reasons and sources come from a manifest and a command line: no markup of theirs is obeyed."""
    evil = "<img src=x onerror=alert(1)>"
    world.begin(source=evil, reasons=[evil])
    world.hub.publish(
        {"event": "bout", "phase": "begin", "at": 2.0, "begin": 0.0, "reasons": {evil: 1.0}, "reason": evil}
    )
    shown.wait_for(f"{WORD} === 'cry'")
    assert evil in says(shown, "say")
    assert evil in says(shown, "source")
    world.hub.publish(
        {
            "event": "bout",
            "phase": "end",
            "at": 5.0,
            "begin": 0.0,
            "end": 4.0,
            "reasons": {evil: 1.0},
            "reason": evil,
        }
    )
    shown.wait_for("document.getElementById('recent').textContent.includes('onerror')")
    assert shown.evaluate("document.images.length") == 0


@needs_browser
def test_a_page_that_hears_nothing_says_so_and_comes_back(world: World, browser: Browser) -> None:
    world.begin()
    world.hear(detector(), tone(5))
    browser.call("Page.navigate", url=world.url)
    browser.wait_for(f"{WORD} === 'cry'")
    # the connection goes, and no new one is to be had
    browser.evaluate(
        "globalThis.Real = WebSocket; globalThis.WebSocket = function () { return {}; }; socket.close()"
    )
    browser.wait_for(f"{WORD} === 'lost'")
    assert "Look after the infant yourself" in says(browser, "say")
    assert says(browser, "level") == "–"
    browser.evaluate("globalThis.WebSocket = Real; connect()")
    browser.wait_for(f"{WORD} === 'cry'")
    browser.call("Page.navigate", url="about:blank")


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_and_can_be_read(
    world: World, shown: Browser, scheme: str, width: int, tmp_path: Path
) -> None:
    """Nothing is cut off sideways, the notice is in sight, and word and ground differ: WCAG's 4.5 to 1 at least."""
    shown.call(
        "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False
    )
    shown.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    try:
        listening = detector()
        for wave, word in ((noise(3), "sound"), (tone(6), "cry"), (odd(9), "abstain")):
            world.hear(listening, wave)
            shown.wait_for(f"{WORD} === '{word}'")
            assert shown.evaluate("document.documentElement.scrollWidth <= innerWidth")
            notice = shown.evaluate("document.querySelector('footer b').getBoundingClientRect().bottom")
            assert notice <= 800
            assert says(shown, "word") == {"sound": "No cry", "cry": "Crying", "abstain": "Unsure"}[word]
            assert _contrast(shown, "#say") >= 4.5
            assert _contrast(shown, "#word") >= 4.5
            assert (
                shown.evaluate("parseFloat(getComputedStyle(document.getElementById('word')).fontSize)") >= 50
            )
        shown.screenshot(tmp_path / "page.png")
        assert (tmp_path / "page.png").stat().st_size > 10_000
    finally:
        shown.call("Emulation.clearDeviceMetricsOverride")
        shown.call("Emulation.setEmulatedMedia", features=[])


def _contrast(browser: Browser, selector: str) -> float:
    """WCAG 2's contrast of a text with the box around it; colours are resolved by drawing them."""
    pixels = browser.evaluate(
        "(() => { const g = document.createElement('canvas').getContext('2d'); const read = c => { g.fillStyle = c;"
        "g.fillRect(0, 0, 1, 1); return [...g.getImageData(0, 0, 1, 1).data].slice(0, 3); };"
        f"return [read(getComputedStyle(document.querySelector('{selector}')).color),"
        "read(getComputedStyle(document.querySelector('.now')).backgroundColor)]; })()"
    )
    linear = np.where((c := np.array(pixels) / 255) <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    bright, dim = sorted(linear @ [0.2126, 0.7152, 0.0722], reverse=True)
    return float((bright + 0.05) / (dim + 0.05))


def test_its_colours_are_those_of_the_report() -> None:
    assert palette().startswith(":root {")
    assert palette() in page()[0]
    assert palette() in stylesheet()


def test_it_says_that_it_is_no_medical_device() -> None:
    assert "<b>Not a medical device.</b>" in page()[0]
