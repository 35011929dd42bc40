"""`cryfed evidence --quick` on a small corpus: what it leaves, and that a second run trains nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from infra.data.synth.config import SynthConfig
from infra.data.synth.corpus import synthesise
from infra.report.pages import EVIDENCE

pytestmark = pytest.mark.slow

CORPUS = SynthConfig(
    sites=2, infants_per_site=8, cries_per_infant=1, noncries_per_site=8, public_noise=48, clip_seconds=1.5, seed=3,
)  # fmt: skip
COMMAND = "cryfed evidence --quick"
TEXT = {
    "evidence": "A cry, or not",
    "abstention": "Knowing when not to answer",
    "long_recordings": "How often it cries wolf",
}


def run(manifest: Path, home: Path, out: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *COMMAND.split(), "--manifest", str(manifest), "--out", str(out)],
        check=False, capture_output=True, text=True, timeout=280,
        env={k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "CRYFED_"))} | {"CRYFED_HOME": str(home)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


class Page(HTMLParser):
    """A page's links, its elements that are still open, and what it loads from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = {k: v or "" for k, v in attrs}
        if tag == "a":
            self.links.add(known["href"])
        if not known.get("src", "data:").startswith("data:") or tag in {"link", "script"}:
            self.loads.append(str(known))
        if tag in {"main", "section", "table", "nav", "figure", "p"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in {"main", "section", "table", "nav", "figure", "p"}:
            assert self.open.pop() == tag


def test_the_command_leaves_pages_and_documents_and_a_second_run_trains_nothing(tmp_path: Path) -> None:
    manifest = synthesise(CORPUS, tmp_path / "corpus")
    out = tmp_path / "out"
    assert f"page: {out / 'evidence.html'}" in run(manifest, tmp_path, out)
    assert {p.stem for p in out.glob("*.html")} == {p.stem for p in out.glob("*.json")} == set(EVIDENCE)
    for name in EVIDENCE:
        text = (out / f"{name}.html").read_text()
        page = Page(text)
        assert page.open == []
        assert page.loads == []
        assert page.links >= {f"{other}.html" for other in EVIDENCE if other != name}
        assert "quick look" in text
        assert "None" not in re.sub(r"<[^>]*>", " ", text)
        if name != "suspects":  # it lists clips, and claims no number
            assert f"<code>{COMMAND}</code>" in text
        assert TEXT.get(name, "") in text
    documents = {name: json.loads((out / f"{name}.json").read_text()) for name in EVIDENCE}
    assert documents["evidence"]["missing"] == ""
    assert documents["evidence"]["unheard"] == {}
    assert set(documents["evidence"]["gate"]["arms"]) == {"central", "federated", "no-denoiser"}
    assert documents["behaviour"]["calibration"]["networks"] == 2
    assert documents["long_recordings"]["test"]["bouts"] > 0
    assert len(list((out / "cells").glob("federated-*-seed1-*-network.safetensors"))) == 2
    kept = {p: p.stat().st_mtime_ns for folder in ("cells", "heard") for p in (out / folder).iterdir()}
    before = {p: p.read_bytes() for p in out.iterdir() if p.is_file()}
    assert len(kept) == 22 + 2 + 1 + 4  # scores, networks, behaviour, two recordings for each of two folds
    run(manifest, tmp_path, out)
    assert {
        p: p.stat().st_mtime_ns for folder in ("cells", "heard") for p in (out / folder).iterdir()
    } == kept
    assert {p: p.read_bytes() for p in out.iterdir() if p.is_file()} == before
