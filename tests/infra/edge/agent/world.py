"""A fleet in a folder: a publisher with all keys in hand, and devices that run the real agent on it.

The publisher signs with `cryptography` and writes documents by hand, so that tests can write wrong ones too.
"""

from __future__ import annotations

import json
import math
import shlex
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization

from infra.digest import canonical_json, digest_bytes
from infra.edge.agent.agent import Agent
from infra.edge.agent.build import Backend, Runtime
from infra.edge.agent.config import Config
from infra.edge.agent.disk import Disk
from infra.edge.agent.documents import time_text
from infra.edge.agent.engine import Board, TensorRT
from infra.edge.agent.health import Measured
from infra.edge.agent.openssl import OpenSSL
from infra.edge.agent.report import Status
from infra.edge.agent.reporter import Identity
from infra.edge.agent.service import Service
from infra.edge.agent.store import DirectoryStore, Store
from infra.edge.bundle import Bundle
from infra.edge.release import BundledFile, BundleManifest, DataProvenance
from infra.edge.tensorrt.plan import COMPONENTS, BuildPlan
from tests.infra.edge.agent import trtexec
from tests.infra.edge.agent.signing import Key, id_of, new_key, opened, pem_of, seal, verify

FLEET, DEVICE, HARDWARE = "ward", "cot-7", "jetson-nano"
NOW = 1_800_000_000.0
DAY = 86_400.0
FRAMES = 4
ROLES = ("root", "release", "clinical", "fleet")
BOARD = Board("nvidia,tegra210", "R32.6.1")
PLAN = BuildPlan(
    "waveform",
    16_000,
    True,
    ("gate_probability", "energy", "reason_probabilities"),
    ("/net/norm/Sqrt",),
    {**dict.fromkeys(COMPONENTS, ()), "heads": ("/net/norm/Sqrt", "/net/gate/Gemm")},
)


def golden_inputs(frames: int = FRAMES, *, size: int = 1) -> bytes:
    """Frames whose first samples differ; `size` repeats them."""
    rows = []
    for i in range(frames * size):
        head = [math.sin(1.0 + i), math.cos(2.0 + i), math.sin(3.0 * i), math.cos(5.0 * i)]
        rows.append(struct.pack("<4f", *head) + bytes(4 * 16000 - 16))
    return b"".join(rows)


def bundle_files(*, frames: int = FRAMES, padding: int = 0, **rule: Any) -> dict[str, bytes]:
    """A release's files; `rule` goes into its pretended model."""
    model = json.dumps({"gain": 2.0, **rule, "padding": "x" * padding}).encode()
    inputs = golden_inputs(frames)
    return {
        "model.onnx": model,
        "golden/inputs.f32": inputs,
        "golden/outputs.json": json.dumps(trtexec.outputs(model, inputs)).encode(),
        "tensorrt.json": PLAN.to_json(),
    }


