"""Bad input through the command line: one clear error, exit status 1, and nothing half-written.

The commands run in one process of their own, one after the other, against one Prefect server.
"""

from __future__ import annotations

import csv
import hashlib
import html
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

COLUMNS = ("path", "label", "role", "corpus", "group", "site", "fold", "sha256")
DRIVER = """
import json, os, sys
from typer.testing import CliRunner
from cryfed.cli.main import app
from tasks import runtime

def invoke(order):
    result = CliRunner().invoke(app, order["arguments"])
    crash = "" if result.exception is None or isinstance(result.exception, SystemExit) else repr(result.exception)
    return {"code": result.exit_code, "output": result.output, "crash": crash}

with runtime.open_runtime():  # one store and one Ray cluster for all of them
    for line in sys.stdin:
        order, shared = json.loads(line), runtime._current
        if order["environment"]:  # other settings: a runtime of its own
            os.environ.update(order["environment"])
            runtime._current = None
        answer = invoke(order)
        runtime._current = shared
        for name in order["environment"]:
            os.environ.pop(name)
        print("ANSWER " + json.dumps(answer), flush=True)
"""


@dataclass
class Corpus:
    """A small corpus in which everything is right, to be spoilt in one place."""

    folder: Path
    rows: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def make(cls, folder: Path) -> Corpus:
        corpus = cls(folder)
        rng = np.random.default_rng(0)
        for site in ("north", "south"):
            for k in range(6):
                for role, label in (("cry", "hungry" if k % 2 else "tired"), ("ood_noncry", "babble")):
                    envelope = np.repeat(rng.uniform(0.05, 0.5, 10), 1600)
                    corpus.add(f"{site}/{role}-{k}.wav", envelope * rng.standard_normal(16000) * 0.3, role=role,
                               label=label, site=site, group=f"{site}-{k}", fold=k % 5)  # fmt: skip
        return corpus

    def add(self, name: str, wave: Any, *, rate: int = 16000, subtype: str = "PCM_16", **row: Any) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, wave, rate, subtype=subtype)
        self.rows.append({"path": name, "corpus": "mine", "fold": -1, **row})

    def replace(self, index: int, wave: Any, **how: Any) -> None:
        soundfile.write(
            self.folder / self.rows[index]["path"], wave, **{"samplerate": 16000, "subtype": "FLOAT", **how}
        )

    def write(self, columns: tuple[str, ...] = COLUMNS) -> Path:
        for row in self.rows:
            path = self.folder / row["path"]
            if path.is_file():
                row.setdefault("sha256", hashlib.sha256(path.read_bytes()).hexdigest())
            row.setdefault("sha256", "0" * 64)
        manifest = self.folder / "clips.csv"
        with manifest.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(self.rows)
        return manifest


@dataclass
class Commands:
    """The command line in a process of its own."""

    process: subprocess.Popen[str]
    home: Path
    environment: dict[str, str]

    def run(self, *arguments: str, **environment: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"arguments": arguments, "environment": environment}) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("ANSWER "):
                answer: dict[str, Any] = json.loads(line.removeprefix("ANSWER "))
                return answer
        pytest.fail("the process of the commands ended")


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    from infra.servers import prefect_server
    from infra.store import embedded

    home = tmp_path_factory.mktemp("home")
    embedded.ensure_running(home / ".cryfed", keep=True)  # once, not once a command
    with prefect_server.session(home / ".cryfed") as server:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("CRYFED_", "PREFECT_"))}
        environment |= server.client_environment() | {"CRYFED_HOME": str(home), "COLUMNS": "400"}
        with subprocess.Popen(
            [sys.executable, "-c", DRIVER], env=environment, cwd=home, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            yield Commands(process, home, environment)
            assert process.stdin is not None
            process.stdin.close()
    embedded.stop_running(home / ".cryfed")


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus.make(tmp_path / "corpus")


def refused(answer: dict[str, Any], *says: str) -> None:
    assert answer["crash"] == "", answer
    assert answer["code"] == 1, answer
    assert answer["output"].count("error:") == 1, answer["output"]
    assert "Traceback" not in answer["output"]
    for text in says:
        assert text.lower() in answer["output"].lower(), answer["output"]


def nothing_half_written(commands: Commands) -> None:
    """No run, nothing of a run, and no stage's files; the Data Docs of a gate that passed may be there."""
    runs = [*commands.home.glob("runs/*"), *commands.home.glob("runs/.*")]
    assert [p for p in runs if p.name != "data_docs"] == []
    scratch = [*commands.home.glob(".cryfed/scratch/*"), *commands.home.glob(".cryfed/sites/*/scratch/*")]
    assert [p for p in scratch if p.suffix != ".lock"] == []
    stages = {p.name for p in commands.home.glob(".cryfed/sites/*/artifacts/stages/*")}
    assert stages <= {"measure", "probe"}, "what comes after the gate was filed"


SPOILT: dict[str, tuple[Callable[[Corpus], Any], tuple[str, ...]]] = {
    "unknown role": (lambda c: c.rows[3].update(role="weeping"), ("weeping", "role")),
    "empty label": (lambda c: c.rows[0].update(label=""), ("label",)),
    "path outside": (lambda c: c.rows[1].update(path="../outside.wav"), ("../outside.wav",)),
    "missing file": (lambda c: (c.folder / c.rows[2]["path"]).unlink(), (".wav",)),
    "not audio": (lambda c: (c.folder / c.rows[2]["path"]).write_bytes(b"RIFF nonsense"), ("cannot be decoded", "cry-1.wav")),
    "truncated": (
        lambda c: (c.folder / c.rows[2]["path"]).write_bytes((c.folder / c.rows[2]["path"]).read_bytes()[:9000]),
        ("cry-1.wav",),
    ),
    "eight channels": (lambda c: c.replace(2, np.full((16000, 8), 0.1)), ("cry-1.wav", "channel")),
    "192 kHz": (lambda c: c.replace(2, np.full(192000, 0.1), samplerate=192000), ("cry-1.wav", "kHz")),
    "NaN samples": (lambda c: c.replace(2, np.r_[np.full(8000, 0.1), np.nan, np.full(7999, 0.1)]), ("cry-1.wav", "nan")),
    "zero seconds": (lambda c: c.replace(2, np.zeros(0)), ("cry-1.wav",)),
    "one side only": (
        lambda c: c.rows.__setitem__(slice(None), [r for r in c.rows if not (r["site"] == "south" and r["role"] == "cry")]),
        ("south",),
    ),
    "group in two parts": (lambda c: c.rows[0].update(fold=3), ("north-0", "fold")),
    "group at two sites": (lambda c: c.rows[-1].update(group="north-0"), ("north-0",)),
    "altered after hashing": (lambda c: c.rows[2].update(sha256="f" * 64), ("cry-1.wav",)),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_corpus_is_refused(name: str, corpus: Corpus, commands: Commands) -> None:
    spoil, says = SPOILT[name]
    spoil(corpus)
    refused(commands.run("gate", str(corpus.write())), *says)
    nothing_half_written(commands)


def test_a_right_corpus_passes_and_one_reason_alone_is_a_warning(corpus: Corpus, commands: Commands) -> None:
    for row in corpus.rows:
        if row["site"] == "south" and row["role"] == "cry":
            row["label"] = "hungry"
    answer = commands.run("gate", str(corpus.write()))
    assert answer["code"] == 0, answer
    assert "passed" in answer["output"]
    assert "reason" in answer["output"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, ("clips.csv",)),
        ("", ("clips.csv", "empty")),
        ("path,label,role,corpus,group,sha256\n", ("clips.csv",)),
        ("path,label,role,corpus,sha256\na.wav,x,cry,c,0\n", ("group",)),
    ],
    ids=["missing", "empty", "no rows", "no group column"],
)
def test_a_table_that_is_none_is_refused(
    text: str | None, says: tuple[str, ...], tmp_path: Path, commands: Commands
) -> None:
    manifest = tmp_path / "clips.csv"
    if text is not None:
        manifest.write_text(text)
    refused(commands.run("gate", str(manifest)), *says)


