"""Who may talk to a server on loopback: pages that it served itself, and programs on this machine.

A web page from elsewhere can make its visitor's browser send requests to 127.0.0.1. Two headers give it away, and no script can
set either: `Host` is the page's own name when that name was rebound to 127.0.0.1 (DNS rebinding), and `Origin` is the page's
origin on every WebSocket handshake and every POST.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Guard:
    """ASGI middleware: refuses foreign hosts and origins, and sets headers that keep answers where they belong."""

    def __init__(self, app: ASGIApp, *, hosts: Iterable[str] = LOOPBACK, csp: str) -> None:
        self._app, self._hosts = app, frozenset(hosts)
        self._headers = {
            "Content-Security-Policy": csp,
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cache-Control": "no-store",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, handshake or lifespan."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        why = self.refusal(scope["headers"])
        if why is None:
            await self._app(scope, receive, self._with_headers(send))
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": why})
        else:
            await PlainTextResponse(why + "\n", status_code=403)(scope, receive, send)

    def refusal(self, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
        """Why a request is refused, or None."""
        found: dict[str, list[str]] = {"host": [], "origin": []}
        for name, value in headers:
            if name.decode("latin-1").lower() in found:
                found[name.decode("latin-1").lower()].append(value.decode("latin-1"))
        if len(found["host"]) != 1 or len(found["origin"]) > 1:
            return "one Host and at most one Origin are expected"
        (host,) = found["host"]
        if _hostname(f"//{host}") not in self._hosts:
            return "this server answers to its loopback names only"
        # a tunnel may change the port, so the origin is compared with what the browser believes it talks to
        if found["origin"] and found["origin"][0].lower() != f"http://{host}".lower():
            return "requests from other origins are refused"
        return None

    def _with_headers(self, send: Send) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        return sending


def _hostname(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    if parts.username is not None or parts.path or parts.query or parts.fragment:
        return None
    return parts.hostname
