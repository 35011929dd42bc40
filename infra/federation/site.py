"""One site's side of the federation: answers to messages, from the site's own files.

A site's process holds nothing between messages beyond caches that can be recomputed: what must last (`site_state`,
`masked_site`) is in the site's folder before an answer leaves, so a repeated request gets the same bytes, in whatever process
it is answered.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from infra.federation.base import load_base
from infra.federation.collect import Layout
from infra.federation.identity import load_identity, verification_key
from infra.federation.job import FederationJob, SiteSpec, load_job
from infra.federation.masked_site import MaskedRounds
from infra.federation.material import Wanted, material, named
from infra.federation.messages import (
    CONFIRM,
    HELLO,
    KEYS,
    PROTOCOL,
    SHARE,
    SITE_LOG,
    TO_EVERYONE,
    TRAIN,
    UNMASK,
    Envelope,
    refusal,
)
from infra.federation.private import Privacy, PrivateSteps
from infra.federation.secagg.context import MAX_CONTEXT_BYTES
from infra.federation.site_round import Contribution, contribute
from infra.federation.site_state import SiteStore
from infra.federation.training import RoundOrder, TrainingPlan, read_plan
from models.adapters import Vector, adapter_schema
from models.codec import Float32Codec
from models.config import ModelConfig
from models.errors import ConfigError, CryfedError, FederationError, UpdateRejected
from models.network import CryNet
from models.threads import one_thread

_LOG_BYTES = 2**20  # of a site's log of refusals; then it begins anew

_RUN: Final = re.compile(r"[0-9a-f]{64}")

Answer = tuple[dict[str, Any], bytes]  # body and payload


class Site:
    """Answers `hello` and `train` for one site."""

    def __init__(
        self,
        spec: SiteSpec,
        net: CryNet,
        base_digest: str,
        pinned: Mapping[str, str | None] | None = None,
        wanted: Wanted | None = None,
    ) -> None:
        self._spec = spec
        self._wanted = wanted or Wanted()
        self._pinned = {spec.name: spec.identity} if pinned is None else pinned
        self._net = net
        self._base = base_digest
        self._schema = adapter_schema(net, self._wanted.trained)
        self._codec = Float32Codec(self._schema)

    @property
    def max_payload(self) -> int:
        """Largest payload a request may have, bytes."""
        return 2 * self._codec.max_bytes + MAX_CONTEXT_BYTES  # θ and c, and a stage's own

    def handle(self, request: Envelope) -> Envelope:
        """The answer; an error of ours becomes a typed refusal that carries the request's header."""
        try:
            routes = self.routes()
            self._check(request, routes)
            with one_thread():
                body, payload = routes[request.header.action](request)
            return Envelope(request.header, body, payload)
        except CryfedError as err:
            self._record(request, err)
            return refusal(request.header, err, site=self._spec.name)

    def routes(self) -> Mapping[str, Callable[[Envelope], Answer]]:
        """What the site answers, by action."""
        stages = dict.fromkeys((SHARE, CONFIRM, UNMASK), self._stage)
        return {HELLO: self._hello, KEYS: self._keys, TRAIN: self._train, **stages}

    def _record(self, request: Envelope, error: CryfedError) -> None:
        """Keep the full reason of a refusal at the site; a folder that cannot be written changes no answer."""
        entry = {
            "action": request.header.action,
            "round": request.header.round,
            "type": type(error).__name__,
            "message": str(error),
        }
        path = self._spec.folder / SITE_LOG
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = not path.is_file() or path.stat().st_size > _LOG_BYTES
            with path.open("w" if fresh else "a", encoding="utf-8") as log:
                log.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def _check(self, request: Envelope, routes: Mapping[str, Any]) -> None:
        header, name = request.header, self._spec.name
        if header.protocol != PROTOCOL:
            raise FederationError(
                f"site {name!r} speaks protocol {PROTOCOL}, the server {header.protocol}: update the older one"
            )
        if header.action not in routes:
            raise FederationError(f"site {name!r} does not know the action {header.action!r}")
        if header.site != ("" if header.action in TO_EVERYONE else name):
            raise UpdateRejected(f"a message for site {header.site!r} reached site {name!r}")
        if header.schema != self._schema.digest or header.base != self._base:
            what = "base model" if header.base != self._base else "layout of the trained vector"
            raise UpdateRejected(
                f"site {name!r} has another {what} than the server: give both the same base model file"
            )

    def _hello(self, _request: Envelope) -> Answer:
        """The site's name and its features' digest; they are read here, so that a broken site shows at once."""
        material(self._spec, self._net, self._base, self._wanted)
        features = named(self._spec, self._wanted)
        identity = verification_key(load_identity(self._spec.folder)).hex()
        return {"site": self._spec.name, "features": features, "identity": identity}, b""

    def _keys(self, request: Envelope) -> Answer:
        """Enter an attempt at a masked round, if the site's variate is in step with it."""

        def settle(order: RoundOrder, epoch: int) -> None:
            size = read_plan(request.body, request.header.config).memory_size(self._schema.size)
            state = self._store(request).load(size)
            state.settle(epoch, order.included, self._spec.name)

        return {}, self._masked(request).keys(request, settle)

    def _stage(self, request: Envelope) -> Answer:
        """A stage of a masked round that needs nothing but the protocol's state."""
        return {}, self._masked(request).answers()[request.header.action](request)

    def _train(self, request: Envelope) -> Answer:
        """The site's contribution to a round, masked, or in the clear where plan and site allow it."""
        plan = read_plan(request.body, request.header.config)
        if plan.secure:
            at = self._codec.max_bytes * (2 if plan.control_variates else 1)
            return {}, self._masked(request).train(request, at, lambda d: self._contribute(request, plan, d))
        if self._spec.secure_only:
            raise FederationError(
                f"site {self._spec.name!r} sends nothing unmasked: the job needs secure aggregation"
            )
        found = self._contribute(request, plan, request.payload)
        layout = Layout(self._schema, plan, len(self._net.reasons))
        return {}, layout.encode(found.update, found.tally)

    def _masked(self, request: Envelope) -> MaskedRounds:
        return MaskedRounds(
            self._spec.name,
            self._store(request).folder,
            load_identity(self._spec.folder),
            self._pinned,
            self._schema.size,
            len(self._net.reasons),
            self._spec.smallest_cohort,
        )

    def _contribute(self, request: Envelope, plan: TrainingPlan, payload: bytes) -> Contribution:
        """What the site puts into the sums of the round that `request` belongs to; θ, and c behind it, are the payload."""
        order = RoundOrder.from_body(request.body)
        theta, control = self._models(payload, plan)
        return contribute(
            self._net,
            material(self._spec, self._net, self._base, self._wanted),
            self._store(request),
            site=self._spec.name,
            round_number=request.header.round,
            epoch=request.header.cv_epoch,
            theta=theta,
            control=control,
            plan=plan,
            order=order,
            steps=self._spec.steps,
            private=self._private(request.header.run),
        )

    def _private(self, run: str) -> PrivateSteps | None:
        if self._spec.privacy is None:
            return None
        privacy = Privacy.from_dict(self._spec.privacy)
        self._spec.folder.mkdir(parents=True, exist_ok=True)
        return PrivateSteps(privacy, privacy.ledger(self._spec.folder), run)

    def _store(self, request: Envelope) -> SiteStore:
        """The site's state of the request's run."""
        run = request.header.run
        if not _RUN.fullmatch(run):
            raise UpdateRejected(f"the request names its run as {run[:80]!r}, not by a SHA-256")
        return SiteStore(self._spec.folder, run)

    def _models(self, payload: bytes, plan: TrainingPlan) -> tuple[Vector, Vector | None]:
        """θ and c out of a payload."""
        if not plan.control_variates:
            return self._codec.decode(payload), None
        at = self._codec.max_bytes
        return self._codec.decode(payload[:at]), self._codec.decode(payload[at:])

    def _theta(self, request: Envelope) -> Vector:
        theta = self._codec.decode(request.payload)
        self._schema.check(theta, "the server's θ")
        return theta


@lru_cache(maxsize=2)
def _network(path: Path, _stamp: int, cfg: ModelConfig, reasons: tuple[str, ...]) -> tuple[CryNet, str]:
    return load_base(path, cfg, reasons)


def open_site(job_path: str, which: int | str) -> Site:
    """The site of a job file, by its place in aggregation order or by its name, as it trains and is tallied.

    Raises:
        ConfigError: the job or the base model cannot be read, or the job has no such site.
    """
    job, spec, net, digest = locate_site(job_path, which)
    return Site(spec, net, digest, job.pinned, Wanted.of(job))


def locate_site(job_path: str, which: int | str) -> tuple[FederationJob, SiteSpec, CryNet, str]:
    """The job, the site's description, and the base model with its digest; errors as in `open_site`."""
    job = load_job(Path(job_path))
    wanted = [s for i, s in enumerate(job.sites) if which in (i, s.name)]
    if not wanted:
        raise ConfigError(f"{job_path} has no site {which!r}: it has {', '.join(job.site_names)}")
    stamp = job.base_model.stat().st_mtime_ns if job.base_model.is_file() else 0
    net, digest = _network(job.base_model, stamp, job.model(), job.reasons)
    return job, wanted[0], net, digest
