"""A bucket over S3, through `http.client`: GET with Range, PUT, Signature Version 4; http or https, path-style addresses.

Nothing is followed or retried here: a redirect is a refusal, and the next poll is the retry. Every wait ends: each
receive within the patience, and the whole of the answer's headers, of a chunk's head and of an error's text too, which a
hostile server could else drip for days.
"""

import contextlib
import http.client
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Callable, Dict, NamedTuple, Optional
from urllib.parse import urlsplit

from .errors import ConfigError, MixAndMatch, StoreUnreachable, TooSlow
from .sigv4 import Credentials, escape, sign
from .store import Pace, Store, Stream

_MAX_ERROR_BYTES = 2000


class _Exchange(NamedTuple):
    """A request that was answered. The connection forgets a socket that is to be closed, so it is kept here."""

    connection: http.client.HTTPConnection
    answer: http.client.HTTPResponse
    sock: socket.socket


class S3Store(Store):
    """One bucket at `https://host[:port]/bucket` (or http).

    `rate` in bytes a second and `patience` in seconds are the slowest that is borne; without credentials, requests are
    not signed; `ca` is a file of certificates to trust instead of the system's.

    Raises:
        ConfigError: not such an address, or no usable certificates.
    """

    def __init__(
        self,
        url: str,
        credentials: Optional[Credentials] = None,
        rate: int = 1024,
        patience: float = 30.0,
        ca: Optional[Path] = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        parts = urlsplit(url)
        self._bucket = parts.path.strip("/")
        if parts.scheme not in ("http", "https") or not parts.hostname or not self._bucket:
            raise ConfigError(f"store.url {url!r}: it has to be https://host[:port]/bucket")
        self._secure, self._host, self._port = parts.scheme == "https", parts.hostname, parts.port
        self._netloc = parts.netloc.rpartition("@")[2]
        self._credentials, self._rate, self._patience, self._clock = credentials, rate, patience, clock
        try:
            self._tls = ssl.create_default_context(cafile=None if ca is None else str(ca))
        except OSError as err:
            raise ConfigError(f"store.ca {ca}: no usable certificates ({err})") from None

    def pace(self) -> Pace:
        """See `Store`."""
        return Pace(self._rate, self._patience)

    def open(self, key: str, offset: int = 0) -> Optional[Stream]:
        """See `Store`."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        exchange = self._request("GET", key, headers, b"")
        status = exchange.answer.status
        try:
            if status == 404:
                exchange.connection.close()
                return None
            if status not in (200, 206):
                raise StoreUnreachable(self._explain(key, exchange))
            return _HttpStream(exchange, key, offset, self._patience)
        except BaseException:
            exchange.connection.close()
            raise

    def put(self, key: str, data: bytes) -> None:
        """See `Store`."""
        exchange = self._request("PUT", key, {"Content-Length": str(len(data))}, data)
        try:
            if exchange.answer.status not in (200, 201, 204):
                raise StoreUnreachable(self._explain(key, exchange))
        finally:
            exchange.connection.close()

    def _request(self, method: str, key: str, headers: Dict[str, str], body: bytes) -> _Exchange:
        path = f"/{self._bucket}/{key}"
        sent = dict(headers, Host=self._netloc)
        if self._credentials is not None:
            sent = sign(method, path, sent, body, self._credentials, self._clock())
        if self._secure:
            connection = http.client.HTTPSConnection(
                self._host, self._port, timeout=self._patience, context=self._tls
            )  # type: http.client.HTTPConnection
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=self._patience)
        try:
            connection.connect()
            sock = connection.sock
            with _Deadline(sock, self._patience) as deadline:
                try:
                    connection.request(method, escape(path), body or None, sent)
                    answer = connection.getresponse()
                except (OSError, http.client.HTTPException, ValueError):
                    if not deadline.passed:
                        raise
                if deadline.passed:  # headers that were cut off look like headers that ended
                    raise socket.timeout("no answer")
                return _Exchange(connection, answer, sock)
        except socket.timeout:
            connection.close()
            raise TooSlow(f"{key}: {self._netloc} did not answer within {self._patience:.0f} s") from None
        except (OSError, http.client.HTTPException, ValueError) as err:
            connection.close()
            raise StoreUnreachable(
                f"{key}: {self._netloc} is out of reach ({str(err)[:200] or type(err).__name__})"
            ) from None

    def _explain(self, key: str, exchange: _Exchange) -> str:
        answer = exchange.answer
        try:
            with _Deadline(exchange.sock, self._patience):
                text = answer.read(_MAX_ERROR_BYTES).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException, ValueError):
            text = ""
        code = text.split("<Code>", 1)[1].split("</Code>", 1)[0][:60] if "<Code>" in text else ""
        hint = "; check the keys, their rights and the clock" if answer.status == 403 else ""
        return f"{key}: {self._netloc} answered {answer.status} {code}{hint}"


class _Deadline:
    """Cuts a connection off when the time is up, whatever its peer is doing."""

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        self._sock, self.passed = sock, False
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> "_Deadline":
        self._timer.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._timer.cancel()

    def _cut(self) -> None:
        self.passed = True
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)


class _HttpStream(Stream):
    def __init__(self, exchange: _Exchange, key: str, offset: int, patience: float) -> None:
        self._exchange, self._key, self._patience = exchange, key, patience
        answer = exchange.answer
        length = answer.getheader("Content-Length")
        left = int(length) if length is not None and length.isdigit() else None
        if answer.status == 206:
            self.offset, self.total = _content_range(answer.getheader("Content-Range"), key)
            if self.offset != offset:
                raise MixAndMatch(
                    f"{key}: bytes from {self.offset} on, where those from {offset} were asked for"
                )
        else:
            self.offset, self.total = 0, left

    def read(self, count: int) -> bytes:
        answer = self._exchange.answer
        try:
            if not answer.chunked:
                return answer.read1(count)
            # a chunk's head may be as long as 64 KiB, and each of its bytes comes within the patience
            with _Deadline(self._exchange.sock, self._patience) as deadline:
                try:
                    return answer.read1(count)
                except (OSError, http.client.HTTPException, ValueError):
                    if deadline.passed:
                        raise socket.timeout("no chunk") from None
                    raise
        except socket.timeout:
            raise TooSlow(f"{self._key}: nothing came for longer than the patience") from None
        except (OSError, http.client.HTTPException, ValueError) as err:
            raise StoreUnreachable(
                f"{self._key}: broke off ({str(err)[:200] or type(err).__name__})"
            ) from None

    def close(self) -> None:
        self._exchange.connection.close()


def _content_range(value: Optional[str], key: str) -> "tuple[int, Optional[int]]":
    """First byte and size of the whole, from `bytes 5-9/10` or `bytes 5-9/*`."""
    try:
        unit, _, rest = (value or "").partition(" ")
        span, _, total = rest.partition("/")
        if unit != "bytes":
            raise ValueError
        return int(span.partition("-")[0]), None if total == "*" else int(total)
    except ValueError:
        raise StoreUnreachable(
            f"{key}: it answers a part without saying which ({str(value)[:60]!r})"
        ) from None
