"""`classify` and `evaluate` as a person runs them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import typer
from typer.testing import CliRunner

from cryfed.cli import score
from infra.edge.bundle import Bundle
from infra.edge.release import CalibrationDocument
from models.errors import BundleError

APP = typer.Typer()
score.register(APP)


def run(*arguments: object):  # type: ignore[no-untyped-def]
    return CliRunner().invoke(APP, [str(a) for a in arguments])


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "clip.wav", 0.1 * rng.normal(size=40_000), 16_000)
    return tmp_path / "clip.wav"


def test_json(make_bundle: Callable[..., Bundle], wav: Path) -> None:
    bundle = make_bundle()
    out = run("classify", wav, "--bundle", bundle.folder, "--json")
    assert out.exit_code == 0, out.output
    document = json.loads(out.stdout)
    assert document["release"]["digest"] == bundle.digest
    assert document["release"]["trained_on_synthetic"] is True
    (clip,) = document["clips"]
    assert clip["decision"] in ("cry", "no cry", "abstain")
    assert sum(clip["reason_probabilities"].values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("calibration", "shown"),
    [
        ({"gate_threshold": 0.0}, "cry"),
        ({"gate_threshold": 1.0}, "no cry"),
        ({"gate_threshold": 0.0, "energy_threshold": -1e6}, "abstain"),
    ],
)
def test_table_shows_the_decision(
    make_bundle: Callable[..., Bundle], wav: Path, calibration: dict[str, float], shown: str
) -> None:
    bundle = make_bundle(default_calibration=CalibrationDocument(**calibration))
    out = run("classify", wav, "--bundle", bundle.folder)
    assert out.exit_code == 0, out.output
    assert f" {shown} " in out.stdout
    assert "SYNTHETIC" in out.stdout


def test_one_bad_file_does_not_stop_the_others(
    make_bundle: Callable[..., Bundle], wav: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.wav").write_text("not audio")
    out = run(
        "classify",
        tmp_path / "absent.wav",
        wav,
        tmp_path / "text.wav",
        "--bundle",
        make_bundle().folder,
        "--json",
    )
    assert out.exit_code == 1
    clips = json.loads(out.stdout)["clips"]
    assert [("error" in c) for c in clips] == [True, False, True]
    assert out.stderr.count("error: ") == 2
    assert "absent.wav" in out.stderr
    assert "text.wav" in out.stderr


def test_no_bundle_is_one_clear_error(wav: Path) -> None:
    out = run("classify", wav)
    assert isinstance(out.exception, BundleError)
    assert "cryfed retrain" in str(out.exception)


def test_default_bundle_is_the_latest_run(
    make_bundle: Callable[..., Bundle], wav: Path, tmp_path: Path
) -> None:
    bundle = make_bundle("runs/one")
    (tmp_path / "runs/latest").symlink_to("one")
    out = run("classify", wav, "--json")
    assert out.exit_code == 0, out.output
    assert json.loads(out.stdout)["release"]["digest"] == bundle.digest


def test_unknown_part_and_site(make_bundle: Callable[..., Bundle], wav: Path, tmp_path: Path) -> None:
    bundle = make_bundle()
    out = run("evaluate", "--bundle", bundle.folder, "--manifest", tmp_path / "m.csv", "--part", "dev")
    assert out.exit_code == 2
    assert "'dev' is not one of" in out.stderr
    out = run("classify", wav, "--bundle", bundle.folder, "--site", "moon")
    assert isinstance(out.exception, BundleError)


def test_evaluate(make_bundle: Callable[..., Bundle], corpus: Path) -> None:
    bundle = make_bundle()
    out = run("evaluate", "--bundle", bundle.folder, "--manifest", corpus, "--resamples", 20)
    assert out.exit_code == 0, out.output
    for words in (
        "gate AUROC against all non-cries",
        "reason macro-F1",
        "abstention AUROC by energy",
        "SYNTHETIC",
        "colic",
    ):
        assert words in out.stdout
    (corpus.parent / "clip01.wav").write_bytes(b"broken")
    out = run("evaluate", "--bundle", bundle.folder, "--manifest", corpus, "--resamples", 20, "--json")
    assert out.exit_code == 1
    document = json.loads(out.stdout)
    assert list(document["manifest"]["errors"]) == ["clip01.wav"]
    assert document["gate"]["negatives"]["all"]["auroc"]["low"] is not None
