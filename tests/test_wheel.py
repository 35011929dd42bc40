"""The wheel: complete, without tests, and working outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from infra.provenance import code_digest

REPO = Path(__file__).resolve().parent.parent
PACKAGES = {"cryfed", "flows", "tasks", "models", "infra", "validation"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--no-deps",
            "--no-build-isolation",
            "-q",
            "-w",
            str(out),
            str(REPO),
        ],
        check=True,
        capture_output=True,
    )
    (made,) = out.glob("cryfed-*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's contents in a folder of their own, without its dependencies."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run_python(installed: Path, code: str, folder: Path) -> str:
    """Run code against the wheel alone, from a folder that is no checkout."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["PYTHONPATH"] = str(installed)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_module_and_resource_is_shipped_and_no_test_is(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        path.relative_to(REPO).as_posix()
        for package in PACKAGES
        for path in (REPO / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert expected | {"infra/prefect.yaml"} <= names
    tops = {name.split("/")[0] for name in names}
    assert {t for t in tops if not t.endswith(".dist-info")} == PACKAGES


def test_modules_come_from_the_wheel_and_agree_on_the_code(installed: Path, tmp_path: Path) -> None:
    code = (
        "import models.network, infra.provenance as p; print(models.network.__file__);"
        "print(p.code_digest(['models.pretrain', 'infra.federation.rounds']))"
    )
    file, digest = run_python(installed, code, tmp_path).splitlines()
    assert Path(file).is_relative_to(installed)
    assert digest == code_digest(["models.pretrain", "infra.federation.rounds"])


def test_ray_workers_and_flower_apps_import_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    code = """
from infra.compute import cluster
from infra.settings import ComputeSettings
def where(_):
    import infra.federation.site
    return infra.federation.site.__file__
if __name__ == "__main__":
    with cluster(ComputeSettings(cpus=1)) as c:
        print(c.map(where, [0])[0])
    import infra.federation.client_app, infra.federation.server_app
    print(infra.federation.client_app.app.__class__.__name__, infra.federation.client_app.__file__)
"""
    worker, client = run_python(installed, code, tmp_path).splitlines()[-2:]
    assert Path(worker).is_relative_to(installed)
    assert client.startswith("ClientApp")
    assert client.split()[1].startswith(str(installed))


def test_the_command_line_answers(installed: Path, tmp_path: Path) -> None:
    out = run_python(
        installed,
        "import sys; sys.argv = ['cryfed', '--help']\nfrom cryfed.cli.main import app\ntry: app()\nexcept SystemExit: pass",
        tmp_path,
    )
    assert "retrain" in out
    assert "classify" in out
