"""A running release on a device that has become another: JetPack, TensorRT or the backend changed under it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from infra.edge.agent.build import Backend, Fallback
from infra.edge.agent.engine import TensorRT
from tests.infra.edge.agent.world import (
    BOARD,
    Device,
    InProcess,
    Publisher,
    bundle_files,
    lookalike,
    refuses,
    tensorrt,
)


def engine(device: Device) -> bytes | None:
    """First line of the engine that a service would load."""
    path = device.config.folder / "current/built/engine.plan"
    return path.read_bytes().partition(b"\n")[0] if path.exists() else None


def upgraded(
    tmp_path: Path, version: str = "8.5.2", *, backend: Backend | None = None, **rule: object
) -> Device:
    """A device that ran release 5 with TensorRT 8.2.1 and was started again with another version."""
    publisher = Publisher(tmp_path / "store")
    restarts = ("/bin/sh", "-c", f"echo x >> {tmp_path}/restarts")
    device = Device(tmp_path / "device", publisher, backend=backend or tensorrt(tmp_path), restart=restarts)
    publisher.want(publisher.release(5, bundle_files(**rule)))
    assert device.refusal() is None
    assert (engine(device), device.poll().slot) == (b"ENGINE 8.2.1", "a")
    lookalike(tmp_path, version)
    device.start()
    return device


def restarts(tmp_path: Path) -> int:
    return (tmp_path / "restarts").read_text().count("x")


def test_a_new_tensorrt_gets_a_new_engine(tmp_path: Path) -> None:
    device = upgraded(tmp_path)
    before = device.current
    shutil.rmtree(device.publisher.folder / "blobs")  # it is made of what lies there
    status = device.poll()
    assert (status.state, status.error, status.slot) == ("running", None, "b")
    assert (engine(device), device.current) == (b"ENGINE 8.5.2", before)
    assert device.report()["health"]["backend"] == "tensorrt 8.5.2 fp16"
    assert restarts(tmp_path) == 2, "the service has to load it"
    for _ in range(2):
        assert device.poll().slot == "b"
    device.start()
    assert (device.poll().slot, restarts(tmp_path)) == ("b", 2)
    # back again: the slots change once more, and the old engine comes out of the cache
    (tmp_path / "tensorrt/work/fp16.log").unlink()
    lookalike(tmp_path)
    assert (device.poll().slot, engine(device)) == ("a", b"ENGINE 8.2.1")
    assert not (tmp_path / "tensorrt/work/fp16.log").exists()


def test_a_new_jetpack_alone_too(tmp_path: Path) -> None:
    board = [BOARD]
    device = upgraded(tmp_path, "8.2.1", backend=tensorrt(tmp_path, board=lambda: board[0]))
    assert device.poll().slot == "a"
    board[0] = BOARD._replace(jetpack="R32.7.1")
    assert device.poll().slot == "b"
    assert device.report()["info"]["l4t"] == "R32.7.1"


def test_where_there_is_no_store_it_is_done_all_the_same(tmp_path: Path) -> None:
    device = upgraded(tmp_path)
    (device.publisher.folder / device.publisher.key("desired")).unlink()
    status = device.poll()
    assert status.error is not None
    assert (status.error["kind"], status.slot) == ("StoreUnreachable", "b")
    assert engine(device) == b"ENGINE 8.5.2"


def test_onnx_runtime_serves_where_the_new_one_gives_no_engine(tmp_path: Path) -> None:
    backend = Fallback(tensorrt(tmp_path), InProcess())
    device = upgraded(tmp_path, backend=backend, unsupported_by=["8.5.2"])
    status = device.poll()
    assert (status.state, status.error, status.slot) == ("running", None, "b")
    assert engine(device) is None
    report = device.report()
    assert report["health"]["backend"] == "in process"
    assert report["info"]["fallback"].startswith("tensorrt: BuildFailed: TensorRT 8.5.2 gives no usable")
    assert device.poll().slot == "b", "and is not tried again at every poll"
    lookalike(tmp_path, "10.3.0")
    assert (device.poll().slot, engine(device)) == ("a", b"ENGINE 10.3.0")
    assert "fallback" not in device.report()["info"]


def test_without_onnx_runtime_it_stays_and_says_so(tmp_path: Path) -> None:
    device = upgraded(tmp_path, unsupported_by=["8.5.2"])
    for _ in range(2):
        refuses(device, "BuildFailed", says="TensorRT 8.5.2 gives no usable engine")
    log = tmp_path / "tensorrt/work/fp16.log"
    log.unlink()
    device.start()
    refuses(device, "BuildFailed")
    assert not log.exists(), "what failed is not built again, and a restart is no reason to"
    # the next release is installed all the same, and all is well then
    device.publisher.want(device.publisher.release(6))
    assert device.refusal() is None
    assert (engine(device), device.report()["state"]) == (b"ENGINE 8.5.2", "running")


def test_a_trtexec_that_is_gone(tmp_path: Path) -> None:
    device = upgraded(tmp_path)
    (tmp_path / "trtexec").unlink()
    refuses(device, "BuildFailed", says="check backend.trtexec")
    lookalike(tmp_path, "8.2.1")
    assert device.refusal() is None
    assert (device.report()["slot"], restarts(tmp_path)) == ("a", 1), "it is what it was made for"


def test_a_service_that_does_not_answer_with_it(tmp_path: Path) -> None:
    device = upgraded(tmp_path)
    config = device.config
    probe = f"grep -q 'ENGINE 8.2.1' {config.folder}/current/built/engine.plan"
    device.config = config._replace(probe=("/bin/sh", "-c", probe), probe_timeout_s=0.1)
    device.start()
    status = device.poll()
    assert status.error is not None
    assert (status.state, status.error["kind"], status.slot) == ("refused", "Unhealthy", "a")
    assert engine(device) == b"ENGINE 8.2.1"
    count = restarts(tmp_path)
    refuses(device, "Unhealthy", says="did not answer")
    assert restarts(tmp_path) == count, "it is not restarted at every poll"


def test_a_release_that_failed_here_stays_failed(tmp_path: Path) -> None:
    device = upgraded(tmp_path, "8.2.1")
    device.publisher.want(device.publisher.release(6, bundle_files(unsupported=True)))
    refuses(device, "BuildFailed")
    log = tmp_path / "tensorrt/work/fp16.log"
    lookalike(tmp_path, "8.5.2")
    status = device.poll()
    assert (status.slot, engine(device)) == ("b", b"ENGINE 8.5.2")
    assert status.error is not None
    refuses(device, "BuildFailed")
    assert "PASSED" in log.read_text(), "the other release is not tried again for that"


def test_a_damaged_release_is_fetched_instead(tmp_path: Path) -> None:
    device = upgraded(tmp_path)
    model = device.config.folder / "current/bundle/model.onnx"
    model.write_bytes(b"x" + model.read_bytes()[1:])
    assert device.refusal() is None
    assert (engine(device), device.report()["slot"]) == (b"ENGINE 8.5.2", "b")


def test_a_full_disk_is_reported_and_tried_again(tmp_path: Path) -> None:
    device = upgraded(tmp_path)

    def full(step: str, path: Path) -> None:
        if step == "write" and path.name.startswith("engine.plan"):
            raise OSError(28, "No space left on device")

    device.disk.step = full
    refuses(device, "NoSpace", says="No space left")
    device.disk.step = lambda step, path: None
    assert device.refusal() is None
    assert engine(device) == b"ENGINE 8.5.2"


def test_a_renewal_that_takes_the_device_down_is_given_up(tmp_path: Path) -> None:
    device = upgraded(tmp_path)

    class Fatal(TensorRT):
        def make(self, *given: object) -> None:  # type: ignore[override]
            raise KeyboardInterrupt

    sound, device.backend = (
        device.backend,
        Fatal(str(tmp_path / "trtexec"), tmp_path / "tensorrt", board=lambda: BOARD),
    )
    for _ in range(device.config.attempts):
        device.start()
        with pytest.raises(KeyboardInterrupt):
            device.poll()
    device.backend = sound
    device.start()
    refuses(device, "BuildFailed", says="begun 5 times")


def test_from_onnx_runtime_to_tensorrt(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path / "store")
    device = Device(tmp_path / "device", publisher)
    publisher.want(publisher.release(5))
    assert device.refusal() is None
    device.backend = tensorrt(tmp_path)
    device.start()
    assert (device.poll().slot, engine(device)) == ("b", b"ENGINE 8.2.1")
    slot = json.loads((device.config.folder / "current/slot.json").read_bytes())
    assert slot["environment"] == device.backend.environment()
    shutil.rmtree(tmp_path / "tensorrt/engines")
    assert device.poll().slot == "b", "the slot has a copy of its own"
