"""`cryfed listen` as a person or a service runs it."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import typer
from rich.console import Console
from typer.testing import CliRunner

from cryfed.cli import listen
from infra.edge.bundle import Bundle
from infra.edge.listen.console import Screen
from infra.edge.release import CalibrationDocument
from models.errors import BundleError, ConfigError
from tests.infra.edge.listen.sounds import noise, odd, tone
from tests.infra.edge.listen.test_state import block, play

REPO = Path(__file__).resolve().parents[4]


@pytest.fixture
def bundle(make_bundle: Callable[..., Bundle]) -> Bundle:
    """Calls everything a cry that it hears."""
    return make_bundle(default_calibration=CalibrationDocument(gate_threshold=0.0))


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "clip.wav", np.stack([noise(4, level=0.1, rate=44_100)] * 2, 1), 44_100)
    return tmp_path / "clip.wav"


def run(*arguments: object, **options: Any):  # type: ignore[no-untyped-def]
    app = typer.Typer()
    listen.register(app)
    return CliRunner().invoke(app, [str(a) for a in arguments], **options)


def command(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPO), "PYTHONWARNINGS": "error"}
    words = [sys.executable, "-m", "cryfed", "listen", *(str(a) for a in arguments)]
    return subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_json_lines(bundle: Bundle, wav: Path) -> None:
    out = run(wav, "--bundle", bundle.folder)
    assert out.exit_code == 0, out.output
    first, begin, end, last = rows(out.stdout)
    assert (first["release"], first["source"], first["trained_on_synthetic"]) == (
        bundle.digest,
        str(wav),
        True,
    )
    assert (begin["event"], begin["phase"], begin["at"]) == ("bout", "begin", 1.5)
    assert (end["event"], end["phase"], end["end"], end["ended_by"]) == ("bout", "end", 4.0, "end of stream")
    assert end["reason"] in ("hungry", "tired", "burping")
    assert (last["seconds"], last["bouts"], last["error"]) == (4.0, 1, None)


def test_frames_on_request(bundle: Bundle, wav: Path) -> None:
    out = run(wav, "--bundle", bundle.folder, "--frames")
    assert [r["end"] for r in rows(out.stdout) if r["event"] == "frame"] == [
        1.0,
        1.5,
        2.0,
        2.5,
        3.0,
        3.5,
        4.0,
    ]


def test_a_bad_file_does_not_stop_the_others(bundle: Bundle, wav: Path, tmp_path: Path) -> None:
    out = run(tmp_path / "absent.wav", wav, "--bundle", bundle.folder)
    assert out.exit_code == 1
    ends = [r for r in rows(out.stdout) if r["event"] == "stream" and r["phase"] == "end"]
    assert "no such file" in ends[0]["error"]
    assert ends[1]["error"] is None


def test_settings_are_passed_on(bundle: Bundle, wav: Path) -> None:
    told = [r["event"] for r in rows(run(wav, "--bundle", bundle.folder, "--least", 5).stdout)]
    assert told == ["stream", "stream"]
    assert isinstance(run(wav, "--bundle", bundle.folder, "--smooth", 0.1).exception, ConfigError)


def test_what_cannot_be_asked_for(bundle: Bundle, wav: Path) -> None:
    out = run(wav, "mic", "--bundle", bundle.folder)
    assert isinstance(out.exception, ConfigError)
    assert "give one alone" in str(out.exception)
    assert isinstance(run("-", "--rate", 10, "--bundle", bundle.folder).exception, ConfigError)
    assert isinstance(run(wav, "--bundle", bundle.folder, "--site", "moon").exception, BundleError)
    assert isinstance(run(wav).exception, BundleError)


def test_the_help_teaches() -> None:
    text = re.sub(r"[│\s]+", " ", run("--help", env={"COLUMNS": "160", "TERM": "dumb"}).stdout)
    for words in ("cryfed listen mic", "cryfed listen -", "--serve", "abstain", "gap", "no medical device"):
        assert words in text


def test_a_pipe_is_heard_to_its_end(bundle: Bundle) -> None:
    process = command(
        "-", "--bundle", bundle.folder, "--rate", 8000, "--encoding", "f32", stdin=subprocess.PIPE
    )
    data = noise(3, level=0.1, rate=8_000).astype("<f4").tobytes()
    assert process.stdin is not None
    process.stdin.buffer.write(data)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert rows(out)[-1]["seconds"] == 3.0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ending_it_tells_what_was_open(bundle: Bundle, number: int) -> None:
    process = command("-", "--bundle", bundle.folder, "--stall", "0", stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.buffer.write((3000 * noise(3, level=1.0)).astype("<i2").tobytes())
    process.stdin.flush()
    lines = [process.stdout.readline(), process.stdout.readline()]
    assert json.loads(lines[1])["event"] == "bout"
    process.send_signal(number)
    rest = process.stdout.read()
    assert process.wait(timeout=30) == 130
    for stream in (process.stdin, process.stdout, process.stderr):
        assert stream is not None
        stream.close()
    end, last = rows(rest)
    assert (end["event"], end["phase"]) == ("bout", "end")
    assert last["stopped"] is True


def test_its_process_imports_neither_torch_nor_prefect_nor_ray(bundle: Bundle, wav: Path) -> None:
    """With the live page too. What is heavy on a small device is named; the list can fail: soundfile has to be there."""
    code = f"""
import sys, threading
sys.argv = ["cryfed", "listen", {str(wav)!r}, "--bundle", {str(bundle.folder)!r}, "--serve", "--port", "0"]
import infra.edge.listen.server as server
running = server.LocalServer.run
def run(self):
    threading.Timer(1.0, self.stop).start()
    running(self)
server.LocalServer.run = run
from cryfed.cli.main import app
try:
    app()
except SystemExit as end:
    assert end.code in (0, None), end.code
heavy = ("torch", "torchaudio", "prefect", "ray", "flwr", "scipy", "pandas", "sklearn", "matplotlib", "onnx")
print([name for name in heavy if name in sys.modules], "soundfile" in sys.modules, "uvicorn" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": str(REPO)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[] True True"
    assert "live page: http://127.0.0.1:" in done.stderr


def test_what_a_person_sees() -> None:
    out = io.StringIO()
    _, _, events = play(block(noise(6)), block(tone(6)), block(noise(6)), block(odd(4)))
    with Screen(Console(file=out, width=120, force_terminal=True)) as screen:
        for row in events:
            screen(row)
        time.sleep(0.3)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue())
    for words in (
        "not a medical device",
        "SYNTHETIC",
        "crying",
        "cried for",
        "hungry",
        "unsure",
        "1 bouts of crying",
    ):
        assert words in text, words
