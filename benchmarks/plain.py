"""The best plain PyTorch loops for the federation's rounds: no messages, no masks, no files, the same θ to the bit.

`models.plain_loop` does the sites one after the other. Here two workers share them, each with a network of its own: threads of
one process, or two processes. θ, c and C go to both, Σ levels comes back; integers, so the sum does not depend on who does which
site. The rotation is set up once per worker and round, and by the caller while the workers train.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Final, Protocol
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import torch

from infra.federation.base import load_base
from infra.federation.job import FederationJob
from infra.federation.tokens import features_digest, load_site_tokens
from models import local_step
from models.adapters import Vector
from models.control_variates import Control, Variate, as_sent
from models.local_step import TokenSet
from models.network import CryNet
from models.quantise import Quantiser, next_clip
from models.seeds import local_seed, rotation_seed
from models.server_step import RoundSum, ServerState, server_step
from models.site_update import site_update

Levels = npt.NDArray[np.uint32]
Part = tuple[Levels, int]  # Σ levels, and how many sites lay within the clipping norm

_ORDER: Final = struct.Struct("<qd")  # round, C; then θ and c
_INSIDE: Final = struct.Struct("<q")  # then Σ levels


@dataclass
class Share:
    """Some of the sites, with their control variates."""

    job: FederationJob
    net: CryNet
    sites: Mapping[str, TokenSet]
    own: dict[str, Variate] = field(default_factory=dict)

    @classmethod
    def load(cls, job: FederationJob, names: Sequence[str]) -> Share:
        """From the base model and the token caches of the job's own sites; shares no memory with another."""
        net, base = load_base(job.base_model, job.model(), job.reasons)
        sites = {}
        for name in names:
            spec = job.site(name)
            assert spec.features is not None
            digest = features_digest(spec.features)
            sites[name] = load_site_tokens(spec.features, spec.folder, net, base, digest).train
        return cls(job, net, sites)

    def compute(self, number: int, theta: Vector, control: Vector, clip: float) -> Part:
        """A round of these sites."""
        quantiser, cfg = quantiser_of(self.job, number, theta.size, clip), self.job.local_config()
        levels, inside = np.zeros(quantiser.padded, np.uint32), 0
        for name, data in self.sites.items():
            own = self.own.setdefault(name, np.zeros(theta.shape))
            update = site_update(
                self.net, data, theta, cfg, local_seed(self.job.seed, name, number),
                control=Control(control, own), quantiser=quantiser,
            )  # fmt: skip
            assert update.levels is not None
            assert update.variate is not None
            levels += update.levels
            inside += update.inside
            self.own[name] = update.variate
        return levels, inside


def quantiser_of(job: FederationJob, number: int, size: int, clip: float) -> Quantiser:
    """The codec of a round."""
    codec = job.plan().codec
    assert codec is not None
    return Quantiser(size, codec, rotation_seed(job.seed, number), clip)


class Worker(Protocol):
    """Does a share of every round."""

    def start(self, number: int, theta: Vector, control: Vector, clip: float) -> None:
        """Begin a round."""
        ...

    def result(self) -> Part:
        """Wait for it."""
        ...


def train(
    job: FederationJob, theta: Vector, workers: Sequence[Worker], on_round: Callable[[], None]
) -> Vector:
    """`models.plain_loop.run_rounds` over workers: θ after the last round."""
    plan, n = job.plan(), len(job.sites)
    assert plan.codec is not None
    state = ServerState.initial(theta, plan.codec.clip)
    for number in range(1, job.rounds + 1):
        for worker in workers:
            worker.start(number, state.theta, as_sent(state.control), state.clip)
        quantiser = quantiser_of(job, number, theta.size, state.clip)
        levels, inside = np.zeros(quantiser.padded, np.uint32), 0
        for worker in workers:
            part, within = worker.result()
            levels += part
            inside += within
        total = RoundSum(quantiser.decode_sum(levels, n), n, inside)
        state = server_step(state, total, job.server_config(), registered=n, reference=plan.reference)
        state = replace(state, clip=next_clip(state.clip, inside, n, plan.codec))
        on_round()
    return state.theta


class ThreadWorker:
    """A thread of this process, with a network of its own."""

    def __init__(self, pool: ThreadPoolExecutor, share: Share) -> None:
        self._pool, self._share = pool, share
        self._future: Future[Part] | None = None

    def start(self, number: int, theta: Vector, control: Vector, clip: float) -> None:
        """See `Worker`."""
        self._future = self._pool.submit(self._share.compute, number, theta, control, clip)

    def result(self) -> Part:
        """See `Worker`."""
        assert self._future is not None
        return self._future.result()


class ProcessWorker:
    """A process of its own with one thread; plain bytes over a pipe."""

    def __init__(self, job: FederationJob, names: Sequence[str]) -> None:
        context = get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, job, names), daemon=True)
        self._process.start()
        other.close()

    def start(self, number: int, theta: Vector, control: Vector, clip: float) -> None:
        """See `Worker`."""
        self._pipe.send_bytes(_ORDER.pack(number, clip) + theta.tobytes() + control.tobytes())

    def result(self) -> Part:
        """See `Worker`."""
        data = self._pipe.recv_bytes()
        return np.frombuffer(data, np.uint32, offset=_INSIDE.size), _INSIDE.unpack_from(data)[0]


def _serve(pipe: Connection[Any, Any], job: FederationJob, names: Sequence[str]) -> None:
    torch.set_num_threads(1)
    share = Share.load(job, names)
    while True:
        try:
            data = pipe.recv_bytes()
        except EOFError:
            return
        number, clip = _ORDER.unpack_from(data)
        theta, control = np.frombuffer(data, np.float32, offset=_ORDER.size).reshape(2, -1)
        levels, inside = share.compute(number, theta, control, clip)
        pipe.send_bytes(_INSIDE.pack(inside) + levels.tobytes())


def halves(job: FederationJob) -> tuple[Sequence[str], Sequence[str]]:
    """The sites in two shares."""
    return job.site_names[0::2], job.site_names[1::2]


@contextmanager
def two_torch_threads() -> Iterator[None]:
    """Let the local step use two threads inside its operations; it takes one by itself, because the bits depend on it."""
    torch.set_num_threads(2)
    try:
        with patch.object(local_step, "one_thread", nullcontext):
            yield
    finally:
        torch.set_num_threads(1)
