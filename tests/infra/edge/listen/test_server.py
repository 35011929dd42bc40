"""The local endpoint over real sockets."""

from __future__ import annotations

import io
import json
import socket
import time
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from infra.data.audio import read_audio
from infra.edge.listen import server as module
from infra.edge.listen.hub import MAX_SUBSCRIBERS
from infra.edge.listen.server import LocalServer, make_app, page
from infra.edge.scorer import decide
from infra.settings import LimitSettings
from models.errors import ServerError
from tests.infra.edge.listen.conftest import World
from tests.infra.edge.listen.sounds import detector, noise, tone


@pytest.fixture
def client(world: World):  # type: ignore[no-untyped-def]
    with httpx.Client(base_url=world.url, timeout=20, trust_env=False) as found:
        for _ in range(100):
            try:
                found.get("/health")
                break
            except httpx.ConnectError:
                time.sleep(0.02)
        yield found


def wav(wave: np.ndarray, rate: int = 16_000, **options: Any) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, wave, rate, format=options.pop("format", "WAV"), **options)
    return out.getvalue()


def events(world: World, **options: Any):  # type: ignore[no-untyped-def]
    return connect(f"ws://{world.host}/events", proxy=None, **options)


def until(socket, wanted: str, seconds: float = 5.0) -> dict[str, Any]:  # type: ignore[no-untyped-def]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        row = json.loads(socket.recv(timeout=seconds))
        if row["event"] == wanted:
            return row
    raise AssertionError(f"no {wanted} in {seconds} s")


# state and health


def test_health_is_whether_it_listens(world: World, client: httpx.Client) -> None:
    world.begin()
    listening = detector()
    world.hear(listening, tone(3))
    answer = client.get("/health")
    assert (answer.status_code, answer.json()["word"]) == (200, "cry")
    assert answer.json()["release"] == world.scorer.bundle.digest
    for event in listening.lost(5.0, "no samples arrive"):
        world.hub.publish(event.to_dict())
    answer = client.get("/health")
    assert (answer.status_code, answer.json()["word"]) == (503, "no signal")


def test_silence_of_the_listener_is_no_health(
    world: World, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.begin()
    assert client.get("/health").status_code == 200
    monkeypatch.setattr(module, "_LATE_SECONDS", 0.0)
    assert client.get("/health").status_code == 503


def test_a_stream_that_ended_well_is_well(world: World, client: httpx.Client) -> None:
    world.whole(world.block(tone(3)))
    assert client.get("/health").json()["word"] == "ended"
    assert client.get("/health").status_code == 200
    world.hub.publish({"event": "stream", "phase": "end", "error": "the cable fell out"})
    assert client.get("/health").status_code == 503


def test_state(world: World, client: httpx.Client) -> None:
    world.begin()
    world.hear(detector(), noise(2), tone(5))
    found = client.get("/state").json()
    assert found["word"] == "cry"
    assert found["open"]["bout"]["reason"] == "hungry"
    assert found["level"]["at"] == 7.0
    assert found["stream"]["source"] == "test"


# single clips


@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (44_100, 2), (8_000, 1)])
def test_a_clip_is_decided_as_the_command_would(
    world: World, client: httpx.Client, tmp_path, rate: int, channels: int
) -> None:  # type: ignore[no-untyped-def]
    data = wav(np.stack([noise(2.5, level=0.1, rate=rate)] * channels, 1), rate)
    (tmp_path / "a.wav").write_bytes(data)
    answer = client.post("/classify", content=data)
    assert answer.status_code == 200, answer.text
    limits = LimitSettings()
    wave = read_audio(
        tmp_path / "a.wav", max_seconds=limits.max_clip_seconds, max_bytes=limits.max_file_bytes
    )
    expected = decide(world.scorer.raw(wave), world.scorer.calibration, world.scorer.reasons).to_dict()
    found = answer.json()
    assert found["release"] == world.scorer.bundle.digest
    assert found["gate_probability"] == pytest.approx(expected["gate_probability"], abs=1e-3)
    assert (found["decision"], found["n_frames"]) == (expected["decision"], expected["n_frames"])
    assert found["reason_probabilities"].keys() == expected["reason_probabilities"].keys()


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        (b"", 422, "not readable"),
        (b"RIFF" + bytes(100), 422, "not readable"),
        (wav(noise(1), format="FLAC"), 422, "send a WAV"),
        (wav(np.zeros((0, 1))), 422, "0 s"),
        (wav(np.zeros((100, 5))), 422, "5 channels"),
        (wav(np.zeros(100), 200_000), 422, "16000 at best"),
        (wav(np.array([0.0, np.nan] * 8_000), subtype="FLOAT"), 422, "NaN"),
        (wav(np.zeros(8_000 * 700, np.int16), 8_000, subtype="PCM_U8"), 422, "longer than 600 s"),
    ],
)
def test_bodies_that_are_refused(client: httpx.Client, data: bytes, status: int, message: str) -> None:
    answer = client.post("/classify", content=data)
    assert answer.status_code == status
    assert message in answer.json()["error"]


