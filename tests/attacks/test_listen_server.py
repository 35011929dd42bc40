"""Web pages that would like to hear a nursery through its owner's browser."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import Message
from starlette.websockets import WebSocket

from infra.edge.listen.guard import Guard


async def _hello(_: object) -> PlainTextResponse:
    return PlainTextResponse("hello")


async def _socket(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text("hello")
    await socket.close()


APP = Guard(
    Starlette(routes=[Route("/", _hello, methods=["GET", "POST"]), WebSocketRoute("/events", _socket)]),
    csp="default-src 'none'",
)


def request(method: str, headers: dict[str, str]) -> httpx.Response:
    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(APP), base_url="http://127.0.0.1"
        ) as client:
            return await client.request(method, "/", headers=headers)

    return asyncio.run(ask())


def handshake(headers: dict[str, str]) -> list[Message]:
    """What the server sends to a WebSocket that asks for events."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope: dict[str, Any] = {
        "type": "websocket", "path": "/events", "raw_path": b"/events", "root_path": "", "query_string": b"",
        "scheme": "ws", "subprotocols": [], "headers": raw, "client": None, "server": None,
    }  # fmt: skip
    asyncio.run(APP(scope, receive, send))
    return sent


OURS = [
    {"host": "127.0.0.1:8730"},
    {"host": "localhost:8730"},
    {"host": "[::1]:8730"},
    {"host": "LOCALHOST:9999"},  # a tunnel
    {"host": "127.0.0.1:8730", "origin": "http://127.0.0.1:8730"},
    {"host": "localhost:9999", "origin": "http://localhost:9999"},
]
THEIRS = [
    {"host": "evil.example"},  # rebound to 127.0.0.1
    {"host": "evil.example:8730", "origin": "http://evil.example:8730"},
    {"host": "127.0.0.1.evil.example"},
    {"host": "127.0.0.1@evil.example"},
    {"host": "evil.example@127.0.0.1"},
    {"host": "127.0.0.1:8730/evil"},
    {"host": "127.0.0.1:port"},
    {"host": ""},
    {"host": "192.168.1.2:8730"},
    {"host": "0.0.0.0:8730"},
    {"host": "127.0.0.1:8730", "origin": "http://evil.example"},
    {"host": "127.0.0.1:8730", "origin": "https://127.0.0.1:8730"},
    {"host": "127.0.0.1:8730", "origin": "http://127.0.0.1:3000"},  # another program's page on this machine
    {"host": "127.0.0.1:8730", "origin": "http://localhost:8730"},
    {"host": "127.0.0.1:8730", "origin": "null"},  # a sandboxed frame, a file
    {"host": "127.0.0.1:8730", "origin": ""},
]


@pytest.mark.parametrize("headers", OURS)
def test_our_own_page_and_programs_are_answered(headers: dict[str, str]) -> None:
    answer = request("POST", headers)
    assert answer.text == "hello"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in answer.headers
    assert [m["type"] for m in handshake(headers)] == [
        "websocket.accept",
        "websocket.send",
        "websocket.close",
    ]


@pytest.mark.parametrize("headers", THEIRS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_others_are_refused(headers: dict[str, str], method: str) -> None:
    answer = request(method, headers)
    assert answer.status_code == 403
    assert "hello" not in answer.text


@pytest.mark.parametrize("headers", THEIRS)
def test_others_do_not_hear_events(headers: dict[str, str]) -> None:
    (only,) = handshake(headers)
    assert (only["type"], only["code"]) == ("websocket.close", 1008)


def test_headers_given_twice_are_refused() -> None:
    guard = Guard(APP, csp="")
    twice = [(b"host", b"127.0.0.1"), (b"Host", b"evil.example")]
    assert guard.refusal(twice) is not None
    assert guard.refusal([]) is not None
    assert guard.refusal([(b"host", b"127.0.0.1")]) is None
