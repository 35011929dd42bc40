"""A site's end of the Fleet API against a stand-in for the server: bounds, refusals, outages, a server that forgets."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeResponse,
    DeactivateNodeResponse,
    PullMessagesResponse,
    PushMessagesResponse,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatResponse
from flwr.proto.message_pb2 import ConfirmMessageReceivedResponse, PullObjectResponse, PushObjectResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from infra.federation.real import fleet as fleet_module
from infra.federation.real.fleet import Fleet
from models.errors import ConfigError, FederationError, ServerError

CODE = grpc.StatusCode


class Failed(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode, details: str = "") -> None:
        self.said = code, details

    def code(self) -> grpc.StatusCode:
        return self.said[0]

    def details(self) -> str:
        return self.said[1]


class Server:
    """Holds messages for one site and takes its answers; `fails` are raised first, by method, one a call."""

    def __init__(self) -> None:
        self.waiting: list[Message] = []
        self.objects: dict[str, bytes] = {}
        self.pushed: dict[str, bytes] = {}
        self.heads: list[Any] = []
        self.calls: list[str] = []
        self.fails: dict[str, list[Exception]] = {}
        self.node_id = 7

    def send(self, text: str) -> Message:
        message = Message(RecordDict({"r": ConfigRecord({"text": text})}), 7, "query.hello", group_id="3")
        message.metadata.__dict__["_run_id"] = 1
        message.metadata.__dict__["_message_id"] = message.object_id
        self.objects |= {k: v.deflate() for k, v in get_all_nested_objects(message).items()}
        self.waiting.append(message)
        return message

    def answer(self, number: int = -1) -> Message:
        head = self.heads[number]
        found = inflate_object_from_contents(head.metadata.message_id, dict(self.pushed))
        assert isinstance(found, Message)
        return found

    def __getattr__(self, name: str) -> Any:
        def call(request: Any, timeout: float) -> Any:
            assert timeout > 0
            self.calls.append(name)
            if self.fails.get(name):
                raise self.fails[name].pop(0)
            return getattr(self, f"_{name}")(request)

        if not name[0].isupper():
            raise AttributeError(name)
        return call

    def _ActivateNode(self, request: Any) -> Any:  # noqa: N802
        assert request.heartbeat_interval == 10
        return ActivateNodeResponse(node_id=self.node_id)

    def _DeactivateNode(self, request: Any) -> Any:  # noqa: N802
        return DeactivateNodeResponse()

    def _SendNodeHeartbeat(self, request: Any) -> Any:  # noqa: N802
        return SendNodeHeartbeatResponse(success=True)

    def _PullMessages(self, request: Any) -> Any:  # noqa: N802
        if request.node.node_id != self.node_id:
            raise Failed(CODE.UNAUTHENTICATED, "Invalid node ID")
        if not self.waiting:
            return PullMessagesResponse()
        message = self.waiting.pop(0)
        return PullMessagesResponse(
            messages_list=[message_to_proto(remove_content_from_message(message))],
            message_object_trees=[get_object_tree(message)],
        )

    def _PullObject(self, request: Any) -> Any:  # noqa: N802
        content = self.objects[request.object_id]
        return PullObjectResponse(object_found=True, object_available=True, object_content=content)

    def _ConfirmMessageReceived(self, request: Any) -> Any:  # noqa: N802
        return ConfirmMessageReceivedResponse()

    def _PushMessages(self, request: Any) -> Any:  # noqa: N802
        self.heads.append(request.messages_list[0])

        def ids(tree: Any) -> Iterator[str]:
            yield tree.object_id
            for child in tree.children:
                yield from ids(child)

        return PushMessagesResponse(objects_to_push=list(ids(request.message_object_trees[0])))

    def _PushObject(self, request: Any) -> Any:  # noqa: N802
        self.pushed[request.object_id] = request.object_content
        return PushObjectResponse(stored=True)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(fleet_module.time, "sleep", lambda _seconds: None)
    return Server()


@pytest.fixture
def site(server: Server) -> Iterator[Fleet]:
    fleet = Fleet("127.0.0.1:9", b"", ec.generate_private_key(ec.SECP384R1()), max_bytes=2000)
    fleet._stub = server
    with fleet:
        yield fleet
    assert server.calls[-1] == "DeactivateNode"


def echo(message: Message) -> Message:
    return Message(RecordDict({"r": ConfigRecord(dict(message.content["r"]))}), reply_to=message)


def refuse(_message: Message) -> Message:
    raise FederationError("not this one")


def break_down(_message: Message) -> Message:
    raise OSError("kanarien")


def test_messages_are_answered_one_by_one(site: Fleet, server: Server) -> None:
    assert not site.answer_one(echo)
    asked = [server.send("a"), server.send("b")]
    assert site.answer_one(echo)
    assert site.answer_one(echo)
    assert not site.answer_one(echo)
    for number, (message, text) in enumerate(zip(asked, "ab", strict=True)):
        answer = server.answer(number)
        assert answer.content["r"]["text"] == text  # type: ignore[index]
        assert answer.metadata.reply_to_message_id == message.metadata.message_id
        assert (answer.metadata.src_node_id, answer.metadata.group_id) == (7, "3")


def test_what_goes_wrong_at_the_site_is_an_answer_too(site: Fleet, server: Server) -> None:
    for answer, words in ((refuse, "FederationError: not this one"), (break_down, "(OSError)")):
        server.send("a")
        assert site.answer_one(answer)
        assert words in str(server.answer().error.reason)
        assert "kanarien" not in str(server.answer().error.reason)


def test_a_message_is_bounded_before_it_is_parsed(site: Fleet, server: Server) -> None:
    server.send("x" * 5000)
    seen = threading.Event()
    assert site.answer_one(lambda message: seen.set() or echo(message))  # type: ignore[func-returns-value]
    assert "UpdateRejected: a message of more than 2000 bytes" in str(server.answer().error.reason)
    assert not seen.is_set()


def test_a_malformed_message_is_refused(site: Fleet, server: Server) -> None:
    server.send("a")
    server.objects = dict.fromkeys(server.objects, b"junk")
    assert site.answer_one(echo)
    assert "the site could not answer" in str(server.answer().error.reason)


@pytest.mark.parametrize("name", ["PullMessages", "PullObject", "PushMessages", "PushObject"])
def test_an_outage_is_waited_out(site: Fleet, server: Server, name: str) -> None:
    server.send("a")
    server.fails[name] = [Failed(CODE.UNAVAILABLE, "connection refused"), Failed(CODE.DEADLINE_EXCEEDED)]
    assert site.answer_one(echo)
    assert server.answer().content["r"]["text"] == "a"  # type: ignore[index]


@pytest.mark.parametrize("name", ["PullMessages", "PullObject", "PushMessages", "PushObject"])
def test_a_run_that_is_over_is_forgotten(site: Fleet, server: Server, name: str) -> None:
    server.send("a")
    server.fails[name] = [Failed(CODE.PERMISSION_DENIED, "Run is finished")] * 9
    assert site.answer_one(echo)
    server.fails.clear()
    server.send("b")
    assert site.answer_one(echo)


def test_a_server_that_was_restarted_is_joined_again(site: Fleet, server: Server) -> None:
    server.node_id = 8
    server.fails["ActivateNode"] = [Failed(CODE.FAILED_PRECONDITION, "No SuperNode with this public key")]
    server.send("a")
    assert site.answer_one(echo)  # nothing yet, but it has noticed
    assert site.answer_one(echo)
    assert site.node_id == 8
    assert len(server.heads) == 1


@pytest.mark.parametrize(
    ("failure", "kind", "words"),
    [
        (Failed(CODE.UNAVAILABLE, "Ssl handshake failed"), ConfigError, "does not vouch for"),
        (Failed(CODE.UNAUTHENTICATED, "Invalid timestamp"), ConfigError, "set the clock"),
        (Failed(CODE.INTERNAL, "broken"), ServerError, "refuses PullMessages: INTERNAL: broken"),
    ],
)
def test_what_cannot_be_waited_out_ends_the_process(
    site: Fleet, server: Server, failure: Failed, kind: type[Exception], words: str
) -> None:
    server.fails["PullMessages"] = [failure]
    with pytest.raises(kind, match=words):
        site.answer_one(echo)


def test_entering_waits_for_a_predecessor_and_not_for_ever(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10_000, 5))
    monkeypatch.setattr(fleet_module.time, "monotonic", lambda: float(next(clock)))
    busy = Failed(CODE.FAILED_PRECONDITION, "SuperNode with node ID 7 could not be activated.")

    def enter() -> None:
        fleet = Fleet("127.0.0.1:9", b"", ec.generate_private_key(ec.SECP384R1()), max_bytes=2000)
        fleet._stub = server
        with fleet:
            pass

    server.fails["ActivateNode"] = [busy] * 5
    enter()
    server.fails["ActivateNode"] = [busy] * 1000
    with pytest.raises(ServerError, match="connected already"):
        enter()
    server.fails["ActivateNode"] = [Failed(CODE.FAILED_PRECONDITION, "No SuperNode with this public key")]
    with pytest.raises(ConfigError, match="does not know this site's key"):
        enter()
