"""The SuperLink's Control API: who may take part, and which job runs. What `flwr` does, without its configuration files.

A run is submitted as an app bundle. Ours holds no code, only the names of two installed modules, so nothing has to be found on
the submitting machine but this package:

    serverapp   infra.federation.real.server_app:app
    clientapp   infra.federation.client_app:app

Whoever reaches this API runs code on the server: it listens on loopback alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import grpc  # type: ignore[import-untyped]
from flwr.cli.build import build_fab_from_files
from flwr.common.serde import fab_to_proto, run_from_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    StreamLogsRequest,
    UnregisterNodeRequest,
)
from flwr.proto.control_pb2_grpc import ControlStub
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionClientInterceptor

from infra.digest import digest_bytes
from models.errors import ServerError

BUNDLE: Final = """\
[project]
name = "cryfed-federation"
version = "1"

[tool.flwr.app]
publisher = "cryfed"

[tool.flwr.app.components]
serverapp = "infra.federation.real.server_app:app"
clientapp = "infra.federation.client_app:app"

[tool.flwr.app.config]
job = ""
"""

_CALL_S: Final = 20.0
_STREAM_S: Final = 60.0  # then the stream is opened anew where it was
UNREGISTERED: Final = "unregistered"
_FINISHED: Final = "finished"
_COMPLETED: Final = "completed"


@dataclass(frozen=True)
class Node:
    """A site as the server knows it: by its key."""

    node_id: int
    public_key: bytes  # PEM
    status: str  # registered, online, offline, unregistered


@dataclass(frozen=True)
class Outcome:
    """How a run stands."""

    finished: bool
    completed: bool
    details: str


class Control:
    """A connection to the Control API; a context manager.

    Raises:
        ServerError: at any call, the server does not answer or refuses; the message holds its words.
    """

    def __init__(self, address: str, ca: Path, *, timeout_s: float = _CALL_S) -> None:
        self._address = address
        self._timeout = timeout_s
        self._plain = grpc.secure_channel(address, grpc.ssl_channel_credentials(ca.read_bytes()))
        self._stub = ControlStub(
            grpc.intercept_channel(self._plain, RuntimeVersionClientInterceptor(component_name="cryfed"))
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._plain.close()

    def nodes(self) -> list[Node]:
        """All sites whose keys were registered, those that were taken out again included."""
        found = self._call("ListNodes", ListNodesRequest()).nodes_info
        return [Node(n.node_id, n.public_key, n.status) for n in found]

    def register(self, public_key: bytes) -> int:
        """Let the site with this key (PEM) take part; returns the number that it goes by."""
        return int(self._call("RegisterNode", RegisterNodeRequest(public_key=public_key)).node_id)

    def unregister(self, node_id: int) -> None:
        """Take a site out: from now on its key is refused."""
        self._call("UnregisterNode", UnregisterNodeRequest(node_id=node_id))

    def start(self, job: Path) -> int:
        """Submit a run of the job file, a path on the server's machine; returns the run's number."""
        content, _ = build_fab_from_files({"pyproject.toml": BUNDLE.encode()})
        fab = Fab(digest_bytes(content), content, {})
        request = StartRunRequest(
            fab=fab_to_proto(fab), override_config=user_config_to_proto({"job": str(job)})
        )
        run_id = int(self._call("StartRun", request).run_id)
        if not run_id:
            raise ServerError(f"the SuperLink at {self._address} started no run: its log says why")
        return run_id

    def outcome(self, run_id: int) -> Outcome:
        """How the run stands now."""
        runs = self._call("ListRuns", ListRunsRequest(run_id=run_id)).run_dict
        status = run_from_proto(runs[run_id]).status
        return Outcome(status.status == _FINISHED, status.sub_status == _COMPLETED, status.details)

    def lines(self, run_id: int) -> Iterator[str]:
        """What the run's ServerApp prints, line by line, to its end."""
        after, rest = 0.0, ""
        while True:
            try:
                request = StreamLogsRequest(run_id=run_id, after_timestamp=after)
                for part in self._stub.StreamLogs(request, timeout=_STREAM_S):
                    after = part.latest_timestamp
                    *whole, rest = (rest + part.log_output).split("\n")
                    yield from whole
                yield from [rest] if rest else []
                return
            except grpc.RpcError as err:
                if err.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise self._refused("StreamLogs", err) from None

    def stop(self, run_id: int) -> None:
        """End a run; one that has ended already stays as it is."""
        self._call("StopRun", StopRunRequest(run_id=run_id))

    def _call(self, name: str, request: Any) -> Any:
        try:
            return getattr(self._stub, name)(request, timeout=self._timeout)
        except grpc.RpcError as err:
            raise self._refused(name, err) from None

    def _refused(self, name: str, err: Any) -> ServerError:
        return ServerError(f"the SuperLink at {self._address}: {name}: {err.code().name}: {err.details()}")
