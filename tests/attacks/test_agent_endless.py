"""Endless data, slow retrieval, a store that breaks off or is not there: over real sockets."""

from __future__ import annotations

import itertools
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.edge.agent.s3 import S3Store
from infra.edge.agent.store import DirectoryStore
from tests.infra.edge.agent.hostile import (
    Request,
    Server,
    cut,
    dripping,
    endless,
    head,
    honest,
    saying,
    serving,
)
from tests.infra.edge.agent.signing import seal
from tests.infra.edge.agent.world import Device, Publisher, bundle_files, refuses, settled

# for those tests that wait for it to end; the others must pass on a busy machine
PATIENCE = 0.4
RATE = 50_000


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[tuple[Publisher, Device, Server]]:
    """A device that runs a release, then meets its store over HTTP; a larger one is on offer."""
    publisher, device, _ = settled(tmp_path)
    publisher.want(publisher.release(6, bundle_files(padding=300_000, number=6)))
    with serving(publisher.folder) as server:
        device.store = S3Store(server.url)
        device.start()
        yield publisher, device, server


@pytest.fixture
def impatient(fleet: tuple[Publisher, Device, Server]) -> tuple[Publisher, Device, Server]:
    """The same, with little patience."""
    _, device, server = fleet
    device.store = S3Store(server.url, rate=RATE, patience=PATIENCE)
    device.start()
    return fleet


def _downloads(device: Device) -> int:
    return sum(p.stat().st_size for p in (device.config.folder / "downloads").iterdir())


def test_an_honest_store(fleet: tuple[Publisher, Device, Server]) -> None:
    _, device, server = fleet
    assert device.refusal() is None
    assert device.report()["state"] == "running"
    assert {r.method for r in server.requests} == {"GET", "PUT"}


class TestEndless:
    @pytest.mark.parametrize("key", ["desired.json", "root/2.json", "releases/", "signoffs/", "manifests/"])
    @pytest.mark.parametrize("length", [b"99999999999", None])
    def test_a_document_that_does_not_end(
        self, fleet: tuple[Publisher, Device, Server], key: str, length: bytes | None
    ) -> None:
        _, device, server = fleet
        server.answers[key] = endless(length, start=b'{"payload":"')
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        refuses(device, "TooLarge")
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024, "KiB"

    @pytest.mark.parametrize("length", [b"99999999999", None])
    def test_a_file_that_does_not_end(
        self, fleet: tuple[Publisher, Device, Server], length: bytes | None
    ) -> None:
        _, device, server = fleet
        server.answers["blobs/"] = endless(length)
        refuses(device, "TooLarge", says="announced")
        assert _downloads(device) == 0, "what came is removed"

    def test_a_file_of_one_byte_more(self, fleet: tuple[Publisher, Device, Server]) -> None:
        publisher, device, _ = fleet
        for path in (publisher.folder / "blobs/sha256").iterdir():
            path.write_bytes(path.read_bytes() + b"\0")
        refuses(device, "TooLarge")

    @pytest.mark.parametrize("kind", ["files", "bytes", "manifest", "signatures"])
    def test_more_than_any_bundle_may_have(self, fleet: tuple[Publisher, Device, Server], kind: str) -> None:
        publisher, device, _ = fleet
        entry = {"sha256": "a" * 64, "size": 1}
        if kind == "files":
            many = {f"f{i}": entry for i in range(64)}
            publisher.want(publisher.release(7, manifest=lambda m: m["files"].update(many)))
        elif kind == "bytes":
            large = {"size": 512 * 2**20 + 1}
            publisher.want(publisher.release(7, manifest=lambda m: m["files"]["model.onnx"].update(large)))
        elif kind == "manifest":
            stated = {"sha256": "a" * 64, "size": 9 * 2**20}
            publisher.want(_announcing(publisher, stated))
        else:
            publisher.keys["fleet"] *= 40
            publisher.want(publisher.release(7))
        refuses(device, "TooLarge")


