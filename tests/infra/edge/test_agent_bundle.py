"""The tree that goes to a device, run from a folder of its own: no repository, no installed package, a whole installation."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cryfed.cli.fleet import app
from infra.edge.agent_bundle import SUMS, write_agent
from infra.edge.bundle import Bundle
from models.errors import OutputError
from tests.infra.edge.agent.world import Device, Publisher
from tests.releases import export_tiny, make_whole_bundle

# nothing of the environment, of the user's packages or of the site's, and the tree alone in front of the standard library
START = "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); runpy.run_module('edge.agent', run_name='__main__')"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("device") / "opt"
    write_agent(folder)
    return folder


def oldest() -> str | None:
    """A Python 3.6 of this machine: on the path, or pyenv's."""
    kept = sorted(Path.home().glob(".pyenv/versions/3.6.*/bin/python3.6"))
    return str(kept[-1]) if kept else shutil.which("python3.6")


def poll(
    tree: Path, device: Device, folder: Path, python: str = sys.executable, **config: Any
) -> dict[str, Any]:
    """One poll of the copied agent; what it says it reports."""
    path = device.write_config(**config)
    argv = [
        python,
        "-I",
        "-S",
        "-W",
        "error",
        "-c",
        START,
        str(tree),
        "--config",
        str(path),
        "--once",
    ]
    done = subprocess.run(
        argv, cwd=folder, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def ready(folder: Path, bundle: Bundle | None = None) -> tuple[Device, str]:
    """A device that is asked for its first release, at a time that every clock accepts."""
    publisher = Publisher(folder / "store")
    digest = publisher.release(1) if bundle is None else publisher.release_bundle(1, bundle)
    publisher.want(digest, expires="2099-01-01T00:00:00Z")
    return Device(folder / "device", publisher), digest


@pytest.mark.parametrize("version", ["3.6", "this"])
def test_an_installation_with_trtexec(tree: Path, tmp_path: Path, version: str) -> None:
    python = oldest() if version == "3.6" else sys.executable
    if python is None:
        pytest.skip("no Python 3.6 on this machine: syntax and names are held to it by test_python36 alone")
    device, digest = ready(tmp_path)
    status = poll(tree, device, tmp_path, python)
    assert (status["state"], status["release"], status["slot"]) == ("running", digest, "a")
    assert status["health"]["backend"] == "tensorrt 8.2.1 fp16"
    assert device.current == digest
    assert (device.config.folder / "current/built/engine.plan").read_bytes().startswith(b"ENGINE 8.2.1")
    assert device.report()["info"]["precision"] == "fp16"
    assert poll(tree, device, tmp_path, python)["slot"] == "a", "and a second time nothing is to be done"


@pytest.mark.slow
def test_an_installation_with_onnx_runtime(tree: Path, tmp_path: Path) -> None:
    """Of a whole bundle as the pipeline exports it; the interpreter of ONNX Runtime is not the agent's."""
    bundle = make_whole_bundle(tmp_path / "bundle", export_tiny(tmp_path / "model.onnx"))
    device, digest = ready(tmp_path, bundle)
    status = poll(tree, device, tmp_path, backend={"python": sys.executable})
    assert (status["state"], status["release"]) == ("running", digest)
    assert digest == bundle.digest
    assert status["health"]["backend"].startswith("onnxruntime 1.")
    assert status["health"]["max_difference"] < 1e-5
    assert device.current == digest


def test_nothing_of_it_comes_from_elsewhere(tree: Path, tmp_path: Path) -> None:
    """Every module that is loaded lies in the tree or is Python's own."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import edge.agent.__main__; import json; "
        "print(json.dumps([m.__file__ for m in sys.modules.values() if getattr(m, '__file__', None)]))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(tree)],
        cwd=tmp_path, env={}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    files = [Path(name) for name in json.loads(done.stdout)]
    ours = [path for path in files if tree in path.parents]
    assert {"engine.py", "parity.py", "process.py"} <= {path.name for path in ours}
    others = [path for path in files if path not in ours and Path(sys.base_prefix) not in path.parents]
    assert others == []


def test_the_command_writes_it_with_its_sums(tmp_path: Path) -> None:
    out = tmp_path / "cryfed-agent"
    told = CliRunner().invoke(app, ["agent-bundle", str(out)])
    assert told.exit_code == 0, told.output
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", SUMS], cwd=out, check=True)
    listed = {line.split("  ")[1] for line in (out / SUMS).read_text().splitlines()}
    assert listed | {SUMS} == {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert "cryfed-agent.service" in listed
    assert not [name for name in listed if "precision" in name or "typed" in name]


def test_what_lies_there_is_not_mixed_with_it(tmp_path: Path) -> None:
    (tmp_path / "edge").mkdir()
    with pytest.raises(OutputError, match="not empty"):
        write_agent(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_agent(tmp_path / "file")
