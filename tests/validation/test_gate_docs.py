"""The gate's pages: whole, of this host alone, and never in place of something else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.errors import OutputError
from tests.validation.conftest import Federation, cry_wave, judge

RNG = np.random.Generator(np.random.PCG64(11))


def test_docs_are_written_whole_and_call_no_other_host(federation: Federation, tmp_path: Path) -> None:
    federation.write(federation.clip(), cry_wave(RNG) + 0.1)
    odd = "a$b <script src='http:x'>&.wav"
    (federation.root / federation.clip("ward2")).unlink()
    federation.table["path"] = federation.table["path"].replace(federation.clip("ward2"), odd)
    docs = tmp_path / "deep" / "docs"
    judge(federation, docs)
    index = (docs / "index.html").read_text()
    assert "Failed: 1 critical, 1 warning" in index
    assert "clip-offset" in index
    pages = list(docs.rglob("*.html"))
    assert len(pages) == 5
    for page in pages:
        text = page.read_text()
        assert "<script" not in text
        assert "default-src 'none'" in text
        for word in ("cdn", "amazonaws", "url('http", 'src="http', '<link rel="stylesheet" href="http'):
            assert word not in text, (page, word)
        for link in [part.split('"')[0] for part in text.split('href="')[1:]]:
            if not link.startswith(("#", "http")):
                assert (page.parent / link).exists(), (page, link)
    assert [p.name for p in docs.parent.iterdir()] == ["docs"]

    judge(federation, docs)
    assert len(list(docs.rglob("*.html"))) == 5, "the earlier pages are replaced"


def test_docs_do_not_replace_a_folder_of_something_else(pristine: Federation, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="something else"):
        judge(pristine, tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_unwritable_docs_are_one_clear_error(pristine: Federation, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose a folder"):
        judge(pristine, tmp_path / "file" / "docs")
