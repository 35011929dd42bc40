"""SIGKILL while a fleet's documents are written: what lies in the store is the old or the new, and it can be done again.

The writer is a forked process that kills itself at one chosen moment: at its n-th write to a socket, before anything of it is
sent, after half of it, or after all of it and before the answer is read. So every moment at which the store could be left is met.
"""

from __future__ import annotations

import http.client
import os
import random
import signal
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from minio.error import S3Error

from infra.digest import digest_bytes
from infra.edge.bundle import Bundle
from infra.edge.fleet_documents import FleetDocuments
from infra.edge.fleet_signing import (
    change_inventory,
    next_root,
    set_desired,
    sign_off,
    sign_root,
    state_release,
)
from infra.edge.trust.documents import (
    ROLES,
    DesiredDocument,
    InventoryDevice,
    ReleaseDocument,
    Ring,
    SignoffDocument,
)
from infra.store import embedded, registry
from infra.store.client import ObjectStore
from infra.store.content import S3Content, blob_key
from infra.store.embedded import EmbeddedServer
from tests.fleets import FLEET, NOW, envelope, key, root, signed
from tests.releases import make_bundle, publish

KEYS = [key(f"{role}-1") for role in ROLES]
FIRST = signed(root(), "root-1")
DEVICE = InventoryDevice(hardware="any", key=key("device-1").public.pem)
SAMPLE, SOAK = 12, 600


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    work_dir = tmp_path_factory.mktemp("served")
    yield embedded.ensure_running(work_dir)
    embedded.stop_running(work_dir)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "graph").write_bytes(bytes(range(256)) * 40)  # nobody runs it here
    return make_bundle(folder / "release", folder / "graph")


def act(store: ObjectStore, cache: Path, bundle: Bundle) -> None:
    """Everything a publisher does, from a bundle to a desired state under a second root; asked again it goes on."""
    documents = FleetDocuments(store, FLEET)
    if documents.root(1) is None:
        documents.create_root(envelope(root(), "root-1"), before=None, now=NOW)
    trust = documents.trust(FIRST, now=NOW)
    release = publish(S3Content(store, cache), bundle)
    digest = release.manifest_digest
    inventory = documents.inventory(trust)
    if inventory is None or "device-1" not in inventory.devices:
        change_inventory(
            documents,
            trust,
            KEYS,
            lambda now: now.model_copy(update={"devices": {**now.devices, "device-1": DEVICE}}),
        )
    state_release(documents, trust, release, KEYS, now=NOW)
    sign_off(documents, trust, digest, KEYS, by="Dr A", statement="Read the report.", now=NOW)
    for devices in ((), ("device-1",)):
        if documents.desired_version(trust) < 1 + len(devices):
            set_desired(documents, trust, [Ring(release=digest, devices=devices)], KEYS, now=NOW)
    if trust.root.version == 1:
        new = next_root(trust.root, "fleet", add=[key("fleet-2").public], now=NOW)
        documents.create_root(sign_root(new, KEYS), before=trust, now=NOW)


def look(store: ObjectStore, bundle: Bundle) -> tuple[bool, ...]:
    """What there is; whatever there is has to be whole."""
    documents = FleetDocuments(store, FLEET)
    listed = list(
        store.list(f"fleets/{FLEET}/")
    )  # before the root: a dead writer's last request may land in between
    if documents.root(1) is None:
        assert not listed
        return (False,)
    trust = documents.trust(FIRST, now=NOW)
    for release in registry.releases(store):
        manifest = registry.get_manifest(store, release.manifest_digest)
        for entry in manifest["files"].values():
            assert digest_bytes(store.get(blob_key(entry["sha256"]))) == entry["sha256"]
    stated = documents.find_statement(trust, ReleaseDocument, bundle.digest)
    signed_off = documents.find_statement(trust, SignoffDocument, bundle.digest)
    wanted = documents.find_desired(trust)
    inventory = documents.inventory(trust)
    assert inventory is None or set(inventory.devices) == {"device-1"}
    there = (
        True, bool(registry.releases(store)), inventory is not None, stated is not None, signed_off is not None,
        wanted is not None, wanted is not None and wanted.document.version == 2, trust.root.version == 2,
    )  # fmt: skip
    # in the order of writing: nothing is there whose ground is not
    assert list(there) == sorted(there, reverse=True), there
    if wanted is not None:
        check_desired(wanted.document, bundle)
    return there