def _announcing(publisher: Publisher, stated: dict[str, object]) -> str:
    digest, raw = publisher.publish_bundle(bundle_files(number=7))
    document = {**publisher.release_document(digest, raw, 7), "manifest": stated}
    publisher.put(publisher.key(f"releases/{digest}"), seal("release", document, publisher.keys["release"]))
    publisher.signoff(digest)
    return digest


class TestSlow:
    @pytest.mark.parametrize("key", ["desired.json", "manifests/", "blobs/"])
    def test_a_body_in_drips(self, impatient: tuple[Publisher, Device, Server], key: str) -> None:
        _, device, server = impatient
        server.answers[key] = dripping(5, 0.02)
        begun = time.monotonic()
        refuses(device, "TooSlow")
        assert time.monotonic() - begun < 5 * PATIENCE + 20

    def test_headers_in_drips(self, impatient: tuple[Publisher, Device, Server]) -> None:
        """Each drip comes well within the patience: only a limit on all of them together ends it."""
        _, device, server = impatient
        server.answers["desired.json"] = dripping(1, 0.01, what="head")
        begun = time.monotonic()
        refuses(device, "TooSlow")
        assert time.monotonic() - begun < 5 * PATIENCE + 20

    @pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123"])
    def test_silence(self, impatient: tuple[Publisher, Device, Server], said: bytes) -> None:
        _, device, server = impatient

        def silent(request: Request, sock: socket.socket) -> None:
            sock.sendall(said)
            time.sleep(10 * PATIENCE)

        server.answers["desired.json"] = silent
        refuses(device, "TooSlow")

    def test_a_connection_for_every_few_bytes(self, impatient: tuple[Publisher, Device, Server]) -> None:
        """A store that breaks off after each drip makes progress each time: the rate counts across connections."""
        _, device, server = impatient

        def few(request: Request, sock: socket.socket) -> None:
            time.sleep(0.05)
            cut(lambda asked: 100)(request, sock)

        server.answers["blobs/"] = few
        refuses(device, "TooSlow")

    def test_what_came_in_time_is_kept(self, impatient: tuple[Publisher, Device, Server]) -> None:
        _, device, server = impatient
        server.answers["blobs/"] = dripping(50, 0.02)
        refuses(device, "TooSlow")
        had = _downloads(device)
        assert had > 0
        del server.answers["blobs/"]
        device.store = S3Store(server.url)
        device.start()
        assert device.refusal() is None
        ranges = [r.start for r in server.requests if "blobs/" in r.key and "range" in r.headers]
        assert ranges == [had]


