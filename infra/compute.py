"""Ray: a local cluster on loopback for one run, or an existing cluster by address.

    with cluster(settings.compute) as ray_cluster:
        results = ray_cluster.map(extract_site, jobs, label="features")
        env = {"RAY_ADDRESS": ray_cluster.address}   # for the federated simulation, a process of its own

Workers import our packages themselves and set one thread each, so results do not depend on the number of cores.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from infra import quiet
from infra.settings import ComputeSettings
from models.errors import ConfigError, CryfedError

T = TypeVar("T")
R = TypeVar("R")

_LOOPBACK = "127.0.0.1"
_ANSWER_SECONDS = 5.0
_OBJECT_STORE_BYTES = 200 * 2**20
# the federation's actors would have idle workers ended after a second; new ones import torch for ten
_KEEP_WORKERS = {"idle_worker_killing_time_threshold_ms": 3_600_000}
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Cluster:
    """A connected Ray cluster."""

    address: str

    def map(
        self,
        fn: Callable[[T], R],
        items: Iterable[T],
        *,
        on_done: Callable[[int, int], None] | None = None,
    ) -> list[R]:
        """`[fn(x) for x in items]` in parallel, in order; `on_done(done, total)` after each.

        A worker that dies is retried twice by Ray; an error of ours raised in a worker is raised here as itself.
        """
        import ray

        remote = ray.remote(num_cpus=1, max_retries=2)(_call)
        refs = [remote.remote(fn, item) for item in items]
        pending, done = list(refs), 0
        while pending:
            ready, pending = ray.wait(pending, num_returns=1)
            try:
                ray.get(ready)
            except ray.exceptions.RayTaskError as err:
                for ref in pending:
                    ray.cancel(ref, force=False)
                cause = err.cause
                raise (cause if isinstance(cause, CryfedError) else err) from None
            done += 1
            if on_done is not None:
                on_done(done, len(refs))
        return list(ray.get(refs))


def _require_answer(address: str) -> None:
    """Ask the port before Ray does: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS).close()
    except (OSError, ValueError) as err:
        raise ConfigError(
            f"no Ray cluster answers at {address} ({err}): start one (`ray start --head`), or unset RAY_ADDRESS and "
            "compute.ray_address to use a local one"
        ) from None


def _stay_on_loopback() -> None:
    """Make Ray take 127.0.0.1 as this node's address.

    Ray replaces a loopback `_node_ip_address` by the machine's own address, unless it believes itself where clusters are not
    supported. It reads the variable on import; its child processes inherit it.
    """
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    if "ray._private.ray_constants" in sys.modules:
        sys.modules["ray._private.ray_constants"].ENABLE_RAY_CLUSTER = False  # type: ignore[attr-defined]


@contextmanager
def _quiet_head_node() -> Iterator[None]:
    """Start a head node without its API server and its autoscaler monitor.

    Even with dashboard and usage statistics off, the API server asks the cloud's metadata address where it runs, and the monitor
    listens on all interfaces. A local cluster needs neither, and Ray has no switch for them; the version is pinned.
    """
    from ray._private.node import Node

    started = Node.start_api_server, Node.start_monitor

    def no_api_server(node: Any, **_: Any) -> None:
        node._webui_url = None

    Node.start_api_server, Node.start_monitor = no_api_server, lambda _node: None
    try:
        yield
    finally:
        Node.start_api_server, Node.start_monitor = started


def _call(fn: Callable[[Any], Any], item: Any) -> Any:
    import torch

    torch.set_num_threads(1)
    return fn(item)


@contextmanager
def cluster(settings: ComputeSettings, *, temp_dir: Path | None = None) -> Iterator[Cluster]:
    """Connect to the cluster of the settings or RAY_ADDRESS, or start a local one and stop it afterwards.

    Raises:
        ConfigError: the address does not answer.
    """
    quiet.apply()
    address = settings.ray_address or os.environ.get("RAY_ADDRESS") or None
    if address in (None, "local") or str(address).startswith(_LOOPBACK):
        _stay_on_loopback()
    import ray

    common: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "runtime_env": {"env_vars": {**quiet.QUIET, **_ONE_THREAD}},
        "configure_logging": True,
    }
    if address and address != "local":
        _require_answer(address)
        ray.init(address=address, **common)
    else:
        with _quiet_head_node():
            ray.init(
                address="local",
                num_cpus=settings.cpus or os.cpu_count() or 1,
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                _system_config=_KEEP_WORKERS,
                _node_ip_address=_LOOPBACK,
                _temp_dir=str(temp_dir) if temp_dir else None,
                **common,
            )
    try:
        yield Cluster(ray.get_runtime_context().gcs_address)
    finally:
        ray.shutdown()
