"""A simulated fleet: every device runs the real agent, against a real S3 store, in threads of one process.

What is simulated is what a device has of its own: a disk without power loss (no fsync), the engine (it answers with the golden
outputs, or with wrong ones where the device's `Behaviour` says that this release fails there), and its speed. A sample of the
devices signs and verifies with the `openssl` program, as all real ones do, and may run the real engine.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from infra.digest import digest_bytes
from infra.edge.agent.agent import Agent
from infra.edge.agent.build import OnnxRuntime, Runtime
from infra.edge.agent.config import Config
from infra.edge.agent.disk import Disk
from infra.edge.agent.health import FRAME_BYTES, Measured
from infra.edge.agent.manifest import GOLDEN_INPUTS, GOLDEN_OUTPUTS, MODEL_NAME
from infra.edge.agent.openssl import OpenSSL
from infra.edge.agent.reporter import Identity
from infra.edge.agent.s3 import S3Store
from infra.edge.agent.service import Service
from infra.edge.agent.sigv4 import Credentials
from infra.edge.fleet_documents import FleetDocuments
from infra.edge.fleet_signing import (
    change_inventory,
    first_root,
    next_root,
    sign_off,
    sign_root,
    state_release,
)
from infra.edge.release import BundledFile, BundleManifest, DataProvenance
from infra.edge.trust.documents import (
    ROLES,
    Inventory,
    InventoryDevice,
    ReleaseDocument,
    Role,
    RootDocument,
)
from infra.edge.trust.envelope import Envelope
from infra.edge.trust.keys import PrivateKey, make_key, read_public
from infra.edge.trust.trusted import TrustedRoot
from infra.store import registry
from infra.store.client import ObjectStore
from infra.store.content import S3Content
from infra.store.embedded import EmbeddedServer
from infra.store.registry import Release

HARDWARE = "jetson-nano"


@dataclass(frozen=True)
class Behaviour:
    """What a device makes of a release."""

    healthy: bool = True
    slower: float = 1.0
    away: bool = False  # it is switched off as soon as the release is asked of it


Behave = Callable[[str, int], Behaviour]  # (device, release number)


def obedient(device: str, number: int) -> Behaviour:  # noqa: ARG001 - a `Behave`
    """Every release runs everywhere."""
    return Behaviour()


class Engine(Runtime):
    """Answers with the golden outputs, or with others."""

    name = "simulated"

    def __init__(self, device: str, behave: Behave) -> None:
        self._device, self._behave = device, behave
        self._own_ms = random.Random(device).uniform(8.0, 30.0)  # noqa: S311 - a simulation

    def build(self, bundle: Path, built: Path, disk: Disk) -> None:
        """Nothing is to be made."""

    def run(self, bundle: Path, built: Path) -> Measured:  # noqa: ARG002
        """See `Runtime`."""
        number = _number(bundle.parent / "release.json")
        found = json.loads((bundle / GOLDEN_OUTPUTS).read_bytes())
        now = self._behave(self._device, number)
        if not now.healthy:
            found["gate_probability"] = [1.0 - p for p in found["gate_probability"]]
        noise = random.Random(f"{self._device}/{number}")  # noqa: S311
        times = [self._own_ms * now.slower * noise.lognormvariate(0, 0.08) for _ in range(40)]
        return Measured(found, times, self.name)


@dataclass
class World:
    """A fleet, its publisher's keys, and its devices."""

    store: ObjectStore
    server: EmbeddedServer
    folder: Path
    fleet: str
    size: int
    behave: Behave = obedient
    openssl_every: int = 100  # each so many-th device uses the openssl program
    real_engines: bool = False  # those run the golden clips through ONNX Runtime, too
    keys: dict[Role, list[PrivateKey]] = field(default_factory=dict)
    devices: dict[str, SimulatedDevice] = field(default_factory=dict)
    root: bytes = b""

    def __post_init__(self) -> None:
        self.documents = FleetDocuments(self.store, self.fleet)
        self.keys = {role: [make_key(f"{role}-{n}") for n in (1, 2)] for role in ROLES}
        holders = {role: [k.public for k in keys] for role, keys in self.keys.items()}
        thresholds: dict[Role, int] = {"root": 2, "release": 1, "clinical": 1, "fleet": 1}
        draft = first_root(self.fleet, holders, thresholds, now=now())
        envelope = sign_root(draft, self.keys["root"])
        self.documents.create_root(envelope, before=None, now=now())
        self.root = envelope.to_bytes()
        for i in range(self.size):
            name = f"{self.fleet}-{i:04d}"
            self.devices[name] = SimulatedDevice(self, name, openssl=i % self.openssl_every == 0)
        listed = {
            name: InventoryDevice(hardware=HARDWARE, key=device.key.public.pem)
            for name, device in self.devices.items()
        }
        change_inventory(
            self.documents,
            self.trust(),
            self.keys["fleet"],
            lambda there: Inventory(fleet=there.fleet, version=there.version, devices=listed),
        )

    @property
    def signing(self) -> Mapping[str, PrivateKey]:
        """Every private key of the publisher, by id."""
        return {key.keyid: key for keys in self.keys.values() for key in keys}

    def trust(self, at: datetime | None = None) -> TrustedRoot:
        """The newest root."""
        return self.documents.trust(self.root, now=at or now())

    def publish(self, number: int, *, signed_off: bool = True) -> ReleaseDocument:
        """A release of one frame: registered, stated, and signed off unless told otherwise."""
        content = S3Content(self.store, self.folder / "cache")
        release = registry.publish(content, _manifest(content, self.folder, number), "infant-cry")
        assert release.version == number
        return self.state(release, signed_off=signed_off)

    def state(self, release: Release, *, signed_off: bool = True) -> ReleaseDocument:
        """Say of a registered release that it is the fleet's, and sign it off."""
        trust, keys = self.trust(), self.signing.values()
        stated = state_release(self.documents, trust, release, self._of(keys, "release"), now=now())
        if signed_off:
            sign_off(
                self.documents,
                trust,
                release.manifest_digest,
                self._of(keys, "clinical"),
                by="Dr Example",
                statement="may be used on this ward",
                now=now(),
            )
        return stated

    def state_again(self, release: ReleaseDocument) -> ReleaseDocument:
        """State and sign off a release anew, with the keys of the newest root."""
        return self.state(Release(release.name, release.number, release.release))

    def rotate(self, role: Role, *, publish: bool = True) -> list[PrivateKey]:
        """Give a role other keys in a new root; the old ones are returned."""
        trust, old = self.trust(), self.keys[role]
        fresh = [make_key(f"{role}-{trust.root.version + 1}-{n}") for n in (1, 2)]
        draft: RootDocument = next_root(
            trust.root, role, retire=[k.keyid for k in old], add=[k.public for k in fresh], now=now()
        )
        signers = [*self.keys["root"], *(fresh if role == "root" else ())]
        self.keys[role] = fresh
        if publish:
            self.documents.create_root(sign_root(draft, signers), before=trust, now=now())
        return old

    def poll(self, devices: Iterable[str] | None = None, *, threads: int = 8) -> None:
        """Every device (or these) polls once."""
        asked = [self.devices[d] for d in (self.devices if devices is None else devices)]
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(SimulatedDevice.poll, asked))

    def running(self, digest: str | None) -> int:
        """How many devices run a release: their own slot, not their report."""
        return sum(d.running == digest for d in self.devices.values())

    @staticmethod
    def _of(keys: Iterable[PrivateKey], role: Role) -> list[PrivateKey]:
        return [k for k in keys if k.name.startswith(role)]


