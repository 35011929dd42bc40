"""Events from the listening thread to whoever subscribed on the event loop; nobody who is slow can hold it up."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from infra.edge.listen.state import Json, State

MAX_SUBSCRIBERS = 16
_BACKLOG = 256  # events: more than ten seconds of them; then the subscriber is cut off


class TooManySubscribers(Exception):
    """No place is left."""


class Subscription:
    """One reader's queue. `None` is its end."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queue: asyncio.Queue[Json] = asyncio.Queue(_BACKLOG)
        self.too_slow = False

    async def next(self, timeout_s: float) -> Json | None:
        """The next event, or None when there was none in time."""
        try:
            return await asyncio.wait_for(self._queue.get(), timeout_s)
        except TimeoutError:
            return None

    def offer(self, row: Json) -> None:
        """From any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._offer, row)

    def _offer(self, row: Json) -> None:
        if self._queue.full():
            self.too_slow = True
        else:
            self._queue.put_nowait(row)


class Hub:
    """The state, and the subscribers to what changes it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state = State()
        self._subscribers: set[Subscription] = set()
        self._told = time.monotonic()

    def publish(self, row: Json) -> None:
        """Take in an event and pass it on; from the listening thread."""
        with self._lock:
            self._state.apply(row)
            self._told = time.monotonic()
            for subscriber in self._subscribers:
                subscriber.offer(row)

    def snapshot(self) -> Json:
        """The state now, with `age`: seconds since the last event."""
        with self._lock:
            return {**self._state.snapshot(), "age": round(time.monotonic() - self._told, 3)}

    def pulse(self) -> Json:
        """The state in a word, for those who wait."""
        with self._lock:
            age = round(time.monotonic() - self._told, 3)
            return {"event": "pulse", "word": self._state.word, "age": age}

    @contextmanager
    def subscribe(self) -> Iterator[tuple[Json, Subscription]]:
        """The state, and every event after it; on the event loop.

        Raises:
            TooManySubscribers: 16 are there already.
        """
        subscription = Subscription(asyncio.get_running_loop())
        with self._lock:
            if len(self._subscribers) >= MAX_SUBSCRIBERS:
                raise TooManySubscribers
            self._subscribers.add(subscription)
            snapshot = self._state.snapshot()
        try:
            yield snapshot, subscription
        finally:
            with self._lock:
                self._subscribers.discard(subscription)