class TestBroken:
    def test_downloads_go_on_where_they_broke_off(self, fleet: tuple[Publisher, Device, Server]) -> None:
        _, device, server = fleet
        server.answers["blobs/"] = cut(lambda asked: (asked + 1) // 2)
        assert device.refusal() is None
        starts = [r.start for r in server.requests if "blobs/" in r.key]
        assert len(starts) > 10
        sent = sum(b - a for a, b in itertools.pairwise(starts) if b > a)
        assert sent < 310_000, "no byte twice"

    def test_a_line_that_gives_nothing_more_is_left_to_the_next_poll(
        self, fleet: tuple[Publisher, Device, Server]
    ) -> None:
        _, device, server = fleet
        server.answers["blobs/"] = cut(lambda asked: 0)
        refuses(device, "StoreUnreachable", says="without a new byte")
        assert len([r for r in server.requests if "blobs/" in r.key]) == 5

    def test_a_store_that_knows_no_ranges(self, fleet: tuple[Publisher, Device, Server]) -> None:
        _, device, server = fleet
        calls = []

        def whole(request: Request, sock: socket.socket) -> None:
            calls.append(request.start)
            data = request.data or b""
            stop = 100_000 if len(calls) == 1 else len(data)
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data[:stop])

        server.answers["blobs/"] = whole
        assert device.refusal() is None
        assert calls[:2] == [0, 100_000]

    def test_another_range_than_asked_for(self, fleet: tuple[Publisher, Device, Server]) -> None:
        _, device, server = fleet

        def shifted(request: Request, sock: socket.socket) -> None:
            if request.start == 0:
                cut(lambda asked: 1000)(request, sock)
                return
            request.headers["range"] = f"bytes={request.start - 7}-"
            honest(request, sock)

        server.answers["blobs/"] = shifted
        refuses(device, "MixAndMatch")

    def test_a_partial_download_that_was_damaged_is_fetched_anew(
        self, fleet: tuple[Publisher, Device, Server]
    ) -> None:
        _, device, server = fleet
        server.answers["blobs/"] = cut(lambda asked: min(asked, 1000) if len(server.requests) < 8 else 0)
        refuses(device, "StoreUnreachable")
        (part,) = (device.config.folder / "downloads").iterdir()
        assert part.stat().st_size > 0
        part.write_bytes(bytes(part.stat().st_size))
        del server.answers["blobs/"]
        assert device.refusal() is None

    @pytest.mark.parametrize(
        "answer",
        [
            saying("403 Forbidden", body=b"<Error><Code>AccessDenied</Code></Error>"),
            saying("500 Oops"),
            saying("302 Found", "Location: http://127.0.0.1:1/elsewhere\r\n"),
            saying("200 OK", "Transfer-Encoding: chunked\r\n", b"zz\r\n"),
            lambda request, sock: sock.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"),
            lambda request, sock: sock.sendall(head(request, 500) + b"{"),
        ],
        ids=["forbidden", "error", "redirect", "bad chunks", "not HTTP", "broken off"],
    )
    def test_answers_that_are_none(self, fleet: tuple[Publisher, Device, Server], answer: object) -> None:
        _, device, server = fleet
        server.answers["desired.json"] = answer  # type: ignore[assignment]
        refuses(device, "StoreUnreachable")

    def test_nobody_there(self, fleet: tuple[Publisher, Device, Server]) -> None:
        _, device, _ = fleet
        running = device.current
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        device.store = S3Store(f"http://127.0.0.1:{port}/bucket", patience=PATIENCE)
        device.start()
        assert device.refusal() == "StoreUnreachable"
        assert any(line.startswith("no report") for line in device.log)
        assert device.current == running

    @pytest.mark.parametrize(
        ("head", "kind"),
        [
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", "TooSlow"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n1;", "TooSlow"),
            (b"HTTP/1.1 500 Oops\r\nContent-Length: 100000\r\n\r\n<", "StoreUnreachable"),
        ],
        ids=["a chunk's head", "of a connection that is to close", "an error's text"],
    )
    def test_what_is_read_besides_the_object_cannot_be_dripped(
        self, impatient: tuple[Publisher, Device, Server], head: bytes, kind: str
    ) -> None:
        """Each byte comes within the patience, and there may be 64 KiB of them: days."""
        _, device, server = impatient

        def drip(request: Request, sock: socket.socket) -> None:
            sock.sendall(head)
            for _ in range(300):
                sock.sendall(b"x")
                time.sleep(PATIENCE / 4)

        server.answers["desired.json"] = drip
        begun = time.monotonic()
        refuses(device, kind)
        assert time.monotonic() - begun < 10 * PATIENCE

    @pytest.mark.parametrize("name", ["desired", "releases/{}", "manifests"])
    def test_an_object_that_is_withheld(self, fleet: tuple[Publisher, Device, Server], name: str) -> None:
        publisher, device, _ = fleet
        device.store = DirectoryStore(publisher.folder)
        device.start()
        digest = publisher.release(7)
        publisher.want(digest)
        key = f"manifests/{digest}.json" if name == "manifests" else publisher.key(name.format(digest))
        (publisher.folder / key).unlink()
        refuses(device, "StoreUnreachable")