class SimulatedDevice:
    """One device's folder and the real agent in it."""

    def __init__(self, world: World, name: str, *, openssl: bool) -> None:
        self.world, self.name, self.openssl = world, name, openssl
        self.key = make_key(name)
        self.off = False
        self.refusals: list[str] = []
        self._agent: Agent | None = None

    @property
    def running(self) -> str | None:
        """Digest of the release in the current slot."""
        running = None if self._agent is None else self._agent.running
        return None if running is None else running.release

    @property
    def root_version(self) -> int:
        """Version of the newest root that it has accepted."""
        return 0 if self._agent is None else self._agent._trusted.next_root - 1

    def poll(self) -> None:
        """One cycle of the agent, unless the device is switched off."""
        if self.off:
            return
        if self._agent is None:
            self._agent = self._start()
        status = self._agent.cycle()
        if status.error is not None:
            self.refusals.append(str(status.error["kind"]))

    def restart(self) -> None:
        """The power goes; the agent begins anew from its folder at the next poll."""
        self._agent = None

    def _start(self) -> Agent:
        world, folder = self.world, self.world.folder / self.name
        folder.mkdir(parents=True, exist_ok=True)
        config = Config(
            fleet=world.fleet,
            device=self.name,
            hardware=HARDWARE,
            root=folder / "root.json",
            key=folder / "device.pem",
            folder=folder / "state",
            store_url=f"http://{world.server.endpoint}/{world.store.bucket}",
            credentials=Credentials(world.server.access_key, world.server.secret_key),
            keep_free=0,
        )
        config.folder.mkdir(exist_ok=True)
        verify, sign = _verify, self.key.sign
        if self.openssl:
            # of the agent's own: the simulation has the key in memory alone
            pem = self.key._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            config.key.write_bytes(pem)
            config.key.chmod(0o600)
            program = OpenSSL(config.folder)
            verify = program.verify
            sign = lambda message: program.sign(config.key, message)  # noqa: E731
        store = S3Store(config.store_url or "", config.credentials, config.lowest_rate, config.patience_s)
        return Agent(
            config,
            world.root,
            store,
            verify,
            Identity(self.key.keyid, sign),
            OnnxRuntime() if self.openssl and world.real_engines else Engine(self.name, world.behave),
            Service((), (), 1.0, folder),
            Disk(sync=False),
            log=lambda text: None,  # noqa: ARG005
        )


