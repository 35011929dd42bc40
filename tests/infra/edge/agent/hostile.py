"""A store over HTTP that misbehaves as told: real sockets, real bytes, on loopback."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

Answer = Callable[["Request", socket.socket], None]


@dataclass
class Request:
    """What a client asked for."""

    method: str
    key: str
    headers: dict[str, str]
    body: bytes
    folder: Path

    @property
    def start(self) -> int:
        """First byte of the range asked for."""
        return int(self.headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))

    @property
    def data(self) -> bytes | None:
        """The object, None where there is none."""
        path = self.folder / self.key
        return path.read_bytes() if path.is_file() else None


def honest(request: Request, sock: socket.socket) -> None:
    """As a store should."""
    if request.method == "PUT":
        path = request.folder / request.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(request.body)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        return
    data = request.data
    if data is None:
        sock.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    else:
        sock.sendall(head(request, len(data)) + data[request.start :])


def head(request: Request, total: int) -> bytes:
    """Status line and headers of a genuine answer."""
    start = request.start
    if "range" not in request.headers:
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total
    return b"HTTP/1.1 206 Partial Content\r\nContent-Length: %d\r\nContent-Range: bytes %d-%d/%d\r\n\r\n" % (
        total - start,
        start,
        total - 1,
        total,
    )


@dataclass
class Server:
    """A listening server; `answers` are tried by the part of the key that they are for, else `honest`."""

    folder: Path
    bucket: str = "bucket"
    answers: dict[str, Answer] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        """For `S3Store`."""
        return f"http://127.0.0.1:{self.port}/{self.bucket}"

    def serve(self, sock: socket.socket) -> None:
        """One connection, one request."""
        with sock, contextlib.suppress(OSError, ValueError):
            sock.settimeout(10)
            raw = b""
            while b"\r\n\r\n" not in raw:
                chunk = sock.recv(65536)
                if not chunk:
                    return
                raw += chunk
            top, _, body = raw.partition(b"\r\n\r\n")
            lines = top.decode().split("\r\n")
            method, path, _ = lines[0].split(" ")
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
            while len(body) < int(headers.get("content-length", "0")):
                body += sock.recv(65536)
            request = Request(method, path.removeprefix(f"/{self.bucket}/"), headers, body, self.folder)
            self.requests.append(request)
            chosen = next((a for part, a in self.answers.items() if part in request.key), honest)
            chosen(request, sock)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """A server for as long as the block runs."""
    server = Server(folder)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server.port = listener.getsockname()[1]

        def accept() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=server.serve, args=(sock,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def endless(length: bytes | None, *, start: bytes = b"") -> Answer:
    """More and more bytes, under the announced Content-Length (None: none, so until the line breaks)."""

    def answer(request: Request, sock: socket.socket) -> None:
        stated = b"" if length is None else b"Content-Length: %s\r\n" % length
        sock.sendall(b"HTTP/1.1 200 OK\r\n" + stated + b"\r\n" + start)
        while True:
            sock.sendall(bytes(65536))

    return answer


def dripping(piece: int, pause: float, *, what: str = "body") -> Answer:
    """The genuine answer, some bytes at a time."""

    def answer(request: Request, sock: socket.socket) -> None:
        data = request.data or b""
        top = head(request, len(data))
        if what == "head":
            top = b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(10_000))
            data = b""
        else:
            sock.sendall(top)
            top, data = b"", data[request.start :]
        whole = top + data
        for at in range(0, len(whole), piece):
            sock.sendall(whole[at : at + piece])
            time.sleep(pause)

    return answer


def cut(after: Callable[[int], int]) -> Answer:
    """The genuine answer, broken off after so many bytes of the body; `after` gets how many were asked for."""

    def answer(request: Request, sock: socket.socket) -> None:
        data = (request.data or b"")[request.start :]
        sock.sendall(head(request, len(request.data or b"")) + data[: after(len(data))])

    return answer


def saying(status: str, headers: str = "", body: bytes = b"") -> Answer:
    """A fixed answer."""

    def answer(request: Request, sock: socket.socket) -> None:
        sock.sendall(f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    return answer