def test_an_output_that_cannot_be_written_is_said_before_the_work(tmp_path: Path, commands: Commands) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    answer = commands.run("retrain", "--preset", "tiny", CRYFED_RUNS_DIR=str(blocked / "runs"))
    refused(answer, str(blocked), "CRYFED_RUNS_DIR")


def test_a_store_that_refuses_the_key(tmp_path: Path, corpus: Corpus, commands: Commands) -> None:
    from infra.store import embedded

    server = embedded.ensure_running(tmp_path / "other")
    try:
        answer = commands.run(
            "gate",
            str(corpus.write()),
            CRYFED_STORE__ENDPOINT=server.endpoint,
            CRYFED_STORE__ACCESS_KEY=server.access_key,
            CRYFED_STORE__SECRET_KEY="canary-wrong-secret",
            CRYFED_STORE__SECURE="false",
        )
    finally:
        embedded.stop_running(tmp_path / "other")
    refused(answer, server.endpoint)
    assert "canary" not in answer["output"]


def test_a_busy_port_is_named(tmp_path: Path, corpus: Corpus, commands: Commands) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        answer = commands.run(
            "gate",
            str(corpus.write()),
            CRYFED_STORE__EMBEDDED_PORT=port,
            CRYFED_WORK_DIR=str(tmp_path / "fresh"),
        )
    refused(answer, port, "busy")


def test_retrain_stops_before_training_and_says_why_in_one_line(corpus: Corpus, commands: Commands) -> None:
    """In a process of its own, where whatever any library writes on standard error is seen."""
    spoil, _ = SPOILT["NaN samples"]
    spoil(corpus)
    done = subprocess.run(
        [sys.executable, "-m", "cryfed", "retrain", "--preset", "tiny", "--manifest", str(corpus.write())],
        env=commands.environment, cwd=commands.home, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("error:") == 1, done.stderr
    assert "Traceback" not in done.stderr
    for text in ("clip-nan", "north/cry-1.wav", "override with a reason"):
        assert text in done.stderr
    for stage in ("pool", "features", "pretrain"):
        assert f" {stage} " not in done.stderr, "nothing after the gate was begun"
    nothing_half_written(commands)


def test_an_override_needs_a_reason_and_the_release_carries_it(corpus: Corpus, commands: Commands) -> None:
    spoil, _ = SPOILT["NaN samples"]
    spoil(corpus)
    order = ("retrain", "--preset", "tiny", "--rounds", "1", "--manifest", str(corpus.write()), "--override")
    refused(commands.run(*order, "because"), "override")
    nothing_half_written(commands)
    reason = "one broken file, the recorder's battery was empty"
    answer = commands.run(*order, reason)
    assert answer["code"] == 0, answer
    latest = commands.home / "runs" / "latest"
    metrics = json.loads((latest / "metrics.json").read_text())
    assert metrics["data_gate"]["passed"] is False
    assert metrics["data_gate"]["override_reason"] == reason
    assert metrics["data_gate"]["unusable"] == ["north/cry-1.wav"]
    assert any(reason in note for note in json.loads((latest / "manifest.json").read_text())["notes"])
    assert reason in html.unescape((latest / "report.html").read_text())