def test_a_body_is_bounded_announced_or_not(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BODY", 100_000)
    assert client.post("/classify", content=bytes(100_001)).status_code == 413
    chunks = (bytes(10_000) for _ in range(11))
    assert client.post("/classify", content=chunks).status_code == 413
    assert client.post("/classify", content=wav(noise(2))).status_code == 200


def test_a_slow_body_is_given_up(world: World, client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BODY_SECONDS", 0.3)
    host, port = world.host.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as slow:
        slow.sendall(
            f"POST /classify HTTP/1.1\r\nHost: {world.host}\r\nContent-Length: 1000\r\n\r\nab".encode()
        )
        time.sleep(0.1)
        assert client.post("/classify", content=wav(noise(1))).status_code == 429
        assert b"408" in slow.recv(1000)
    assert client.post("/classify", content=wav(noise(1))).status_code == 200


# events


def test_events_begin_with_the_state(world: World, client: httpx.Client) -> None:
    world.begin()
    listening = detector()
    world.hear(listening, tone(3))
    with events(world) as socket:
        first = json.loads(socket.recv(timeout=5))
        assert (first["event"], first["word"]) == ("state", "cry")
        world.hear(listening, noise(5, level=1e-5))
        end = until(socket, "bout")
        assert (end["phase"], end["ended_by"]) == ("end", "pause")
        assert end["end"] == pytest.approx(3.0, abs=0.6)


def test_a_pulse_where_nothing_happens(world: World, client: httpx.Client) -> None:
    with events(world) as socket:
        assert until(socket, "pulse")["word"] == "starting"


def test_listeners_are_bounded(world: World, client: httpx.Client) -> None:
    several = [events(world) for _ in range(MAX_SUBSCRIBERS)]
    for one in several:
        one.recv(timeout=5)
    with pytest.raises(InvalidStatus):
        events(world)
    several.pop().close()
    for _ in range(50):  # its place is free once the server has seen it leave
        try:
            several.append(events(world))
            break
        except InvalidStatus:
            time.sleep(0.1)
    assert len(several) == MAX_SUBSCRIBERS
    for one in several:
        one.close()


@pytest.mark.parametrize("events", [200, 1_000])
def test_a_listener_that_does_not_read_is_cut_off(
    world: World, client: httpx.Client, monkeypatch: pytest.MonkeyPatch, events: int
) -> None:
    """The listening thread never waits for it, and the hub holds no more than a few hundred events.

    200 events of 50 kB are more than the sockets take and fewer than the hub holds: sending waits. 1,000 are more than either.
    """
    monkeypatch.setattr(module, "_SEND_SECONDS", 0.3)
    world.begin()
    key = "dGhlIHNhbXBsZSBub25jZQ=="
    with socket.create_connection(("127.0.0.1", world.server.port), timeout=10) as idle:
        idle.sendall(
            f"GET /events HTTP/1.1\r\nHost: {world.host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        assert b"101" in idle.recv(100)
        (subscriber,) = world.hub._subscribers
        filler = {"event": "level", "at": 1.0, "rms_dbfs": -20.0, "peak_dbfs": -10.0, "pad": "x" * 50_000}
        began = time.monotonic()
        for _ in range(events):
            world.hub.publish(filler)
        assert time.monotonic() - began < 2
        for _ in range(60):
            if not world.hub._subscribers:
                break
            time.sleep(0.05)
        assert not world.hub._subscribers
        assert subscriber._queue.qsize() <= 256


def test_what_listeners_say_is_bounded_and_ignored(world: World, client: httpx.Client) -> None:
    with events(world) as socket:
        socket.recv(timeout=5)
        socket.send("hello")
        until(socket, "pulse")
        socket.send("x" * 5_000)
        with pytest.raises(ConnectionClosed):  # noqa: PT012
            for _ in range(20):
                socket.recv(timeout=5)


# the page and the port


def test_the_page_is_self_contained_and_its_policy_fits(client: httpx.Client) -> None:
    answer = client.get("/")
    assert answer.text == page()[0]
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for outside in ("http://", "https://", "src=", "<link", "@import", "url("):
        assert outside not in answer.text, outside
    assert answer.headers["x-frame-options"] == "DENY"


def test_connections_are_bounded(world: World, client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 3)
    server = LocalServer(make_app(world.hub, world.scorer), port=0)
    thread = server.in_thread()
    address = ("127.0.0.1", server.port)
    held = [socket.create_connection(address, timeout=10) for _ in range(4)]
    time.sleep(0.2)
    with httpx.Client(base_url=server.url, timeout=10, trust_env=False) as other:
        assert other.get("/state").status_code == 503
        for one in held:
            one.close()
        time.sleep(0.2)
        assert other.get("/state").status_code in (200, 503)
    with httpx.Client(base_url=server.url, timeout=10, trust_env=False) as other:
        assert other.get("/state").status_code == 200
    server.stop()
    thread.join(timeout=10)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "::", "example.org"])
def test_only_loopback(world: World, host: str) -> None:
    with pytest.raises(ServerError, match="no passwords"):
        LocalServer(make_app(world.hub, world.scorer), host=host)


def test_a_port_that_is_taken(world: World) -> None:
    with pytest.raises(ServerError, match="--port"):
        LocalServer(make_app(world.hub, world.scorer), port=world.server.port)
