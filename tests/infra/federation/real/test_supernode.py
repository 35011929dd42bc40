"""The parts of both ends that need no server: polls, the prompt grid, the lines of a run, a bundle without code."""

from __future__ import annotations

import importlib
import io
import json
import time
import tomllib
import zipfile
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from flwr.app import Message, RecordDict
from flwr.cli.build import build_fab_from_files
from flwr.clientapp import ClientApp
from flwr.common.config import get_fab_config
from flwr.serverapp import ServerApp
from hypothesis import given
from hypothesis import strategies as st

from infra.federation.real import control, fleet, run, server_app
from infra.federation.real.control import BUNDLE, Control
from infra.federation.real.server_app import MARK, PromptGrid
from infra.federation.real.supernode import pause
from models.errors import FederationError, UpdateRejected


@given(st.floats(0, 1e6))
def test_a_poll_waits_a_share_of_the_idle_time_within_bounds(idle: float) -> None:
    """0.2 s up to 4 s of silence, 3 s from 60 s of it on, a twentieth in between."""
    assert pause(idle) == pytest.approx(min(max(0.05 * idle, 0.2), 3.0))


def message(node: int) -> Message:
    return Message(RecordDict(), dst_node_id=node, message_type="query.hello")


class SlowGrid:
    """Answers of node n come with the n-th look; a message to node 0 cannot be sent."""

    def __init__(self) -> None:
        self.looks = 0

    def push_messages(self, messages: list[Message]) -> list[str | None]:
        return [str(m.metadata.dst_node_id) if m.metadata.dst_node_id else None for m in messages]

    def pull_messages(self, waiting: set[str]) -> list[Any]:
        self.looks += 1
        ready = [name for name in waiting if int(name) <= self.looks]
        return [SimpleNamespace(metadata=SimpleNamespace(reply_to_message_id=name)) for name in ready]


def test_the_prompt_grid_takes_answers_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_app, "_POLL_S", 0.01)
    grid = SlowGrid()
    answers = PromptGrid(grid).send_and_receive([message(n) for n in (3, 0, 1)], timeout=60)
    assert [a.metadata.reply_to_message_id for a in answers] == ["1", "3"]
    assert grid.looks == 3

    started = time.monotonic()
    (first,) = PromptGrid(SlowGrid()).send_and_receive([message(1), message(10**9)], timeout=0.1)
    assert first.metadata.reply_to_message_id == "1"
    assert time.monotonic() - started < 1


class _OverError(grpc.RpcError):
    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.DEADLINE_EXCEEDED


@given(st.integers(1, 7), st.integers(0, 3))
def test_lines_are_put_together_again_wherever_they_were_cut(size: int, breaks: int) -> None:
    """The stream cuts anywhere and ends after 60 s: it is opened anew, at the last stamp, without losing half a line."""
    events = [{"event": "round", "losses": {"gate": 0.5}}, {"event": "done"}]
    text = "noise\n" + "".join(f"{MARK}{json.dumps(e)}\nmore noise\n" for e in events) + "no newline"
    parts = [text[i : i + size] for i in range(0, len(text), size)]
    left = breaks

    def stream(request: Any, timeout: float) -> Iterator[Any]:
        nonlocal left
        start = round(request.after_timestamp)
        for stamp, part in list(enumerate(parts, start=1))[start:]:
            yield SimpleNamespace(latest_timestamp=float(stamp), log_output=part)
            if left and stamp % 5 == 0:
                left -= 1
                raise _OverError

    connection = object.__new__(Control)
    connection._stub = SimpleNamespace(StreamLogs=stream)
    assert list(connection.lines(1)) == text.split("\n")
    left = breaks
    assert list(run._events(connection, 1)) == events


def test_an_event_is_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[str] = []
    monkeypatch.setattr(server_app.sys, "stdout", SimpleNamespace(write=writes.append, flush=lambda: None))
    server_app.emit({"event": "start", "text": "a\nb"})
    assert writes == [MARK + '{"event": "start", "text": "a\\nb"}\n']


def test_the_bundle_holds_no_code_and_names_what_is_installed() -> None:
    content, _ = build_fab_from_files({"pyproject.toml": BUNDLE.encode()})
    assert zipfile.ZipFile(io.BytesIO(content)).namelist() == ["pyproject.toml", ".info/CONTENT"]
    get_fab_config(content)  # as the SuperLink checks it
    parts = tomllib.loads(BUNDLE)["tool"]["flwr"]["app"]["components"]
    for name, kind in (("serverapp", ServerApp), ("clientapp", ClientApp)):
        module, attribute = parts[name].split(":")
        assert isinstance(getattr(importlib.import_module(module), attribute), kind)
    assert control.digest_bytes(content) == control.digest_bytes(
        build_fab_from_files({"pyproject.toml": BUNDLE.encode()})[0]
    )


def test_only_our_own_errors_keep_their_words() -> None:
    assert fleet._words(UpdateRejected("round 3")) == "UpdateRejected: round 3"
    assert fleet._words(FederationError("no")) == "FederationError: no"
    assert "kanarien" not in fleet._words(OSError(2, "kanarien"))
    assert "(FileNotFoundError)" in fleet._words(FileNotFoundError("kanarien"))
