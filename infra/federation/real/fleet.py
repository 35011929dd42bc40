"""A site's end of the SuperLink's Fleet API: one message in, one answer out, over TLS and signed with the site's key.

Flower's own SuperNode installs and runs the app bundle that a run brings, and starts a process for every message. This end takes
messages only: what answers them is installed at the site and stays loaded. It polls faster, and its heartbeat makes a killed
site known within 20 s (Flower's: 60 s), so that a round does not wait for the timeout of a site that is gone.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

import grpc  # type: ignore[import-untyped]
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Error, Message
from flwr.app.message import remove_content_from_message
from flwr.client.grpc_rere_client.node_auth_client_interceptor import NodeAuthClientInterceptor
from flwr.common.constant import HEARTBEAT_MIN_INTERVAL, ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.fleet_pb2_grpc import FleetStub
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import pull_and_inflate_object_from_tree, push_objects
from flwr.supercore.interceptors import RuntimeVersionClientInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from models.errors import ConfigError, FederationError, ServerError, UpdateRejected

Answer = Callable[[Message], Message]

_BEAT_S: Final = 4.0
_CALL_S: Final = 30.0
_OBJECT_S: Final = 300.0
_LEAVE_S: Final = 3.0
_TAKE_OVER_S: Final = 60.0  # the server holds a killed process's connection for up to 20 s
_RETRY_S: Final = (0.5, 15.0)
_FRAMING_BYTES: Final = 2**20  # of one call: metadata, object tree
_TLS_TROUBLE: Final = ("handshake", "peer name", "hostname verification", "certificate")

_log = logging.getLogger(__name__)


class Fleet:
    """The connection of one site; a context manager.

    Args:
        address: the SuperLink's Fleet API, host:port.
        ca: the authority's certificate, PEM.
        key: the site's own private key.
        max_bytes: of one message, before anything of it is parsed.

    Raises:
        ConfigError: on entering, the server's certificate is not the authority's or not for this address, it does not know the
            key, or the clocks disagree.
        ServerError: on entering, another process is connected with the same key; at any time, the server refuses a call.
    """

    def __init__(self, address: str, ca: bytes, key: ec.EllipticCurvePrivateKey, *, max_bytes: int) -> None:
        self._address = address
        self._max_bytes = max_bytes
        self._public_key = public_key_to_bytes(key.public_key())
        channel = grpc.secure_channel(
            address,
            grpc.ssl_channel_credentials(ca),
            options=[
                ("grpc.max_receive_message_length", max_bytes + _FRAMING_BYTES),
                ("grpc.max_send_message_length", -1),
            ],
        )
        self._plain = channel
        self._stub = FleetStub(
            grpc.intercept_channel(
                channel,
                RuntimeVersionClientInterceptor(component_name="SuperNode"),
                NodeAuthClientInterceptor(key, key.public_key()),
            )
        )
        self._node = Node()
        self._leaving = threading.Event()
        self._forgotten = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        try:
            self._activate()
        except BaseException:
            self._plain.close()
            raise
        self._heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving.set()
        self._heart.join()
        with contextlib.suppress(grpc.RpcError):
            self._stub.DeactivateNode(DeactivateNodeRequest(node_id=self.node_id), timeout=_LEAVE_S)
        self._plain.close()

    @property
    def node_id(self) -> int:
        """The number by which the server calls this site's key."""
        return int(self._node.node_id)

    def answer_one(self, answer: Answer) -> bool:
        """Take one message, answer it, send the answer; False where none was waiting.

        What `answer` raises becomes an error that the server reads: the words of a `FederationError`, of all others the type.

        Raises:
            ConfigError, ServerError: as on entering.
        """
        if self._forgotten.is_set():
            _log.info("the server does not know this connection any more; connecting again")
            self._activate(patience=_TAKE_OVER_S)
            self._forgotten.clear()
        try:
            response = self._call("PullMessages", PullMessagesRequest(node=self._node))
            if not response.messages_list:
                return False
            head = message_from_proto(response.messages_list[0])
            started = time.monotonic()
            try:
                message = self._pull(head.metadata.run_id, response.message_object_trees[0])
                reply = answer(message)
            except (ConfigError, ServerError, _RunOverError, _ForgottenError):
                raise
            except Exception as err:
                _log.exception("the message could not be answered")
                reply = Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, _words(err)), reply_to=head)
            self._push(reply, time.monotonic() - started)
        except _RunOverError as err:
            _log.info("the run is over at the server: %s", err)
        except _ForgottenError:
            self._forgotten.set()
        return True

    def _pull(self, run: int, tree: Any) -> Message:
        pulled = 0
        fetch = make_pull_object_fn_protobuf(
            lambda request: self._call("PullObject", request, _OBJECT_S), self._node, run
        )

        def pull(object_id: str) -> bytes:
            nonlocal pulled
            content = fetch(object_id)
            pulled += len(content)
            if pulled > self._max_bytes:
                raise UpdateRejected(f"a message of more than {self._max_bytes} bytes is not taken here")
            return content

        confirm = make_confirm_message_received_fn_protobuf(
            lambda request: self._call("ConfirmMessageReceived", request), self._node, run
        )
        message = pull_and_inflate_object_from_tree(tree, pull, confirm, return_type=Message)
        message.metadata.__dict__["_message_id"] = tree.object_id
        return message

    def _push(self, reply: Message, seconds: float) -> None:
        reply.metadata.__dict__["_message_id"] = reply.object_id
        with no_object_id_recompute():
            response = self._call(
                "PushMessages",
                PushMessagesRequest(
                    node=self._node,
                    messages_list=[message_to_proto(remove_content_from_message(reply))],
                    message_object_trees=[get_object_tree(reply)],
                    clientapp_runtime_list=[seconds],
                ),
            )
            push = make_push_object_fn_protobuf(
                lambda request: self._call("PushObject", request, _OBJECT_S),
                self._node,
                reply.metadata.run_id,
            )
            push_objects(
                get_all_nested_objects(reply), push, object_ids_to_push=set(response.objects_to_push)
            )

    def _activate(self, patience: float = 0.0) -> None:
        """Be let in; `patience` is for a server that was restarted and may not have been told of this site yet."""
        request = ActivateNodeRequest(public_key=self._public_key, heartbeat_interval=HEARTBEAT_MIN_INTERVAL)
        started = time.monotonic()
        while True:
            try:
                self._node = Node(node_id=self._call("ActivateNode", request).node_id)
                return
            except _PreconditionError as err:
                waited = time.monotonic() - started
                if "public key" in str(err) and waited >= patience:
                    raise ConfigError(
                        f"the server {self._address} does not know this site's key: send its .pub file to the server's "
                        "operator, who registers it with `cryfed federation server register`"
                    ) from None
                if waited > _TAKE_OVER_S:
                    raise ServerError(
                        f"the server {self._address} says that this site is connected already ({err}): stop the other process"
                    ) from None
                _log.info("not let in yet (%s); waiting", err)
            time.sleep(_BEAT_S)

    def _beat(self) -> None:
        while not self._leaving.wait(_BEAT_S):
            request = SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=HEARTBEAT_MIN_INTERVAL)
            # the next call of the main thread tells what is wrong
            with contextlib.suppress(grpc.RpcError):
                if not self._stub.SendNodeHeartbeat(request, timeout=_BEAT_S).success:
                    self._forgotten.set()

    def _call(self, name: str, request: Any, timeout: float = _CALL_S) -> Any:
        """One call, repeated for as long as the server is out of reach."""
        pause, longest = _RETRY_S
        lost = False
        while True:
            try:
                response = getattr(self._stub, name)(request, timeout=timeout)
            except grpc.RpcError as err:
                code, details = err.code(), str(err.details() or "")
                if code is grpc.StatusCode.PERMISSION_DENIED:
                    raise _RunOverError(details) from None
                if code is grpc.StatusCode.FAILED_PRECONDITION:
                    raise _PreconditionError(details) from None
                if code is grpc.StatusCode.UNAUTHENTICATED and "node ID" in details:
                    raise _ForgottenError from None
                if code is grpc.StatusCode.UNAUTHENTICATED:
                    raise ConfigError(
                        f"the server {self._address} does not accept this site's signature ({details}): set the clock, and "
                        "use the key that is registered there"
                    ) from None
                if code not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    raise ServerError(
                        f"the server {self._address} refuses {name}: {code.name}: {details}"
                    ) from None
                if any(word in details.lower() for word in _TLS_TROUBLE):
                    raise ConfigError(
                        f"{self._address} shows a certificate that this site's authority does not vouch for: get the "
                        f"authority's certificate from the server's operator, or the address that it is made out to ({details})"
                    ) from None
            else:
                if lost:
                    _log.info("%s answers again", self._address)
                return response
            if not lost:
                _log.warning("%s is out of reach (%s); trying on", self._address, details)
                lost = True
            time.sleep(pause)
            pause = min(2 * pause, longest)


class _RunOverError(Exception):
    """The run that a message belongs to has ended."""


class _ForgottenError(Exception):
    """The server knows no node of this number."""


class _PreconditionError(Exception):
    """The server will not do it in this state."""


def _words(err: Exception) -> str:
    if isinstance(err, FederationError):
        return f"{type(err).__name__}: {err}"
    return f"the site could not answer ({type(err).__name__}); the reason stays in its own log"
