"""The TensorRT backend over `tensorrt.build`. `trtexec` is a look-alike here: what it makes of graphs is not tested."""

from __future__ import annotations

import errno
import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from infra.edge.agent.build import Fallback
from infra.edge.agent.disk import Disk
from infra.edge.agent.engine import Board, TensorRT, read_board
from infra.edge.agent.errors import BuildFailed, Unhealthy
from tests.infra.edge.agent.world import InProcess, bundle_files, lookalike, tensorrt

DISK = Disk(sync=False)
Folders = tuple[Path, Path]


def bundle(folder: Path, **rule: object) -> Folders:
    """A release, and a place to build in."""
    made, built = folder / "bundle", folder / "built"
    shutil.rmtree(made, ignore_errors=True)
    built.mkdir(exist_ok=True)
    for name, data in bundle_files(**rule).items():  # type: ignore[arg-type]
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(data)
    return made, built


def test_makes_an_engine_that_agrees(tmp_path: Path) -> None:
    """20 frames are more than one batch."""
    folders = bundle(tmp_path, frames=20)
    backend = tensorrt(tmp_path)
    made = backend.make(*folders, DISK)
    assert made.health.max_difference < 1e-12
    assert (made.health.argmax_agreement, made.health.backend) == (1.0, "tensorrt 8.2.1 fp16")
    assert (made.health.p50_ms, made.health.p95_ms) == pytest.approx((10.5, 12.75))
    assert made.environment == backend.environment()
    assert made.info == {
        "soc": "nvidia,tegra210", "l4t": "R32.6.1", "precision": "fp16", "heads_ms": 7.5,
    }  # fmt: skip
    assert [p.name for p in folders[1].iterdir()] == ["engine.plan"]


def test_what_fp16_cannot_do_fp32_does_and_the_report_says_so(tmp_path: Path) -> None:
    made = tensorrt(tmp_path).make(*bundle(tmp_path, fp16_drift=0.02), DISK)
    assert made.health.backend == "tensorrt 8.2.1 fp32"
    assert "the fp16 engine differs from the reference by 0.0200" in made.info["refused"]


def test_a_second_time_it_is_not_built(tmp_path: Path) -> None:
    folders = bundle(tmp_path)
    tensorrt(tmp_path).make(*folders, DISK)
    log = tmp_path / "tensorrt/work/fp16.log"
    log.unlink()
    (folders[1] / "engine.plan").write_bytes(b"damaged")
    tensorrt(tmp_path).make(*folders, DISK)
    assert not log.exists(), "it comes from the cache"
    assert (folders[1] / "engine.plan").read_bytes().startswith(b"ENGINE 8.2.1")
    tensorrt(tmp_path, board=lambda: Board("nvidia,tegra194", "R32.6.1")).make(*folders, DISK)
    assert log.exists(), "and for another board it does not"


def test_what_a_killed_agent_left_is_swept(tmp_path: Path) -> None:
    left = [tmp_path / "tensorrt/work/engine-abc/model.engine", tmp_path / "tensorrt/engines/.new-abc"]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    tensorrt(tmp_path).make(*bundle(tmp_path), DISK)
    assert not [path for path in left if path.exists()]


