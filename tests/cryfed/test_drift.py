"""`cryfed drift` as a person runs it: on a synthetic corpus, and on the same one recorded more quietly."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import soundfile
from typer.testing import CliRunner

from cryfed.cli.main import app
from infra.data.synth.config import SynthConfig
from infra.data.synth.corpus import synthesise
from infra.digest import digest_file
from validation.reference import FILE, read_reference

CORPUS = SynthConfig(
    sites=2, infants_per_site=10, cries_per_infant=2, noncries_per_site=12, public_noise=20, clip_seconds=1.0, seed=5,
)  # fmt: skip


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesise(CORPUS, tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def quieter(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same clips, every one 12 dB down."""
    folder = tmp_path_factory.mktemp("quieter") / "corpus"
    shutil.copytree(clips.parent, folder)
    table = pd.read_csv(folder / clips.name, dtype=str, keep_default_na=False)
    for k, name in enumerate(table["path"]):
        wave, rate = soundfile.read(folder / name)
        soundfile.write(folder / name, 0.25 * wave, rate)
        table.loc[k, "sha256"] = digest_file(folder / name)
    table.to_csv(folder / clips.name, index=False)
    return folder / clips.name


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["drift", *map(str, arguments)], env={"COLUMNS": "100"})


def test_the_same_clips_do_not_drift(clips: Path, tmp_path: Path) -> None:
    page = tmp_path / "out.html"
    done = run(clips, "--against", clips, "--html", page)
    assert done.exit_code == 0, done.output
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["verdict"] == "none"
    assert {row["psi"]["value"] for row in document["features"]} == {0.0}
    assert document["new"] == {"clips": 64, "groups": document["reference"]["groups"]}  # no public noise
    assert "Yes. None of" in page.read_text()


def test_quieter_clips_drift_and_the_page_says_how(clips: Path, quieter: Path, tmp_path: Path) -> None:
    reference = tmp_path / "run" / FILE
    reference.parent.mkdir()
    assert run(clips, "--reference-out", reference).exit_code == 0
    page = tmp_path / "out.html"
    done = run(quieter, "--against", reference.parent, "--html", page)
    assert done.exit_code == 3, done.output
    rows = {row["name"]: row for row in json.loads((tmp_path / "out.json").read_text())["features"]}
    assert {name for name, row in rows.items() if row["verdict"] == "drift"} >= {"rms_db", "peak"}
    assert {rows[name]["verdict"] for name in ("reason", "role", "duration_s", "sample_rate")} == {"none"}
    text = page.read_text()
    level = rows["rms_db"]
    for value in (level["psi"]["value"], level["psi"]["low"], level["expected"], level["threshold"]):
        assert f"{value:.3f}" in text
    assert text.count("<svg") == sum(row["verdict"] != "none" for row in rows.values())
    assert re.search(r"Level +\d\.\d\d +\d\.\d\d–\d\.\d\d .* drift", done.output)
    assert "script" not in text
    assert "None" not in re.sub(r"<[^>]*>", " ", text).replace("None of", "")


def test_rows_are_chosen_by_column_and_part(clips: Path, tmp_path: Path) -> None:
    table = pd.read_csv(clips, dtype=str, keep_default_na=False)
    site = str(table.loc[table["site"] != "", "site"].iloc[0])
    run(clips, "--where", f"site={site}", "--where", "role=cry", "--reference-out", tmp_path / "r.json")
    assert read_reference(tmp_path / "r.json").clips == 20
    counts = []
    for part in ("test", "rest"):
        run(clips, "--part", part, "--reference-out", tmp_path / "r.json")
        counts.append(read_reference(tmp_path / "r.json").clips)
    assert sum(counts) == 64
    assert 0 < counts[0] < counts[1]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--where", "site"], "write COLUMN=VALUE; columns are path, label"),
        (["--where", "colour=red"], "write COLUMN=VALUE"),
        (["--where", "site=nowhere", "--reference-out", "r.json"], "choose other rows"),
        ([], "name the folder of a run"),  # there is no latest run
        (["--against-part", "train"], "leave it out"),
    ],
)
def test_what_cannot_be_said_is_an_error_with_advice(
    clips: Path, tmp_path: Path, arguments: list[str], why: str
) -> None:
    done = run(clips, *arguments, "--html", tmp_path / "out.html")
    assert done.exit_code == 1
    assert why in " ".join(done.output.split())
    assert not (tmp_path / "out.html").exists()


def test_names_from_elsewhere_are_text_on_the_page(clips: Path, tmp_path: Path) -> None:
    run(clips, "--reference-out", tmp_path / "r.json")
    document = json.loads((tmp_path / "r.json").read_text())
    named = next(f for f in document["features"] if f["name"] == "reason")
    named["names"][0] = "<b>[red]$x^$"
    (tmp_path / "r.json").write_text(json.dumps(document))
    done = run(clips, "--against", tmp_path / "r.json", "--html", tmp_path / "out.html")
    assert done.exit_code in {0, 3}, done.output
    text = (tmp_path / "out.html").read_text()
    assert "&lt;b&gt;[red]$x^$" in text
    assert "<b>[red]" not in text
