"""The processes that `timing.Child` starts: one job, run by one means, one round for each line on stdin after the first.

python -m benchmarks.children KIND JOB.json

flower       the federation as it is: Flower on Ray, secure aggregation
staged       the same, with every exchange and every answer of a site timed (`stages`)
local        the same protocol without Flower and Ray: all sites in this process, one after the other
1x1          `models.plain_loop`: one process, one thread
1x2-torch    the same, two threads inside torch's operations
1x2-sites    one process, two threads that share the sites
2x1          two processes of one thread that share the sites
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from infra import quiet

quiet.apply()

from benchmarks import plain, stages  # noqa: E402  (telemetry is off before Ray or Flower are imported)
from infra.digest import digest_bytes  # noqa: E402
from infra.federation.base import load_base  # noqa: E402
from infra.federation.job import FederationJob, load_job  # noqa: E402
from infra.federation.rounds import federate  # noqa: E402
from infra.federation.site import open_site  # noqa: E402
from infra.federation.transport import LocalTransport  # noqa: E402
from models.adapters import Vector, get_vector  # noqa: E402
from models.plain_loop import Algorithm, run_rounds  # noqa: E402
from models.threads import one_thread  # noqa: E402

FEDERATED = ("flower", "local")
PLAIN = ("1x1", "1x2-torch", "1x2-sites", "2x1")

Tick = Callable[[], None]


class Gate:
    """Tells of every round, and holds the next one until it is asked for."""

    def __init__(self, rounds: int) -> None:
        self._left = rounds
        self._out = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)  # what libraries print is no event

    def round(self) -> None:
        """A round is over."""
        self._left -= 1
        self._tell({"event": "round"})
        if self._left and not sys.stdin.buffer.readline():
            os._exit(0)

    def done(self, theta_digest: str) -> None:
        """All of them are; stays until nobody looks at the process any more."""
        self._tell({"event": "done", "theta_digest": theta_digest})
        sys.stdin.buffer.read()

    def _tell(self, event: dict[str, Any]) -> None:
        self._out.write(json.dumps(event) + "\n")


def train_plain(kind: str, job: FederationJob, tick: Tick) -> Vector:
    """One of the plain loops, from the same base model and the same token caches as the sites'."""
    if kind in ("2x1", "1x2-sites"):
        theta = get_vector(load_base(job.base_model, job.model(), job.reasons)[0])
        if kind == "2x1":
            return plain.train(
                job, theta, [plain.ProcessWorker(job, names) for names in plain.halves(job)], tick
            )
        with one_thread(), ThreadPoolExecutor(2) as pool:
            shares = [plain.Share.load(job, names) for names in plain.halves(job)]
            return plain.train(job, theta, [plain.ThreadWorker(pool, share) for share in shares], tick)
    all_sites = plain.Share.load(job, job.site_names)
    with plain.two_torch_threads() if kind == "1x2-torch" else one_thread():
        return run_rounds(
            all_sites.net, all_sites.sites, rounds=job.rounds, local=job.local_config(), server=job.server_config(),
            seed=job.seed, algorithm=Algorithm(control_variates=True, codec=job.plan().codec),
            on_round=lambda _round: tick(),
        )  # fmt: skip


def main(kind: str, path: Path) -> None:
    """Run the job."""
    job = load_job(path)
    gate = Gate(job.rounds)

    def emit(event: Any) -> None:
        if event["event"] == "round":
            assert event["survivors"] == len(job.sites), event
            gate.round()

    if kind in PLAIN:
        gate.done(digest_bytes(train_plain(kind, job, gate.round).tobytes()))
        return
    if kind == "local":
        with one_thread():
            sites = {name: open_site(str(path), name).handle for name in job.site_names}
            gate.done(federate(job, LocalTransport(sites), emit).theta_digest)
        return
    os.environ["RAY_ADDRESS"] = "local"
    os.environ["FLWR_HOME"] = str(job.checkpoint_dir.parent / "flower")
    if kind == "staged":
        gate.done(stages.simulate(path, emit).theta_digest)
        return
    from infra.federation.simulation import simulate

    gate.done(simulate(path, emit).theta_digest)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
    os._exit(0)
