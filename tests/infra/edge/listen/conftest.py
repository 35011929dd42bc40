"""A server that listens to what the test says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from infra.edge.bundle import Bundle
from infra.edge.listen.detector import Detector
from infra.edge.listen.hub import Hub
from infra.edge.listen.run import listen
from infra.edge.listen.server import LocalServer, make_app
from infra.edge.listen.sources import Block, Item
from infra.edge.scorer import Scorer
from tests.infra.edge.listen.sounds import REASONS, detector


@dataclass
class World:
    """A running server on a free port, and the hub behind it."""

    hub: Hub
    server: LocalServer
    scorer: Scorer

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def host(self) -> str:
        return self.server.url.removeprefix("http://")

    def begin(self, **changes: Any) -> None:
        """A stream begins, and nothing is heard yet."""
        about = {
            "release": "0" * 64,
            "site": None,
            "trained_on_synthetic": True,
            "reasons": list(REASONS),
            "gate_threshold": 0.5,
        }
        row = {
            "event": "stream",
            "phase": "begin",
            "source": "test",
            "time": "2026-01-01T00:00:00.000Z",
            **about,
        }
        self.hub.publish({**row, **changes})

    def hear(self, listening: Detector, *waves: np.ndarray) -> None:
        """More of a stream that goes on."""
        for wave in waves:
            for event in listening.feed(wave):
                self.hub.publish(event.to_dict())

    def whole(self, *items: Item) -> None:
        """A stream from begin to end."""
        release = {"release": "0" * 64, "site": None, "trained_on_synthetic": True, "reasons": list(REASONS)}
        listen(items, detector(), self.hub.publish, source="test", release=release)

    def block(self, wave: np.ndarray) -> Block:
        return Block(wave[:, None], 16_000)


@pytest.fixture
def world(make_bundle: Callable[..., Bundle]) -> Iterator[World]:
    scorer = Scorer(make_bundle())
    hub = Hub()
    server = LocalServer(make_app(hub, scorer), port=0)
    thread = server.in_thread()
    yield World(hub, server, scorer)
    server.stop()
    thread.join(timeout=10)
    assert not thread.is_alive()
