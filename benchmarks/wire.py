"""Bytes on the wire of one site in one round: this federation's, Flower's own SecAgg+, and the whole model.

Ours are counted by the server (`history.json`): header, body and payload of every message; `framed` also what Flower puts
around them, as protobuf. Flower's are those of its own
workflow and mod (`flwr/server/workflow/secure_aggregation/secaggplus_workflow.py`,
`flwr/client/mod/secure_aggregation/secaggplus_mod.py`), run for one round over a grid that counts every message as protobuf.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import numpy as np

from benchmarks.jobs import World
from infra.federation.messages import Envelope
from infra.federation.rounds import federate
from infra.federation.site import Site, open_site
from infra.federation.transport import Handler, LocalTransport
from infra.federation.wire import to_records
from models.threads import one_thread

SETTLED: Final = {"steps": 1, "batch_size": 2}  # what a site learns does not change what it sends


def of_federation(world: World, folder: Path, *, rounds: int = 2, **changes: Any) -> dict[str, Any]:
    """A job's last round: bytes of a site up and down, by stage, and P."""
    job = world.job(folder, rounds=rounds, eval_every=0, local=SETTLED, **changes)
    framed = {"up": 0, "down": 0}

    def counting(site: Site) -> Handler:
        def handle(request: Envelope) -> Envelope:
            reply = site.handle(request)
            if request.header.round == rounds:
                for way, size in as_flower(request, reply).items():
                    framed[way] += size
            return reply

        return handle

    with one_thread():
        sites = {name: counting(open_site(str(folder / "job.json"), name)) for name in job.site_names}
        result = federate(job, LocalTransport(sites))
    history = json.loads(result.history.read_text())
    last, n = history["rounds"][-1], len(job.sites)
    return {
        "parameters": history["parameters"],
        "up": max(last["bytes_up"].values()),
        "down": max(last["bytes_down"].values()),
        "framed": {way: size / n for way, size in framed.items()},
        "stages": {stage: {way: b / n for way, b in both.items()} for stage, both in last["stages"].items()},
    }


def as_flower(request: Envelope, reply: Envelope) -> dict[str, int]:
    """Both messages as Flower's protobuf, metadata included."""
    from flwr.app import Message
    from flwr.common.serde import message_to_proto

    down = Message(to_records(request), dst_node_id=2**63 + 1, message_type="train.step", group_id="1")
    up = Message(to_records(reply), reply_to=down)
    return {"down": message_to_proto(down).ByteSize(), "up": message_to_proto(up).ByteSize()}


def of_model(parameters: int, bytes_each: int) -> dict[str, Any]:
    """The whole model, each way; framing left out."""
    return {"parameters": parameters, "up": parameters * bytes_each, "down": parameters * bytes_each}


def of_secaggplus(size: int, sites: int) -> dict[str, Any]:
    """One round of Flower's SecAgg+ with its own defaults, over one vector (size,) float32 of each site.

    Every site holds a share for every other; the update is counted with the model that is sent down, as Flower sends it.
    """
    from flwr.app import ConfigRecord, Context, RecordDict
    from flwr.common import Code, FitIns, FitRes, Status, ndarrays_to_parameters
    from flwr.common.constant import SUPERLINK_NODE_ID
    from flwr.compat.common import recorddict_compat as compat
    from flwr.server.compat.legacy_context import LegacyContext
    from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
    from flwr.server.workflow.secure_aggregation.secaggplus_workflow import SecAggPlusWorkflow

    logging.getLogger("flwr").setLevel(logging.WARNING)
    parameters = ndarrays_to_parameters([np.zeros(size, np.float32)])
    instruction = FitIns(parameters, {})
    proxies = [SimpleNamespace(node_id=node) for node in range(1, sites + 1)]
    released: list[Any] = []

    def train(message: Any, _context: Any) -> Any:
        update = np.random.default_rng(message.metadata.dst_node_id).normal(0, 1e-3, size).astype(np.float32)
        answer = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([update]), 100, {})
        return _reply(compat.fitres_to_recorddict(answer, False), message)

    def average(_round: int, results: Any, failures: Any) -> tuple[Any, dict[str, Any]]:
        assert len(results) == sites, failures
        released.append(results)
        return results[0][1].parameters, {}

    strategy = SimpleNamespace(
        configure_fit=lambda *_: [(proxy, instruction) for proxy in proxies], aggregate_fit=average
    )
    state = RecordDict(
        {
            MAIN_CONFIGS_RECORD: ConfigRecord({"current_round": 1}),
            MAIN_PARAMS_RECORD: compat.parameters_to_arrayrecord(parameters, True),
        }
    )
    manager = SimpleNamespace(num_available=lambda: sites)
    own = Context(run_id=1, node_id=SUPERLINK_NODE_ID, node_config={}, state=state, run_config={})
    grid = _CountingGrid(train)
    context = LegacyContext(own, strategy=strategy, client_manager=manager)  # type: ignore[arg-type, unused-ignore]
    SecAggPlusWorkflow(num_shares=1.0, reconstruction_threshold=2 / 3)(grid, context)  # type: ignore[arg-type, unused-ignore]
    assert released, "SecAgg+ did not finish its round"
    stages = {s: {way: b / sites for way, b in both.items()} for s, both in grid.bytes.items()}
    total = {way: sum(both[way] for both in stages.values()) for way in ("up", "down")}
    return {"parameters": size, **total, "stages": stages}


class _CountingGrid:
    """Hands every message to the mod of its site, and counts both ways."""

    def __init__(self, train: Callable[[Any, Any], Any]) -> None:
        self._train = train
        self._states: dict[int, Any] = {}
        self.bytes: dict[str, dict[str, int]] = defaultdict(lambda: {"up": 0, "down": 0})

    def send_and_receive(self, messages: Iterable[Any], *, timeout: float | None = None) -> list[Any]:  # noqa: ARG002
        from flwr.app import Context, RecordDict
        from flwr.client.mod.secure_aggregation.secaggplus_mod import secaggplus_mod
        from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key
        from flwr.common.serde import message_from_proto, message_to_proto

        replies = []
        for message in messages:
            node, sent = message.metadata.dst_node_id, message_to_proto(message)
            stage = str(message.content.config_records[RECORD_KEY_CONFIGS][Key.STAGE])
            self.bytes[stage]["down"] += sent.ByteSize()
            fresh = Context(run_id=1, node_id=node, node_config={}, state=RecordDict(), run_config={})
            received = message_from_proto(sent)  # the mod takes it apart
            reply = secaggplus_mod(received, self._states.setdefault(node, fresh), self._train)
            self.bytes[stage]["up"] += message_to_proto(reply).ByteSize()
            replies.append(reply)
        return replies


def _reply(content: Any, message: Any) -> Any:
    from flwr.app import Message

    return Message(content, reply_to=message)
