"""The whole of a poll, from a folder of documents to a current slot, with the real code and the real `openssl`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from infra.edge.agent.openssl import OpenSSL
from infra.edge.agent.report import Status
from infra.edge.agent.slots import Slots
from tests.infra.edge.agent.signing import opened
from tests.infra.edge.agent.world import (
    DAY,
    NOW,
    Device,
    InProcess,
    Publisher,
    bundle_files,
    refuses,
    settled,
    tensorrt,
)


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    """A fleet with its first root."""
    return Publisher(tmp_path / "store")


@pytest.fixture
def device(tmp_path: Path, publisher: Publisher) -> Device:
    """A fresh device of it."""
    return Device(tmp_path / "device", publisher)


def test_a_release_becomes_current_and_is_reported(publisher: Publisher, device: Device) -> None:
    digest = publisher.release(1)
    publisher.want(digest)
    status = device.poll()
    assert (status.state, status.error, status.release, status.slot) == ("running", None, digest, "a")
    assert device.current == digest
    report = device.report()
    assert report["type"] == "report"
    assert (report["device"], report["desired"], report["release"]) == ("cot-7", 1, digest)
    assert report["health"]["max_difference"] == 0.0
    assert report["health"]["argmax_agreement"] == 1.0
    assert (report["health"]["p50_ms"], report["health"]["p95_ms"]) == (9.0, 9.9)


def test_the_same_with_openssl_as_the_verifier(tmp_path: Path, publisher: Publisher, device: Device) -> None:
    openssl = OpenSSL(tmp_path)
    device.agent._trusted._verify = openssl.verify
    publisher.rotate("root")
    digest = publisher.release(1)
    publisher.want(digest)
    assert device.refusal() is None
    publisher.keys["fleet"] = publisher.keys["release"]
    publisher.want(digest)
    refuses(device, "BadSignature")


def test_the_next_release_goes_into_the_other_slot(publisher: Publisher, device: Device) -> None:
    for number, slot in ((1, "a"), (2, "b"), (3, "a")):
        digest = publisher.release(number)
        publisher.want(digest)
        assert device.poll().slot == slot
        assert device.current == digest


def test_a_device_in_no_ring_keeps_what_it_has(publisher: Publisher, device: Device) -> None:
    publisher.want(publisher.release(1), devices=["cot-8"])
    assert device.poll() == Status(1, None, None, "running", None, None)
    assert device.current is None


def test_nothing_is_done_twice(publisher: Publisher, device: Device) -> None:
    publisher.want(publisher.release(1))
    device.poll()
    version = device.report()["version"]
    blobs = publisher.folder / "blobs"
    shutil.rmtree(blobs)
    assert device.refusal() is None
    assert device.report()["version"] == version, "no news, no report"
    device.clock.now += 2 * 3600
    device.poll()
    assert device.report()["version"] == version + 1, "but a sign of life"


def test_what_both_releases_have_is_not_fetched_again(publisher: Publisher, device: Device) -> None:
    publisher.want(publisher.release(1, bundle_files(number=1)))
    device.poll()
    shutil.rmtree(publisher.folder / "blobs")
    files = bundle_files(number=2)
    second = publisher.release(2, files)
    (publisher.folder / "blobs").rename(tmp := publisher.folder / "aside")
    digests = {p.name for p in (tmp / "sha256").iterdir()}
    from infra.digest import digest_bytes

    model = digest_bytes(files["model.onnx"])
    assert model in digests
    (publisher.folder / "blobs/sha256").mkdir(parents=True)
    (tmp / "sha256" / model).rename(publisher.folder / "blobs/sha256" / model)
    publisher.want(second)
    assert device.refusal() is None
    assert device.current == second


def test_an_expired_sign_off_does_not_stop_what_runs(publisher: Publisher, device: Device) -> None:
    digest = publisher.release(1)
    publisher.signoff(digest, expires="2027-02-01T00:00:00Z")
    publisher.want(digest)
    assert device.refusal() is None
    device.clock.now = NOW + 25 * DAY
    assert device.refusal() is None


class TestGoingBack:
    """The service is a shell script that looks at the current slot."""

    @pytest.fixture
    def answering(self, tmp_path: Path) -> tuple[Publisher, Device, str]:
        """A service that answers where its model does not say `bad`; each restart leaves a line."""
        current = tmp_path / "device/state/current/bundle/model.onnx"
        return settled(
            tmp_path,
            restart=("/bin/sh", "-c", f"echo restart >> {tmp_path}/restarts"),
            probe=("/bin/sh", "-c", f"! grep -q bad {current} || {{ echo no answer; exit 7; }}"),
            probe_timeout_s=0.1,
        )

    def test_a_release_that_does_not_answer(self, tmp_path: Path, answering: tuple) -> None:
        publisher, device, first = answering
        publisher.want(publisher.release(6, bundle_files(note="bad")))
        status = device.poll()
        assert (status.state, status.release, status.slot) == ("rolled back", first, "a")
        assert status.error is not None
        assert status.error["kind"] == "Unhealthy"
        assert "ended with 7: no answer" in status.error["message"]
        assert device.current == first
        assert device.report()["state"] == "rolled back"
        assert (tmp_path / "restarts").read_text().count("restart") == 3, "first, second, and first again"

    def test_a_disk_that_is_full_after_going_back(self, tmp_path: Path, answering: tuple) -> None:
        """Only the note that it went back is missing: the service that listens is not restarted at every poll for that."""
        publisher, device, first = answering
        publisher.want(publisher.release(6, bundle_files(note="bad")))

        def full(step: str, path: Path) -> None:
            if step == "write" and (tmp_path / "restarts").read_text().count("restart") == 3:
                raise OSError(28, "No space left on device")

        device.disk.step = full
        assert [device.refusal() for _ in range(3)] == ["NoSpace"] * 3
        assert (tmp_path / "restarts").read_text().count("restart") == 3
        device.disk.step = lambda step, path: None
        assert device.poll().state == "rolled back"
        assert (tmp_path / "restarts").read_text().count("restart") == 3
        assert device.current == first

    def test_it_is_not_tried_again_until_something_else_was_asked_for(self, answering: tuple) -> None:
        publisher, device, first = answering
        bad = publisher.release(6, bundle_files(note="bad"))
        publisher.want(bad)
        device.poll()
        builds = device.backend.builds
        publisher.want(bad)
        device.start()
        status = device.poll()
        assert (status.state, status.release, device.backend.builds) == ("rolled back", first, builds)
        assert status.desired == 3, "a later desired state that asks for the same"
        publisher.want(first)
        assert device.poll().state == "running"
        publisher.want(bad)
        assert device.poll().state == "rolled back"
        assert device.backend.builds == builds + 1

    def test_the_next_release_goes_ahead(self, answering: tuple) -> None:
        publisher, device, _ = answering
        publisher.want(publisher.release(6, bundle_files(note="bad")))
        device.poll()
        good = publisher.release(7)
        publisher.want(good)
        assert device.poll().state == "running"
        assert device.current == good

    def test_the_first_release_has_nothing_to_go_back_to(self, tmp_path: Path, publisher: Publisher) -> None:
        device = Device(tmp_path / "device", publisher, probe=("false",), probe_timeout_s=0.05)
        publisher.want(publisher.release(1))
        status = device.poll()
        assert (status.state, status.release) == ("rolled back", None)
        assert device.current is None

    def test_a_restart_that_fails(self, tmp_path: Path, publisher: Publisher) -> None:
        device = Device(tmp_path / "device", publisher, restart=("/bin/sh", "-c", "echo no unit; exit 5"))
        publisher.want(publisher.release(1))
        status = device.poll()
        assert status.state == "rolled back"
        assert status.error is not None
        assert "no unit" in status.error["message"]


class TestHealth:
    @pytest.mark.parametrize(
        ("rule", "kind"),
        [
            ({"engine_drift": 0.02}, "Unhealthy"),
            ({"engine_drift": 0.009}, None),
            ({"unsupported": True}, "BuildFailed"),
        ],
        ids=["drifts", "within", "no build"],
    )
    def test_an_engine_is_held_against_the_reference(
        self, tmp_path: Path, rule: dict, kind: str | None
    ) -> None:
        publisher, device, _ = settled(tmp_path)
        device.backend = tensorrt(tmp_path)
        device.start()
        assert device.refusal() is None
        publisher.want(publisher.release(6, bundle_files(**rule)))
        if kind is None:
            assert device.refusal() is None
        else:
            refuses(device, kind)
            refuses(device, kind)

    def test_a_bundle_without_golden_clips(self, tmp_path: Path) -> None:
        publisher, device, _ = settled(tmp_path)
        publisher.want(publisher.release(6, {"model.onnx": b"{}"}))
        builds = device.backend.builds
        refuses(device, "Unhealthy", says="no golden clips")
        refuses(device, "Unhealthy", says="no golden clips")
        assert device.backend.builds == builds + 1, "what failed is not built again at every poll"


class TestDisk:
    def test_too_little_room_is_seen_before_the_download(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publisher, device, _ = settled(tmp_path)
        files = bundle_files(number=6, frames=5)
        need = sum(len(d) for d in files.values())
        publisher.want(publisher.release(6, files))
        shutil.rmtree(publisher.folder / "blobs")
        monkeypatch.setattr(Slots, "free", lambda self: need - 1)
        refuses(device, "NoSpace", says=f"{need} bytes are needed")

    def test_a_disk_that_fills_up_on_the_way(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        publisher, device, _ = settled(tmp_path)
        publisher.want(publisher.release(6))

        def full(step: str, path: Path) -> None:
            if path.name.endswith(".part") and step == "write":
                raise OSError(28, "No space left on device")

        device.disk.step = full
        refuses(device, "NoSpace", says="No space left")
        device.disk.step = lambda step, path: None
        assert device.refusal() is None

    def test_a_disk_without_a_free_byte_is_reported(self, tmp_path: Path) -> None:
        """Nothing can be written at all, not even the number of the report."""
        publisher, device, digest = settled(tmp_path)
        publisher.want(publisher.release(6))
        path = publisher.folder / "fleets/ward/reports/cot-7.json"
        path.unlink()

        def full(step: str, path: Path) -> None:
            if step == "write":
                raise OSError(28, "No space left on device")

        device.disk.step = full
        assert device.refusal() == "NoSpace"
        assert (device.report()["error"]["kind"], device.current) == ("NoSpace", digest)

    def test_a_disk_that_is_full_after_the_swap(self, tmp_path: Path) -> None:
        """The new release answers, and only the note of it is missing: it stays, and is not restarted at every poll."""
        restarts = tmp_path / "restarts"
        publisher, device, _ = settled(tmp_path, restart=("/bin/sh", "-c", f"echo x >> {restarts}"))
        new = publisher.release(6)
        publisher.want(new)

        def full(step: str, path: Path) -> None:
            if step == "write" and device.current == new:
                raise OSError(28, "No space left on device")

        device.disk.step = full
        before = restarts.read_text().count("x")
        assert [device.refusal() for _ in range(3)] == ["NoSpace"] * 3
        assert restarts.read_text().count("x") == before + 1
        device.disk.step = lambda step, path: None
        assert device.refusal() is None
        assert device.current == new
        assert restarts.read_text().count("x") == before + 1

    def test_a_full_disk_in_the_build_is_not_counted_against_the_release(self, tmp_path: Path) -> None:
        publisher, device, _ = settled(tmp_path, attempts=2)
        publisher.want(publisher.release(6))

        class Full(InProcess):
            def build(self, *given: object) -> None:  # type: ignore[override]
                raise OSError(28, "No space left on device")

        sound, device.backend = device.backend, Full()
        device.start()
        assert [device.refusal() for _ in range(4)] == ["NoSpace"] * 4
        device.backend = sound
        device.start()
        assert device.refusal() is None

    def test_many_releases_take_the_room_of_two(self, tmp_path: Path) -> None:
        publisher, device, _ = settled(tmp_path)
        sizes = []
        for number in range(6, 18):
            publisher.want(publisher.release(number, bundle_files(padding=50_000, number=number)))
            assert device.refusal() is None
            files = [p for p in device.config.folder.rglob("*") if p.is_file() and not p.is_symlink()]
            sizes.append(sum(p.stat().st_size for p in files))
        assert max(sizes[1:]) < min(sizes[1:]) * 1.001

    def test_a_damaged_running_release_is_installed_anew(self, tmp_path: Path) -> None:
        _, device, digest = settled(tmp_path)
        model = device.config.folder / "current/bundle/model.onnx"
        model.write_bytes(b"x" + model.read_bytes()[1:])
        device.start()
        status = device.poll()
        assert (status.error, status.release, status.slot) == (None, digest, "b")
        assert device.current == digest


def test_an_installation_that_never_ends_is_given_up(tmp_path: Path) -> None:
    """A build that takes the device down with it would else be begun for ever."""
    publisher, device, _ = settled(tmp_path, attempts=3)

    class Fatal(InProcess):
        def run(self, *given: object) -> None:  # type: ignore[override]
            raise KeyboardInterrupt

    device.backend = Fatal()
    publisher.want(publisher.release(6))
    for _ in range(3):
        device.start()
        with pytest.raises(KeyboardInterrupt):
            device.poll()
    device.start()
    refuses(device, "BuildFailed", says="begun 3 times")


def test_the_report_says_installing_meanwhile(publisher: Publisher, device: Device) -> None:
    seen = []

    class Watching(InProcess):
        def build(self, *given: object) -> None:  # type: ignore[override]
            seen.append(device.report()["state"])

    device.backend = Watching()
    device.start()
    publisher.want(publisher.release(1))
    device.poll()
    assert seen == ["installing"]
    assert device.report()["state"] == "running"


def test_the_loop_polls_less_often_after_refusals_and_outlives_bugs(tmp_path: Path) -> None:
    publisher, device, digest = settled(tmp_path)
    publisher.put(publisher.key("desired"), b"garbage")
    slept: list[float] = []

    class Enough(Exception):
        pass

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            publisher.want(digest)
            device.agent._store = None  # type: ignore[assignment]
        if len(slept) == 4:
            device.agent._store = device.store
        if len(slept) == 5:
            raise Enough

    with pytest.raises(Enough):
        device.agent.run(sleep)
    for seconds, nominal in zip(slept, [120, 240, 480, 900, 60], strict=True):
        assert 0.8 * nominal <= seconds <= 1.2 * nominal
    assert any("AttributeError" in line for line in device.log)
    assert opened((publisher.folder / "fleets/ward/reports/cot-7.json").read_bytes())["state"] == "running"