def check_desired(document: DesiredDocument, bundle: Bundle) -> None:
    (ring,) = document.rings
    assert (ring.release, ring.devices) == (bundle.digest, ((), ("device-1",))[document.version - 1])


def forked(work: Any, after_s: float | None = None) -> int:
    """Run in a process of its own; its wait status."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    if after_s is not None:
        time.sleep(after_s)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


class Killer:
    """Counts what is written to sockets; at the n-th write it sends a part and kills its own process."""

    def __init__(self, n: int | None = None, part: float = 0.0) -> None:
        self.count, self._n, self._part = 0, n, part
        self._send = http.client.HTTPConnection.send

    def install(self) -> None:
        def send(connection: http.client.HTTPConnection, data: Any) -> None:
            if not isinstance(data, bytes | bytearray | memoryview):
                data = data.read()
            self.count += 1
            if self.count == self._n:
                if self._part:
                    self._send(connection, bytes(data[: int(len(data) * self._part)]))
                os.kill(os.getpid(), signal.SIGKILL)
            self._send(connection, data)

        http.client.HTTPConnection.send = send  # type: ignore[method-assign]


def writes(server: EmbeddedServer, folder: Path, bundle: Bundle) -> int:
    """How many writes the whole takes."""
    told = folder / "count"

    def work() -> None:
        store = fresh(server, "count")
        killer = Killer()
        killer.install()
        act(store, folder / "cache-count", bundle)
        told.write_text(str(killer.count))

    assert os.waitstatus_to_exitcode(forked(work)) == 0
    return int(told.read_text())


def fresh(server: EmbeddedServer, name: str) -> ObjectStore:
    store = server.connect(bucket=f"kill-{name}")
    store.ensure_bucket()
    return store


def drop(store: ObjectStore) -> None:
    """The server gives every bucket volumes of its own, and runs out of them after some ninety."""
    for attempt in range(5):
        for found in store.list(""):
            store._minio.remove_object(store.bucket, found.key)
        try:
            store._minio.remove_bucket(store.bucket)
            return
        except S3Error:  # a dead writer's last request landed just now
            time.sleep(0.2 * (attempt + 1))
    raise AssertionError(f"{store.bucket} does not become empty")


def kill_at(server: EmbeddedServer, folder: Path, bundle: Bundle, points: list[tuple[int, float]]) -> None:
    met: set[tuple[bool, ...]] = set()
    for k, (n, part) in enumerate(points):
        name = f"{n}-{int(10 * part)}"
        store = fresh(server, name)

        def work(name: str = name, n: int = n, part: float = part) -> None:
            own = server.connect(bucket=f"kill-{name}")
            Killer(n, part).install()
            act(own, folder / f"cache-{name}", bundle)

        status = forked(work)
        assert os.WIFSIGNALED(status), (n, part, os.waitstatus_to_exitcode(status))
        met.add(look(store, bundle))
        if k % 6 == 0:  # and from there it goes on to the same end
            act(store, folder / f"cache-{name}", bundle)
            assert all(look(store, bundle)), (n, part)
        drop(store)
    assert len(met) >= 5, "kills at moments that do not differ show nothing"


def test_killed_at_any_write_it_leaves_the_old_or_the_new(
    server: EmbeddedServer, tmp_path: Path, bundle: Bundle
) -> None:
    total = writes(server, tmp_path, bundle)
    every = [(n, part) for n in range(1, total + 1) for part in (0.0, 0.5, 1.0)]
    points = [every[i * len(every) // SAMPLE] for i in range(SAMPLE)]
    kill_at(server, tmp_path, bundle, sorted(set(points)))


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_killed_at_every_write_and_at_random_times(
    server: EmbeddedServer, tmp_path: Path, bundle: Bundle
) -> None:
    total = writes(server, tmp_path, bundle)
    kill_at(
        server, tmp_path, bundle, [(n, p / 10) for n in range(1, total + 1) for p in (0, 1, 3, 5, 7, 9, 10)]
    )
    rng = random.Random(5)
    for k in range(SOAK):
        store = fresh(server, f"random-{k}")

        def work(k: int = k) -> None:
            act(server.connect(bucket=f"kill-random-{k}"), tmp_path / f"cache-r{k}", bundle)

        forked(work, after_s=rng.uniform(0.0, 0.4))
        look(store, bundle)
        act(store, tmp_path / f"cache-r{k}", bundle)
        assert all(look(store, bundle))
        drop(store)
