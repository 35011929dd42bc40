"""A device on the project's own embedded S3 server, with signed requests."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.edge.agent.errors import ConfigError, StoreUnreachable
from infra.edge.agent.s3 import S3Store
from infra.edge.agent.sigv4 import Credentials
from infra.store.client import ObjectStore
from infra.store.embedded import EmbeddedServer
from tests.infra.edge.agent.signing import opened
from tests.infra.edge.agent.world import Device, Publisher, bundle_files

pytestmark = pytest.mark.slow


def _store(server: EmbeddedServer, store: ObjectStore, secret: str | None = None) -> S3Store:
    credentials = Credentials(server.access_key, secret or server.secret_key)
    return S3Store(f"http://{server.endpoint}/{store.bucket}", credentials)


def _upload(publisher: Publisher, store: ObjectStore) -> None:
    for path in publisher.folder.rglob("*"):
        if path.is_file():
            store.put_file(path.relative_to(publisher.folder).as_posix(), path)


def test_a_release_comes_over_s3(tmp_path: Path, server: EmbeddedServer, store: ObjectStore) -> None:
    publisher = Publisher(tmp_path / "store")
    files = bundle_files(padding=300_000)
    digest = publisher.release(1, files)
    publisher.want(digest)
    _upload(publisher, store)
    device = Device(tmp_path / "device", publisher, store=_store(server, store))
    # half a download from before: the rest is asked for by range
    from infra.digest import digest_bytes

    model = files["model.onnx"]
    part = device.config.folder / "downloads" / f"{digest_bytes(model)}.part"
    part.write_bytes(model[:200_000])
    assert device.refusal() is None
    assert device.current == digest
    report = opened(store.get("fleets/ward/reports/cot-7.json"))
    assert (report["state"], report["release"]) == ("running", digest)


def test_a_range_of_an_object(server: EmbeddedServer, store: ObjectStore) -> None:
    store.put("blobs/sha256/x", b"0123456789")
    stream = _store(server, store).open("blobs/sha256/x", 7)
    assert stream is not None
    assert (stream.offset, stream.total, stream.read(10)) == (7, 10, b"789")
    stream.close()


def test_an_object_that_is_not_there(server: EmbeddedServer, store: ObjectStore) -> None:
    assert _store(server, store).get("fleets/ward/root/2.json", 100) is None


def test_put_and_get(server: EmbeddedServer, store: ObjectStore) -> None:
    device_side = _store(server, store)
    device_side.put("fleets/ward/reports/cot-7.json", b"{}")
    assert device_side.get("fleets/ward/reports/cot-7.json", 100) == b"{}"
    device_side.put("fleets/ward/reports/cot-7.json", b"[]")
    assert store.get("fleets/ward/reports/cot-7.json") == b"[]"


def test_the_wrong_secret(server: EmbeddedServer, store: ObjectStore) -> None:
    device_side = _store(server, store, secret="wrong")
    with pytest.raises(StoreUnreachable, match=r"403 SignatureDoesNotMatch; check the keys"):
        device_side.get("anything", 100)
    with pytest.raises(StoreUnreachable, match="403"):
        device_side.put("anything", b"")


@pytest.mark.parametrize("url", ["host/bucket", "ftp://host/bucket", "https://host", "https:///bucket"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError, match=r"https://host\[:port\]/bucket"):
        S3Store(url)
