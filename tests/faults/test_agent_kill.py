"""SIGKILL and power cuts at every step of an installation: the old release or the new, whole, and then the new."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.infra.edge.agent.world import Device, bundle_files, lookalike, settled

REPO = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("agent_killed.py")


@dataclass
class Scene:
    """A device that runs the old release and is to install the new, as it was before anything began."""

    folder: Path
    device: Device
    old: str
    new: str

    @classmethod
    def make(cls, folder: Path, **rule: object) -> Scene:
        """The installation takes two polls of work in one: a new root, and a release of three files."""
        folder.mkdir()
        publisher, device, old = settled(folder)
        scene = cls(folder, device, old, "")
        device.write_config()
        assert (
            scene.run().returncode == 0
        )  # the old release with an engine: what follows is the new one's alone
        publisher.rotate("clinical")
        scene.new = publisher.release(6, bundle_files(number=6, frames=5, padding=100_000, **rule))
        publisher.want(scene.new)
        device.write_config(
            restart=["/bin/sh", "-c", f"echo restarted >> {folder}/restarts"],
            probe=["/bin/sh", "-c", f"test -f {device.config.folder}/current/slot.json"],
            probe_timeout_s=5,
        )
        # what an agent that has run its first release looks like to the one that takes over
        shutil.copytree(folder / "device", folder / "before", symlinks=True)
        return scene

    def reset(self) -> None:
        """Back to the beginning."""
        shutil.rmtree(self.folder / "device")
        shutil.copytree(self.folder / "before", self.folder / "device", symlinks=True)
        shutil.rmtree(self.folder / "store/fleets/ward/reports", ignore_errors=True)

    def run(self, at: int = 0, how: str = "kill") -> subprocess.CompletedProcess[str]:
        """The agent, ended at a step."""
        argv = [
            sys.executable,
            "-S",
            "-E",
            str(PROGRAM),
            str(self.folder / "device/agent.json"),
            str(at),
            how,
        ]
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)

    def check(self, at: int, how: str) -> str:
        """End it at a step, look, start it plainly, look again; what was current in between."""
        self.reset()
        ended = self.run(at, how)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        between = self.device.current  # every byte of the current slot is compared
        assert between in (self.old, self.new)
        again = self.run()
        assert again.returncode == 0, f"step {at}: {again.stdout}{again.stderr}"
        assert self.device.current == self.new
        report = self.device.report()
        assert (report["state"], report["release"], report["error"]) == ("running", self.new, None)
        left = [
            p.name for p in (self.folder / "device/state").rglob("*") if p.name.endswith((".tmp", ".part"))
        ]
        assert left == []
        return between


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene.make(tmp_path_factory.mktemp("killed") / "scene")


def _steps(scene: Scene) -> list[str]:
    scene.reset()
    done = scene.run()
    assert done.returncode == 0, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if line.partition(" ")[0] in _KINDS]


_KINDS = {"write", "flush", "flushed", "rename", "renamed", "synced", "mkdir", "remove", "removed"}


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_fifty_points_and_all_around_the_switch(scene: Scene, part: int) -> None:
    """Spread over all steps, and each one that touches the link or says that a slot is whole; odd ones as power cuts."""
    steps = _steps(scene)
    assert len(steps) > 100
    critical = {i for i, step in enumerate(steps, 1) if step.split()[1] in ("current", "slot.json")}
    assert len(critical) >= 4
    points = sorted(critical | {1 + i * (len(steps) - 1) // 49 for i in range(50)})
    assert len(points) >= 50
    for at in points[part::4]:
        scene.check(at, "power" if at % 2 else "kill")


@pytest.mark.soak
@pytest.mark.parametrize("how", ["kill", "power"])
def test_every_point(scene: Scene, how: str) -> None:
    steps = _steps(scene)
    between = [scene.check(at, how) for at in range(1, len(steps) + 1)]
    assert between == sorted(between, key=[scene.old, scene.new].index), "one switch, and no way back"
    assert len(set(between)) == 2


def test_killed_while_a_program_builds(tmp_path: Path) -> None:
    """The agent ends, what it started goes on writing for a while: the next agent builds beside it."""
    scene = Scene.make(tmp_path / "scene", build_seconds=1.0)
    argv = [sys.executable, "-S", "-E", str(PROGRAM), str(scene.folder / "device/agent.json"), "0", "kill"]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 30
        log = scene.folder / "device/state/tensorrt/work/fp16.log"
        before = log.stat().st_mtime_ns
        while log.stat().st_mtime_ns == before:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    assert scene.device.current == scene.old
    again = scene.run()
    assert again.returncode == 0, again.stdout + again.stderr
    assert scene.device.current == scene.new


def test_a_renewal_that_is_cut_short(tmp_path: Path) -> None:
    """TensorRT was replaced under the old release: at twelve points, and around the switch, it is the one engine or the other."""
    scene = Scene.make(tmp_path / "scene")
    scene.device.publisher.want(scene.old, rollback=True)
    lookalike(scene.folder / "before", "8.5.2")
    engine = scene.device.config.folder / "current/built/engine.plan"
    steps = _steps(scene)
    assert engine.read_bytes().startswith(b"ENGINE 8.5.2")
    switch = steps.index("renamed current") + 1
    for at in sorted({1 + i * (len(steps) - 1) // 11 for i in range(12)} | {switch - 1, switch, switch + 1}):
        scene.reset()
        assert scene.run(at, "power" if at % 2 else "kill").returncode == -signal.SIGKILL
        assert scene.device.current == scene.old
        assert engine.read_bytes().partition(b"\n")[0] in (b"ENGINE 8.2.1", b"ENGINE 8.5.2")
        assert scene.run().returncode == 0
        assert engine.read_bytes().startswith(b"ENGINE 8.5.2"), f"step {at}"
        assert scene.device.report()["state"] == "running"


def test_killed_after_the_swap_and_the_new_one_does_not_answer(tmp_path: Path) -> None:
    """The undoing is cut short too, at each of its steps: the old release comes back, and the new is not tried again."""
    scene = Scene.make(tmp_path / "scene")
    slot = scene.device.config.folder / "current/slot.json"
    scene.device.write_config(probe=["/bin/sh", "-c", f"grep -q {scene.old} {slot}"], probe_timeout_s=0.1)
    shutil.copy(scene.folder / "device/agent.json", scene.folder / "before/agent.json")
    scene.reset()
    done = scene.run()
    steps = [line for line in done.stdout.splitlines() if line.partition(" ")[0] in _KINDS]
    switch = steps.index("renamed current") + 1
    assert steps[switch:].count("renamed current") == 1, "there and back"
    last = len(steps) - 1 - steps[::-1].index("renamed state.json")
    for at in range(switch, last, 6):
        scene.reset()
        assert scene.run(at).returncode == -signal.SIGKILL
        assert scene.device.current in (scene.old, scene.new)
        assert scene.run().returncode == 1
        assert scene.device.current == scene.old
        report = scene.device.report()
        assert (report["state"], report["release"]) == ("rolled back", scene.old)


def test_another_agent_is_kept_out(tmp_path: Path) -> None:
    import fcntl

    scene = Scene.make(tmp_path / "scene")
    with (scene.device.config.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = scene.run()
    assert done.returncode == 2
    assert "another agent" in done.stderr
