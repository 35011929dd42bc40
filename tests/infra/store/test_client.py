"""The S3 client against a real server: conditional writes, bounds, and errors a person can act on."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import pytest
import urllib3
from pydantic import SecretStr

from infra.servers.process import free_ports
from infra.settings import StoreSettings
from infra.store.client import ObjectStore
from infra.store.embedded import EmbeddedServer, connect_store
from models.errors import ConfigError, ConflictError, StoreError


def race(count: int, act: Callable[[int], object]) -> list[object]:
    """Results (or exceptions) of `count` threads that start together."""
    barrier = threading.Barrier(count)
    results: list[object] = [None] * count

    def run(index: int) -> None:
        barrier.wait()
        try:
            results[index] = act(index)
        except Exception as err:
            results[index] = err

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_what_is_put_is_what_is_read_listed_and_described(store: ObjectStore, tmp_path: Path) -> None:
    store.put("a/one", b"1")
    (tmp_path / "big").write_bytes(bytes(range(256)) * 50_000)  # 12.8 MB: several parts
    store.put_file("a/big", tmp_path / "big")
    store.put("b/two", b"22")

    assert store.get("a/one") == b"1"
    store.download("a/big", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "big").read_bytes()
    assert sorted((i.key, i.size) for i in store.list("a/")) == [("a/big", 12_800_000), ("a/one", 1)]
    found = store.stat("b/two")
    assert found is not None
    assert found.size == 2
    assert store.stat("b/three") is None
    assert store.find("b/three") is None


def test_missing_object_is_named(store: ObjectStore) -> None:
    with pytest.raises(StoreError, match=r"no object a/b in bucket"):
        store.get("a/b")


def test_reads_are_bounded_and_leave_no_file(store: ObjectStore, tmp_path: Path) -> None:
    store.put("big", b"x" * 100_001)
    with pytest.raises(StoreError, match="larger than the 100000 bytes"):
        store.get("big", max_bytes=100_000)
    with pytest.raises(StoreError, match="larger than"):
        store.download("big", tmp_path / "file", max_bytes=10)
    assert list(tmp_path.iterdir()) == []
    assert len(store.get("big", max_bytes=100_001)) == 100_001


def test_of_twenty_creators_exactly_one_wins_and_its_bytes_stay(store: ObjectStore) -> None:
    """Without turns the server lets two win now and then, after seconds in which its lock lapses."""
    began = time.monotonic()
    for turn in range(10):
        results = race(20, lambda i, key=f"name/{turn}": store.put_if_absent(key, b"writer %d" % i))  # type: ignore[misc]
        assert sorted(map(str, results)) == ["False"] * 19 + ["True"]
        assert store.get(f"name/{turn}") == b"writer %d" % results.index(True)
    assert time.monotonic() - began < 30  # 2 s; over 100 s where writers contend for the server's own lock


def test_of_twenty_replacers_exactly_one_wins(store: ObjectStore) -> None:
    store.put("pointer", b"old")
    for turn in range(10):
        found = store.find("pointer")
        assert found is not None
        results = race(
            20,
            lambda i, etag=found.etag, turn=turn: store.replace_if_match(
                "pointer", b"%d.%d" % (turn, i), etag
            ),
        )  # type: ignore[misc]
        winners = [i for i, r in enumerate(results) if isinstance(r, str)]
        assert len(winners) == 1
        assert sum(isinstance(r, ConflictError) for r in results) == 19
        assert store.get("pointer") == b"%d.%d" % (turn, winners[0])
    assert store.replace_if_match("pointer", b"next", str(results[winners[0]]))


def test_writers_in_other_processes_wait_their_turn_and_a_dead_one_holds_nobody_up(
    server: EmbeddedServer, store: ObjectStore
) -> None:
    assert server.turns is not None
    hold = (
        "import fcntl, pathlib, sys, time\n"
        "files = [p.open('a') for p in (pathlib.Path(sys.argv[1]) / f'{n:02x}' for n in range(256))]\n"
        "[fcntl.flock(f, fcntl.LOCK_EX) for f in files]\n"
        "print('held', flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", hold, str(server.turns)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        won: list[bool] = []
        writer = threading.Thread(target=lambda: won.append(store.put_if_absent("waits", b"x")))
        writer.start()
        writer.join(0.5)
        waited = writer.is_alive()
        holder.kill()
        writer.join(20)
    assert waited
    assert won == [True]


def test_server_is_proven_to_honour_conditional_writes(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.require_conditional_writes()
    other = ObjectStore("127.0.0.1:1", "a", "b", bucket="b-cket", secure=False)
    monkeypatch.setattr(other, "put_if_absent", lambda key, data: True)  # a server that ignores the header
    with pytest.raises(StoreError, match="ignores conditional writes"):
        other.require_conditional_writes()


@pytest.mark.parametrize("access", ["the server's", "a stranger's"])
def test_wrong_key_is_refused_in_words(server: EmbeddedServer, access: str, tmp_path: Path) -> None:
    key = server.access_key if access == "the server's" else "STRANGER"
    settings = StoreSettings(
        endpoint=server.endpoint,
        access_key=SecretStr(key),
        secret_key=SecretStr("not it, surely"),
        secure=False,
    )
    with pytest.raises(StoreError, match=r"refused the key .*CRYFED_STORE__ACCESS_KEY") as caught:
        connect_store(settings, tmp_path)
    assert "not it" not in str(caught.value)
    client = ObjectStore(server.endpoint, key, "not it", bucket="cryfed", secure=False)
    for call in (
        lambda: client.get("x"),
        lambda: client.put("x", b""),
        lambda: client.put_if_absent("x", b""),
        lambda: client.replace_if_match("x", b"", "0"),
        lambda: list(client.list("")),
    ):
        with pytest.raises(StoreError, match="refused the key"):
            call()


def test_endpoint_out_of_reach_is_named(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    settings = StoreSettings(
        endpoint=f"127.0.0.1:{port}", access_key=SecretStr("k"), secret_key=SecretStr("s"), secure=False
    )
    with pytest.raises(StoreError, match=f"127.0.0.1:{port} is out of reach.*store.endpoint"):
        connect_store(settings, tmp_path)


def test_tls_against_a_plain_port_is_out_of_reach_too(server: EmbeddedServer, tmp_path: Path) -> None:
    settings = StoreSettings(
        endpoint=server.endpoint, access_key=SecretStr("k"), secret_key=SecretStr("s"), secure=True
    )
    with pytest.raises(StoreError, match=r"out of reach.*store\.secure"):
        connect_store(settings, tmp_path)


def test_endpoint_without_keys_and_malformed_endpoint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="CRYFED_STORE__SECRET_KEY"):
        connect_store(StoreSettings(endpoint="127.0.0.1:9"), tmp_path)
    with pytest.raises(ConfigError, match="host:port"):
        ObjectStore("http://example.org/path", "a", "b", bucket="bucket")


def test_a_writer_that_dies_half_way_leaves_nothing(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after the headers alone, of which an empty object could come that no one could ever replace."""
    asked: list[tuple[str, dict[str, str]]] = []

    def remember(_verb: str, url: str, *, headers: dict[str, str], **_more: object) -> NoReturn:
        asked.append((url, headers))
        raise urllib3.exceptions.ProtocolError("not sent")

    data = b"{}" * 500
    request = store._http.request
    monkeypatch.setattr(store._http, "request", remember)
    for key in ("none", "half", "whole"):
        with pytest.raises(StoreError):
            store.put_if_absent(key, data)
    monkeypatch.setattr(store._http, "request", request)
    for (url, headers), sent in zip(asked, (0, 500, 1000), strict=True):
        at = urlsplit(url)
        fields = {"Host": at.netloc, "Content-Length": "1000", **headers}
        head = f"PUT {at.path}?{at.query} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items())
        with socket.create_connection((str(at.hostname), int(at.port or 80))) as connection:
            connection.sendall(head.encode() + b"\r\n" + data[:sent])
            if sent == len(data):
                assert connection.recv(100).startswith(b"HTTP/1.1 200")
    time.sleep(0.3)  # what it makes of a closed connection, it makes at once
    assert [store.find(key) is not None for key in ("none", "half", "whole")] == [False, False, True]
    assert store.put_if_absent("none", data)