@pytest.mark.parametrize(
    ("rule", "kind", "says"),
    [
        ({"unsupported": True}, BuildFailed, "No importer registered for op: LayerNorm"),
        ({"engine_drift": 0.02}, Unhealthy, "the fp32 engine differs from the reference by 0.0200"),
    ],
)
def test_no_engine_is_no_engine(tmp_path: Path, rule: dict, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        tensorrt(tmp_path).make(*bundle(tmp_path, **rule), DISK)
    assert not (tmp_path / "built/engine.plan").exists()


def test_a_build_that_hangs(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match="not done after 1 s"):
        tensorrt(tmp_path, timeout=1).make(*bundle(tmp_path, build_seconds=60), DISK)


def test_no_such_program(tmp_path: Path) -> None:
    backend = TensorRT(str(tmp_path / "nowhere"), tmp_path / "tensorrt")
    with pytest.raises(BuildFailed, match=r"check backend\.trtexec"):
        backend.make(*bundle(tmp_path), DISK)
    assert backend.environment().startswith("tensorrt none on ")


def test_a_release_without_a_plan(tmp_path: Path) -> None:
    folders = bundle(tmp_path)
    (folders[0] / "tensorrt.json").write_text("{}")
    with pytest.raises(BuildFailed, match="must have exactly"):
        tensorrt(tmp_path).make(*folders, DISK)
    (folders[0] / "tensorrt.json").unlink()
    with pytest.raises(BuildFailed, match=r"no tensorrt\.json"):
        tensorrt(tmp_path).make(*folders, DISK)


def test_a_full_disk_is_not_the_releases_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 1000))
    with pytest.raises(OSError, match="No space left") as caught:
        tensorrt(tmp_path).make(*bundle(tmp_path, unsupported=True), DISK)
    assert caught.value.errno == errno.ENOSPC


class TestEnvironment:
    def test_of_a_jetson(self, tmp_path: Path) -> None:
        (tmp_path / "proc/device-tree").mkdir(parents=True)
        (tmp_path / "etc").mkdir()
        compatible = b"nvidia,p3449-0000-b00\0nvidia,jetson-nano\0nvidia,tegra210\0"
        (tmp_path / "proc/device-tree/compatible").write_bytes(compatible)
        line = "# R32 (release), REVISION: 6.1, GCID: 27863751, BOARD: t210ref, EABI: aarch64\n"
        (tmp_path / "etc/nv_tegra_release").write_text(line)
        assert read_board(tmp_path) == ("nvidia,tegra210", "R32.6.1")

    def test_of_another_machine(self, tmp_path: Path) -> None:
        assert read_board(tmp_path).jetpack == "none"
        gpu = tmp_path / "proc/driver/nvidia/gpus/0000:01:00.0"
        gpu.mkdir(parents=True)
        (gpu / "information").write_text("Model: \t\t NVIDIA RTX A2000\nIRQ:   \t\t 1\n")
        assert read_board(tmp_path) == ("NVIDIA RTX A2000", "none")

    def test_follows_the_program(self, tmp_path: Path) -> None:
        backend = tensorrt(tmp_path)
        before = backend.environment()
        assert before == "tensorrt 8.2.1 on nvidia,tegra210, L4T R32.6.1, workspace 512 MiB"
        assert backend.environment() == before
        lookalike(tmp_path, "10.3.0")
        assert backend.environment().startswith("tensorrt 10.3.0 on ")
        (tmp_path / "trtexec").unlink()
        assert backend.environment().startswith("tensorrt none on ")


class TestFallback:
    def test_the_second_serves_and_the_report_says_why(self, tmp_path: Path) -> None:
        backend = Fallback(tensorrt(tmp_path), InProcess())
        folders = bundle(tmp_path)
        assert backend.make(*folders, DISK).health.backend == "tensorrt 8.2.1 fp16"
        made = backend.make(*bundle(tmp_path, unsupported=True), DISK)
        assert made.health.backend == "in process"
        assert made.info["fallback"].startswith(
            "tensorrt: BuildFailed: TensorRT 8.2.1 gives no usable engine"
        )
        assert made.environment == backend.environment()
        assert not (folders[1] / "engine.plan").exists(), "a service would take it"

    def test_neither(self, tmp_path: Path) -> None:
        folders = bundle(tmp_path, unsupported=True)
        golden = json.loads((folders[0] / "golden/outputs.json").read_bytes())
        golden["gate_probability"][0] += 0.02
        (folders[0] / "golden/outputs.json").write_text(json.dumps(golden))
        with pytest.raises(Unhealthy, match=r"in process: .*before that tensorrt: BuildFailed"):
            Fallback(tensorrt(tmp_path), InProcess()).make(*folders, DISK)
