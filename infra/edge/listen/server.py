"""The local endpoint: a page, its events, and single clips. On loopback only: it has no passwords.

| | |
|---|---|
| `GET /` | the live page |
| `GET /state` | what is going on now |
| `GET /health` | 200 while it listens, 503 when it does not (no samples, ended with an error) |
| `POST /classify` | a WAV file as the body → the decision of `cryfed classify` |
| `WS /events` | the state, then every event; a pulse each second |
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ipaddress
import re
import socket
import threading
from functools import partial
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket, WebSocketDisconnect

from infra.edge.listen.clip import classify_wav
from infra.edge.listen.guard import LOOPBACK, Guard
from infra.edge.listen.hub import Hub, TooManySubscribers
from infra.edge.scorer import Scorer
from infra.report.pages import palette
from models.errors import AudioError, ServerError

MAX_BODY = 32 * 2**20  # 16 minutes of 16 kHz, 16 bit
MAX_CONNECTIONS = 64
_BODY_SECONDS = 20.0
_PULSE_SECONDS = 1.0
_SEND_SECONDS = 5.0
_LATE_SECONDS = 5.0  # without an event for this long, nobody is listening


def page() -> tuple[str, str]:
    """The page, and the content security policy that lets it do what it does and nothing else."""
    html = (Path(__file__).parent / "page.html").read_text("utf-8").replace("/* palette */", palette())

    def hashes(tag: str) -> str:
        bodies = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(b.encode()).digest()).decode() for b in bodies]
        return " ".join(f"'sha256-{d}'" for d in digests)

    csp = (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return html, csp


def make_app(hub: Hub, scorer: Scorer) -> ASGIApp:
    """The application. `scorer` is for `/classify` alone: listening has a graph of its own."""
    html, csp = page()
    one_at_a_time = asyncio.Semaphore(1)

    async def index(_: Request) -> Response:
        return HTMLResponse(html)

    async def state(_: Request) -> Response:
        return JSONResponse(hub.snapshot())

    async def health(_: Request) -> Response:
        now = hub.snapshot()
        listening = now["word"] not in ("failed", "no signal") and (
            now["word"] == "ended" or now["age"] < _LATE_SECONDS
        )
        body = {
            "listening": listening,
            "word": now["word"],
            "age": now["age"],
            "release": scorer.bundle.digest,
        }
        return JSONResponse(body, 200 if listening else 503)

    async def classify(request: Request) -> Response:
        if one_at_a_time.locked():
            return _problem(429, "another clip is being scored; try again")
        async with one_at_a_time:
            try:
                body = await asyncio.wait_for(_body(request), _BODY_SECONDS)
            except TimeoutError:
                return _problem(408, f"the body took longer than {_BODY_SECONDS:.0f} s")
            except ClientDisconnect:
                return _problem(400, "the body ended early")
            if body is None:
                return _problem(413, f"more than {MAX_BODY} bytes; cut the recording into shorter clips")
            try:
                decision = await asyncio.to_thread(partial(classify_wav, body, scorer))
            except AudioError as err:
                return _problem(422, str(err))
            return JSONResponse({"release": scorer.bundle.digest, **decision.to_dict()})

    async def events(socket: WebSocket) -> None:
        try:
            with hub.subscribe() as (snapshot, subscription):
                await socket.accept()
                await socket.send_json(snapshot)
                gone = asyncio.create_task(_until_gone(socket))
                try:
                    while not gone.done() and not subscription.too_slow:
                        row = await subscription.next(_PULSE_SECONDS)
                        sending = socket.send_json(hub.pulse() if row is None else row)
                        await asyncio.wait_for(sending, _SEND_SECONDS)
                    if subscription.too_slow:
                        await socket.close(1013, "too slow")
                finally:
                    gone.cancel()
        except TooManySubscribers:
            await socket.close(1013, "too many listeners")
        except (WebSocketDisconnect, RuntimeError, TimeoutError):
            return  # it left while we were sending, or does not read any more

    routes = [
        Route("/", index),
        Route("/state", state),
        Route("/health", health),
        Route("/classify", classify, methods=["POST"]),
        WebSocketRoute("/events", events),
    ]
    return Guard(Starlette(routes=routes), hosts=LOOPBACK, csp=csp)


def _problem(status: int, why: str) -> Response:
    return JSONResponse({"error": why}, status)


async def _body(request: Request) -> bytes | None:
    """The whole body, or None when there is more of it than we take."""
    announced = request.headers.get("content-length", "0")
    if not announced.isdigit() or int(announced) > MAX_BODY:
        return None
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY:
            return None
        parts.append(part)
    return b"".join(parts)


async def _until_gone(socket: WebSocket) -> None:
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass


class LocalServer:
    """The application on a loopback port; 0 picks a free one.

    Raises:
        ServerError: the address is not loopback, or the port is taken.
    """

    def __init__(self, app: ASGIApp, *, host: str = "127.0.0.1", port: int = 8730) -> None:
        try:
            loopback = ipaddress.ip_address(host).is_loopback
        except ValueError:
            loopback = False
        if not loopback:
            raise ServerError(
                f"{host}: the live page has no passwords, so it is served on 127.0.0.1 alone; "
                "reach it through a tunnel (ssh -L 8730:127.0.0.1:8730 device)"
            )
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, port))
            self._socket.listen(MAX_CONNECTIONS)  # a port that is only bound could be bound again
        except OSError as err:
            self._socket.close()
            raise ServerError(
                f"{host}:{port} cannot be used ({err.strerror or err}); give another --port"
            ) from None
        self._host, self.port = host, int(self._socket.getsockname()[1])
        config = uvicorn.Config(
            app, http="h11", ws="websockets-sansio", loop="asyncio", lifespan="off", log_config=None,
            access_log=False, server_header=False, limit_concurrency=MAX_CONNECTIONS, timeout_keep_alive=5,
            timeout_graceful_shutdown=2, ws_max_size=1024, ws_max_queue=4, ws_ping_interval=5.0,
            ws_ping_timeout=5.0, proxy_headers=False,
        )  # fmt: skip
        self._server = uvicorn.Server(config)

    @property
    def url(self) -> str:
        """Where the page is."""
        return (
            f"http://[{self._host}]:{self.port}" if ":" in self._host else f"http://{self._host}:{self.port}"
        )

    def run(self) -> None:
        """Serve until interrupted (in the main thread) or stopped."""
        try:
            self._server.run(sockets=[self._socket])
        except KeyboardInterrupt:
            pass
        finally:
            self._socket.close()

    def stop(self) -> None:
        """Ask it to end; from any thread."""
        self._server.should_exit = True

    def in_thread(self) -> threading.Thread:
        """Serve from a thread of its own until stopped."""
        thread = threading.Thread(target=self.run, name="listen-server", daemon=True)
        thread.start()
        return thread
