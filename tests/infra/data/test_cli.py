"""`cryfed data`: what a person types, and what comes back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cryfed.cli.data import app
from models.errors import ConfigError, ManifestError

RUN = CliRunner()
TINY = [
    "--sites",
    "2",
    "--infants",
    "5",
    "--cries",
    "1",
    "--noncries",
    "6",
    "--noise",
    "10",
    "--seconds",
    "1.5",
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "corpus"
    result = RUN.invoke(app, ["synth", str(out), *TINY], catch_exceptions=False)
    assert result.exit_code == 0
    assert f"32 synthetic clips, manifest {out / 'manifest.csv'}" in result.output.replace("\n", " ").replace(
        "  ", " "
    )
    return out


def test_check_shows_what_is_in_a_manifest(corpus: Path) -> None:
    result = RUN.invoke(app, ["check", str(corpus / "manifest.csv")], catch_exceptions=False)
    assert result.exit_code == 0
    for word in ("site-0", "(public)", "hungry", "laughter", "ok 32 clips of 20 groups, 2 sites", "digest "):
        assert word in result.output


def test_check_reads_every_file(corpus: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(corpus, copy)
    (copy / "noise" / "rain-00.wav").write_bytes(b"other")
    with pytest.raises(ManifestError, match=r"rain-00\.wav"):
        RUN.invoke(app, ["check", str(copy / "manifest.csv")], catch_exceptions=False)


def test_url_needs_a_hash_and_a_new_folder(tmp_path: Path) -> None:
    url = ["--url", "https://example.org/a.zip"]
    with pytest.raises(ConfigError, match="SHA-256"):
        RUN.invoke(app, ["add", "esc50", str(tmp_path / "new"), *url], catch_exceptions=False)
    with pytest.raises(ConfigError, match="exists already"):
        RUN.invoke(app, ["add", "esc50", str(tmp_path), *url, "--sha256", "0" * 64], catch_exceptions=False)
    with pytest.raises(ConfigError, match="belongs to --url"):
        RUN.invoke(app, ["add", "donateacry", str(tmp_path), "--sha256", "0" * 64], catch_exceptions=False)
    assert list(tmp_path.iterdir()) == []


def test_help_teaches() -> None:
    for command in ([], ["synth"], ["add", "donateacry"], ["add", "esc50"], ["check"]):
        result = RUN.invoke(app, [*command, "--help"])
        assert result.exit_code == 0
        assert "anifest" in result.output