class Publisher:
    """Writes into a store's folder; every document can be bent by keyword."""

    def __init__(self, folder: Path, *, fleet: str = FLEET, root: bool = True) -> None:
        self.folder, self.fleet = folder, fleet
        folder.mkdir(parents=True, exist_ok=True)
        self.keys: dict[str, list[Key]] = {role: [new_key() for _ in range(2)] for role in ROLES}
        self.thresholds = {"root": 2, "release": 1, "clinical": 1, "fleet": 1}
        self.root_version = 0
        self.desired_version = 0
        self.root = self.publish_root() if root else b""

    def put(self, key: str, data: bytes) -> None:
        """Write an object."""
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def key(self, name: str) -> str:
        """An object's key in this fleet."""
        return f"fleets/{self.fleet}/{name}.json"

    def common(self, kind: str, version: int, **changes: Any) -> dict[str, Any]:
        """What every document has."""
        made = {
            "type": kind,
            "fleet": self.fleet,
            "version": version,
            "issued": time_text(NOW - DAY),
            "expires": time_text(NOW + 30 * DAY),
        }
        return {**made, **changes}

    def root_document(self, version: int, **changes: Any) -> dict[str, Any]:
        """A root of the keys in hand."""
        keys = {id_of(k): pem_of(k) for listed in self.keys.values() for k in listed}
        roles = {
            role: {"keys": [id_of(k) for k in listed], "threshold": self.thresholds[role]}
            for role, listed in self.keys.items()
        }
        return self.common("root", version, keys=keys, roles=roles, **changes)

    def publish_root(self, *, also: Sequence[Key] = (), **changes: Any) -> bytes:
        """The next root, signed by its own keys and by `also`."""
        self.root_version += 1
        data = seal("root", self.root_document(self.root_version, **changes), [*self.keys["root"], *also])
        self.put(self.key(f"root/{self.root_version}"), data)
        return data

    def rotate(self, role: str) -> list[Key]:
        """A new root in which a role has other keys; the old ones."""
        old, self.keys[role] = self.keys[role], [new_key() for _ in range(2)]
        self.publish_root(also=old if role == "root" else ())
        return old

    def publish_bundle(
        self, files: Mapping[str, bytes], *, manifest: Callable[[dict[str, Any]], Any] | None = None
    ) -> tuple[str, bytes]:
        """Manifest and blobs; the release's digest and the manifest's bytes. `manifest` may change it before it is digested."""
        made = BundleManifest(
            heads=("gate", "reason"),
            reasons=("hungry", "tired", "burping"),
            model={},
            vad={},
            data=DataProvenance(manifest_digest="a" * 64, synthetic=True),
            files={n: BundledFile(sha256=digest_bytes(d), size=len(d)) for n, d in files.items()},
        ).model_dump(mode="json", exclude={"info"})
        if manifest is not None:
            manifest(made)
        raw = canonical_json(made)
        digest = digest_bytes(raw)
        self.put(f"manifests/{digest}.json", raw)
        for data in files.values():
            self.put(f"blobs/sha256/{digest_bytes(data)}", data)
        return digest, raw

    def release_document(self, digest: str, raw: bytes, number: int, **changes: Any) -> dict[str, Any]:
        """The document of a release."""
        made = {
            "release": digest,
            "manifest": {"sha256": digest_bytes(raw), "size": len(raw)},
            "name": "infant-cry",
            "number": number,
            "hardware": ["any"],
            **changes,
        }
        return self.common("release", 1, **made)

    def signoff_document(self, digest: str, **changes: Any) -> dict[str, Any]:
        """The document of a sign-off."""
        made = {"release": digest, "by": "Dr Example", "statement": "may be used on this ward", **changes}
        return self.common("signoff", 1, **made)

    def release(
        self,
        number: int,
        files: Mapping[str, bytes] | None = None,
        *,
        manifest: Callable[[dict[str, Any]], Any] | None = None,
        **changes: Any,
    ) -> str:
        """Publish and sign off a release; its digest."""
        digest, raw = self.publish_bundle(files or bundle_files(number=number), manifest=manifest)
        document = self.release_document(digest, raw, number, **changes)
        self.put(self.key(f"releases/{digest}"), seal("release", document, self.keys["release"]))
        self.signoff(digest)
        return digest

    def release_bundle(self, number: int, bundle: Bundle) -> str:
        """Publish and sign off a real bundle under its own manifest; its digest."""
        own = bundle.manifest.model_dump(mode="json", exclude={"info"})
        files = {name: bundle.read(name) for name in bundle.manifest.files}
        return self.release(number, files, manifest=lambda made: made.update(own))

    def signoff(self, digest: str, *, keys: Sequence[Key] | None = None, **changes: Any) -> None:
        """Sign a release off."""
        document = self.signoff_document(digest, **changes)
        self.put(self.key(f"signoffs/{digest}"), seal("signoff", document, keys or self.keys["clinical"]))

    def desired_document(self, *rings: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
        """The next desired state."""
        version = changes.pop("version", self.desired_version + 1)
        self.desired_version = version
        return self.common(
            "desired", version, **{"root": self.root_version, "rings": [dict(r) for r in rings], **changes}
        )

    def want(
        self, digest: str, *, devices: Sequence[str] = (DEVICE,), rollback: bool = False, **changes: Any
    ) -> bytes:
        """Ask for a release."""
        ring = {"release": digest, "devices": list(devices), **({"rollback": True} if rollback else {})}
        data = seal("desired", self.desired_document(ring, **changes), self.keys["fleet"])
        self.put(self.key("desired"), data)
        return data


class InProcess(Runtime):
    """The look-alike's rule without its process."""

    name = "in process"

    def __init__(self) -> None:
        self.builds = 0

    def build(self, bundle: Path, built: Path, disk: Disk) -> None:
        """Counted."""
        self.builds += 1

    def run(self, bundle: Path, built: Path) -> Measured:
        """See `Runtime`."""
        model, inputs = (bundle / n for n in ("model.onnx", "golden/inputs.f32"))
        found = trtexec.outputs(model.read_bytes(), inputs.read_bytes())
        return Measured(found, [8.0, 9.0, 10.0], self.name)


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class Device:
    """One device's folder, and the real agent in it."""

    def __init__(
        self,
        folder: Path,
        publisher: Publisher,
        *,
        store: Store | None = None,
        backend: Backend | None = None,
        device: str = DEVICE,
        hardware: str = HARDWARE,
        **changes: Any,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.publisher, self.root = folder, publisher, publisher.root
        self.store = store or DirectoryStore(publisher.folder)
        self.backend = backend or InProcess()
        self.clock, self.log = Clock(), []  # type: ignore[var-annotated]
        self.private = new_key()
        self.key = folder / "device.key"
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL
        self.key.write_bytes(self.private.private_bytes(encoding, form, serialization.NoEncryption()))
        self.key.chmod(0o600)
        (folder / "root.json").write_bytes(self.root)
        self.config = Config(
            fleet=publisher.fleet,
            device=device,
            hardware=hardware,
            root=folder / "root.json",
            key=self.key,
            folder=folder / "state",
            store_directory=publisher.folder,
            **{"keep_free": 0, **changes},
        )
        self.disk = Disk(sync=False)
        self.agent = self.start()

    def start(self) -> Agent:
        """The agent, as after a restart of the device."""
        self.config.folder.mkdir(exist_ok=True)
        openssl = OpenSSL(self.config.folder)
        self.agent = Agent(
            self.config,
            self.root,
            self.store,
            verify,
            Identity(id_of(self.private), lambda message: openssl.sign(self.key, message)),
            self.backend,
            Service(
                self.config.restart, self.config.probe, self.config.probe_timeout_s, self.folder, pause=0.02
            ),
            self.disk,
            self.clock,
            self.log.append,
        )
        return self.agent

    def poll(self) -> Status:
        """One cycle."""
        return self.agent.cycle()

    def refusal(self) -> str | None:
        """One cycle; the kind of its refusal."""
        error = self.poll().error
        return None if error is None else error["kind"]

    def report(self) -> dict[str, Any]:
        """What lies in the store."""
        path = self.publisher.folder / f"fleets/{self.config.fleet}/reports/{self.config.device}.json"
        return opened(path.read_bytes())

    @property
    def current(self) -> str | None:
        """The release of the current slot, as a service sees it: through the link, every byte compared."""
        link = self.config.folder / "current"
        if not link.exists():
            return None
        manifest = json.loads((link / "bundle" / "manifest.json").read_bytes())
        for name, entry in manifest["files"].items():
            data = (link / "bundle" / name).read_bytes()
            assert (digest_bytes(data), len(data)) == (entry["sha256"], entry["size"]), f"{name} is half"
        installed = json.loads((link / "slot.json").read_bytes())
        assert digest_bytes(canonical_json(manifest)) == installed["release"]
        return str(installed["release"])

    def write_config(self, **changes: Any) -> Path:
        """A configuration file for the command line, with the look-alike as `trtexec`."""
        raw = {
            "fleet": self.config.fleet,
            "device": self.config.device,
            "hardware": self.config.hardware,
            "root": "root.json",
            "key": "device.key",
            "folder": "state",
            "store": {"directory": str(self.publisher.folder)},
            "backend": {"trtexec": str(lookalike(self.folder))},
            "keep_free": 0,
            **changes,
        }
        path = self.folder / "agent.json"
        path.write_text(json.dumps(raw))
        return path


def lookalike(folder: Path, version: str = "8.2.1") -> Path:
    """A program that looks like `trtexec` of a version; made over it is another version's."""
    program = folder / "trtexec"
    line = [sys.executable, "-I", "-S", trtexec.__file__, version]
    program.write_text(f'#!/bin/sh\nexec {" ".join(map(shlex.quote, line))} "$@"\n')
    program.chmod(0o755)
    return program


def tensorrt(folder: Path, **changes: Any) -> TensorRT:
    """The real backend over the look-alike."""
    return TensorRT(str(lookalike(folder)), folder / "tensorrt", **{"board": lambda: BOARD, **changes})


def settled(folder: Path, **changes: Any) -> tuple[Publisher, Device, str]:
    """A fleet whose device runs release 5."""
    publisher = Publisher(folder / "store")
    device = Device(folder / "device", publisher, **changes)
    digest = publisher.release(5)
    publisher.want(digest)
    assert device.refusal() is None
    assert device.current == digest
    return publisher, device, digest


def refuses(device: Device, kind: str, *, says: str = "") -> None:
    """The next poll is refused with this kind; the running release stays, and the report says both."""
    before = device.current, (device.config.folder / "current").readlink()
    status = device.poll()
    assert status.error is not None, f"{kind} was accepted"
    assert status.error["kind"] == kind, status.error
    assert says in status.error["message"]
    assert (device.current, (device.config.folder / "current").readlink()) == before
    report = device.report()
    assert (report["state"], report["error"], report["release"]) == ("refused", status.error, before[0])
