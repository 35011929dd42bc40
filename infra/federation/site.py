"""One site's side of the federation: pure answers to messages, from the site's own files.

A site holds no state between messages beyond caches that can be recomputed: what it answers depends on the request, its features
and the base model alone, so a repeated request gets the same bytes, in whatever process it is answered.
"""

from __future__ import annotations

import contextlib
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.digest import digest_json
from infra.federation.base import load_base
from infra.federation.job import FederationJob, SiteSpec, load_job
from infra.federation.messages import (
    EVALUATE,
    HELLO,
    PROTOCOL,
    SITE_LOG,
    TO_EVERYONE,
    TRAIN,
    Envelope,
    refusal,
)
from infra.federation.own_features import current
from infra.federation.tokens import SiteTokens, features_digest, load_site_tokens
from models.adapters import adapter_schema, set_vector
from models.codec import Float32Codec
from models.config import ModelConfig
from models.errors import ConfigError, CryfedError, FederationError, UpdateRejected
from models.local_step import LocalConfig, local_step, one_thread
from models.network import CryNet
from models.predict import frame_scores

_CACHE_BYTES = 256 * 2**20  # tokens kept in memory per process; the files are a quick read away
_LOG_BYTES = 2**20  # of a site's log of refusals; then it begins anew

Answer = tuple[dict[str, Any], bytes]  # body and payload


class Site:
    """Answers `hello`, `train` and `evaluate` for one site."""

    def __init__(self, spec: SiteSpec, net: CryNet, base_digest: str) -> None:
        self._spec = spec
        self._net = net
        self._base = base_digest
        self._schema = adapter_schema(net)
        self._codec = Float32Codec(self._schema)

    @property
    def max_payload(self) -> int:
        """Largest payload a request may have, bytes."""
        return self._codec.max_bytes

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
        return {HELLO: self._hello, TRAIN: self._train, EVALUATE: self._evaluate}

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
        """The site's name and its features' digest; the tokens are computed here, so that a broken site shows at once."""
        self._tokens()
        return {"site": self._spec.name, "features": features_digest(frames_of(self._spec))}, b""

    def _train(self, request: Envelope) -> Answer:
        """Δ = θ − y of one local step, its losses and normaliser."""
        theta = self._theta(request)
        local, seed = request.body.get("local"), request.body.get("seed")
        if (
            not isinstance(local, dict)
            or not isinstance(seed, int)
            or digest_json(local) != request.header.config
        ):
            raise UpdateRejected(
                "a training request must carry the configuration its header names, and a seed"
            )
        try:
            cfg = LocalConfig(**local)
        except TypeError as err:
            raise UpdateRejected(
                f"the local step's configuration is not one of this version: {err}"
            ) from None
        result = local_step(self._net, self._tokens().train, theta, cfg, seed)
        losses = {name: float(value) for name, value in result.losses.items()}
        body = {"losses": losses, "normaliser": float(result.normaliser), "steps": int(result.steps)}
        return body, self._codec.encode(result.delta)

    def _evaluate(self, request: Envelope) -> Answer:
        """Confusion counts over the site's validation clips as recorded: integers, so that they can be summed under masks."""
        set_vector(self._net, self._theta(request))
        gate, reason = tally(self._net, self._tokens())
        return {"gate": gate.tolist(), "reason": reason.tolist()}, b""

    def _theta(self, request: Envelope) -> npt.NDArray[np.float32]:
        theta = self._codec.decode(request.payload)
        self._schema.check(theta, "the server's θ")
        return theta

    def _tokens(self) -> SiteTokens:
        return _memory.get(self._spec, self._net, self._base)


def tally(net: CryNet, data: SiteTokens) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Confusion counts (rows truth, columns decision): gate (2, 2) over all clips, reason (C, C) over cries.

    A clip is decided by the mean logit of its frames.
    """
    n = len(net.reasons)
    gate, reason = np.zeros((2, 2), np.int64), np.zeros((n, n), np.int64)
    scores = frame_scores(net, data.val.tokens)
    _, first, clip = np.unique(data.val_clip, return_index=True, return_inverse=True)
    sums = np.zeros((len(first), 1 + n))
    np.add.at(sums, clip, np.column_stack([scores.gate_logit, scores.reason_logits]).astype(np.float64))
    truth, label = data.val.gate[first].astype(np.int64), data.val.reason[first].astype(np.int64)
    np.add.at(gate, (truth, (sums[:, 0] > 0).astype(np.int64)), 1)
    cries = np.flatnonzero((truth == 1) & (label >= 0))
    np.add.at(reason, (label[cries], sums[cries, 1:].argmax(axis=1)), 1)
    return gate, reason


def frames_of(spec: SiteSpec) -> Path:
    """The file of a site's frames: the one it brings, or the current one of those it extracted.

    Raises:
        DataError: it has extracted none.
    """
    return spec.features or current(spec.folder).file(spec.folder)


class _TokenMemory:
    """Recently used sites' tokens in this process, bounded by bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: OrderedDict[tuple[str, str, str], SiteTokens] = OrderedDict()

    def get(self, spec: SiteSpec, net: CryNet, base_digest: str) -> SiteTokens:
        frames = frames_of(spec)
        stat = frames.stat() if frames.is_file() else None
        key = (str(frames), f"{stat.st_mtime_ns}-{stat.st_size}" if stat else "absent", base_digest)
        if key not in self._held:
            digest = features_digest(frames)
            self._held[key] = load_site_tokens(frames, spec.folder, net, base_digest, digest)
        self._held.move_to_end(key)
        while len(self._held) > 1 and sum(t.nbytes for t in self._held.values()) > self._limit:
            self._held.popitem(last=False)
        return self._held[key]


_memory = _TokenMemory(_CACHE_BYTES)


@lru_cache(maxsize=2)
def _network(path: Path, _stamp: int, cfg: ModelConfig, reasons: tuple[str, ...]) -> tuple[CryNet, str]:
    return load_base(path, cfg, reasons)


def open_site(job_path: str, which: int | str) -> Site:
    """The site of a job file, by its place in aggregation order or by its name, as it trains and is tallied.

    Raises:
        ConfigError: the job or the base model cannot be read, or the job has no such site.
    """
    _, spec, net, digest = locate_site(job_path, which)
    return Site(spec, net, digest)


def locate_site(job_path: str, which: int | str) -> tuple[FederationJob, SiteSpec, CryNet, str]:
    """The job, the site's description, and the base model with its digest; errors as in `open_site`."""
    job = load_job(Path(job_path))
    wanted = [s for i, s in enumerate(job.sites) if which in (i, s.name)]
    if not wanted:
        raise ConfigError(f"{job_path} has no site {which!r}: it has {', '.join(job.site_names)}")
    stamp = job.base_model.stat().st_mtime_ns if job.base_model.is_file() else 0
    net, digest = _network(job.base_model, stamp, job.model(), job.reasons)
    return job, wanted[0], net, digest
