"""The federation in one place: Flower's simulation runtime on Ray, as a process of its own.

    python -m infra.federation.simulation JOB.json [--with-parent]

Progress goes to stdout as JSON lines (`start`, `round`, `done`, or `error`), everything the libraries say to stderr. Exit code 0
after `done`, 1 after `error`. RAY_ADDRESS names a cluster to use; otherwise a local one is started on loopback and stopped.
`--with-parent` ends the process when its stdin closes, so that a killed caller leaves nothing behind.

It must not share a process with another user of Ray: Flower's backend shuts Ray down when it is done.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from infra import quiet

quiet.apply()

from infra.compute import cluster  # noqa: E402  (telemetry is off before Ray or Flower are imported)
from infra.federation.job import FederationJob, load_job  # noqa: E402
from infra.federation.results import FederationResult  # noqa: E402
from infra.federation.rounds import Emit  # noqa: E402
from infra.settings import ComputeSettings  # noqa: E402
from models.errors import CryfedError, FederationError  # noqa: E402

_DISPATCH_S = 0.02


def simulate(job_path: Path, emit: Emit, *, client: Any = None) -> FederationResult:
    """Run the job file's federation on Ray through Flower; `client` replaces the sites' own ClientApp.

    Raises:
        CryfedError: as `federate`; ConfigError where Ray cannot be reached; FederationError where the runtime itself fails.
    """
    from flwr.simulation import run_simulation

    from infra.federation import client_app, server_app

    job = load_job(job_path)
    results: list[FederationResult] = []
    failures: list[CryfedError] = []

    def find_job(_context: Any) -> FederationJob:
        return job

    server = server_app.build_app(find_job, emit, results.append)
    with cluster(ComputeSettings(cpus=job.cpus)), _quick_dispatch():
        try:
            run_simulation(
                server_app=server,
                client_app=client or client_app.simulated_app(str(job_path.resolve())),
                num_supernodes=len(job.sites),
                backend_config={"client_resources": actor_resources(job)},
            )
        except CryfedError as err:
            failures.append(err)
        except Exception as err:
            raise FederationError(f"Flower's simulation runtime failed: {type(err).__name__}: {err}") from err
    if failures:
        raise failures[0]
    if not results:
        raise FederationError("Flower's simulation runtime ended before the federation did")
    return results[0]


@contextlib.contextmanager
def _quick_dispatch() -> Iterator[None]:
    """Hand messages to the actors within `_DISPATCH_S`; Flower's own thread looks every 100 ms, five times a masked round."""
    from flwr.server.superlink.fleet.vce import vce_api

    def dispatch(state: Any, queue: Any, nodes_mapping: Any, f_stop: Any) -> None:
        while not f_stop.is_set():
            for node in nodes_mapping:
                for message in state.get_message_ins(node_id=node, limit=1):
                    queue.put(message)
            f_stop.wait(_DISPATCH_S)

    theirs = vce_api.add_messages_to_queue
    vce_api.add_messages_to_queue = dispatch
    try:
        yield
    finally:
        vce_api.add_messages_to_queue = theirs


def actor_resources(job: FederationJob) -> dict[str, float]:
    """One thread per actor, no more actors than sites, and actors that come back after a crash.

    Flower fills every node with as many actors as fit; on a large cluster the share is raised so that they are not more than
    there are sites. Without `max_restarts` a dead actor is handed every later message of its place in the pool.
    """
    import ray

    nodes = [float(node["Resources"].get("CPU", 0.0)) for node in ray.nodes() if node["Resources"]]
    share = job.cpus_per_site
    while sum(int(cpus / share) for cpus in nodes) > len(job.sites) and share * 1.25 <= max(nodes):
        share *= 1.25
    if sum(int(cpus / share) for cpus in nodes) == 0:
        raise FederationError(
            f"the Ray cluster has no node with {share:g} free CPUs for a site's actor: lower cpus_per_site or add a node"
        )
    return {"num_cpus": share, "num_gpus": 0, "max_restarts": -1}


def _claim_stdout() -> Emit:
    """Keep stdout for our own lines: what libraries print goes to stderr from here on."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)

    def emit(event: Mapping[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):
            stream.write(json.dumps(event, sort_keys=True) + "\n")

    return emit


def _end_with_parent() -> None:
    """Leave as soon as stdin closes; the journal makes an abrupt end safe."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os._exit(3)

    threading.Thread(target=watch, daemon=True).start()


def main(arguments: Sequence[str]) -> int:
    """Command line of the simulation process."""
    paths = [a for a in arguments if not a.startswith("--")]
    if len(paths) != 1 or set(arguments) - set(paths) - {"--with-parent"}:
        sys.stderr.write("usage: python -m infra.federation.simulation JOB.json [--with-parent]\n")
        return 2
    emit = _claim_stdout()
    if "--with-parent" in arguments:
        _end_with_parent()
    try:
        simulate(Path(paths[0]), emit)
    except CryfedError as err:
        emit({"event": "error", "type": type(err).__name__, "message": str(err)})
        return 1
    except Exception as err:
        traceback.print_exc()
        emit(
            {
                "event": "error",
                "type": "FederationError",
                "message": f"unexpected {type(err).__name__}: {err}",
            }
        )
        return 1
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads of a failed runtime may wait for ever