def _number(release: Path) -> int:
    """The number of the release whose signed statement lies beside its bundle."""
    document = json.loads(Envelope.parse(release.read_bytes()).payload)
    return int(document["number"])


def now() -> datetime:
    """The time, as documents have it."""
    return datetime.now(UTC)


def _manifest(content: S3Content, folder: Path, number: int) -> dict[str, Any]:
    """A bundle whose model is a number: what an engine of the simulation needs to know of it."""
    outputs = {
        "gate_probability": [0.83],
        "reason_probabilities": [[0.6, 0.3, 0.1]],
        "energy": [-3.1],
    }
    files = {
        MODEL_NAME: json.dumps({"number": number}).encode(),
        GOLDEN_INPUTS: bytes(FRAME_BYTES),
        GOLDEN_OUTPUTS: json.dumps(outputs).encode(),
    }
    listed = {}
    for name, data in files.items():
        path = folder / f"{number}-{Path(name).name}"
        path.write_bytes(data)
        content.put_file(path)
        listed[name] = BundledFile(sha256=digest_bytes(data), size=len(data))
    manifest = BundleManifest(
        heads=("gate", "reason"),
        reasons=("hungry", "tired", "burping"),
        model={},
        vad={},
        data=DataProvenance(manifest_digest="a" * 64, synthetic=True),
        files=listed,
    )
    return manifest.model_dump(mode="json")


def _verify(pem: str, message: bytes, signature: bytes) -> bool:
    return _public(pem).verifies(signature, message)


@lru_cache(maxsize=256)
def _public(pem: str) -> Any:
    return read_public(pem)
