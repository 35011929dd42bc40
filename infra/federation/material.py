"""What a site learns from in a job, tokens or the gate's frames, kept in memory as long as there is room.

The files are a quick read away, so the memory is a convenience: whatever process answers a request may have to read them again.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infra.federation.gate_frames import GateFrames, load_gate_frames
from infra.federation.job import FederationJob, SiteSpec
from infra.federation.own_features import current
from infra.federation.tokens import SiteTokens, load_site_tokens, material_digest
from models.adapters import Trained
from models.errors import ConfigError
from models.gate_batches import AugmentConfig
from models.network import CryNet

Material = SiteTokens | GateFrames

_CACHE_BYTES: Final = 256 * 2**20  # per process


@dataclass(frozen=True)
class Wanted:
    """What a job has its sites learn: which parameters, from which public noise, and how the gate's batches are altered."""

    trained: Trained = "adapters"
    public: Path | None = None
    augment: AugmentConfig | None = None

    @classmethod
    def of(cls, job: FederationJob) -> Wanted:
        """The job's."""
        plan = job.plan()
        return cls(plan.trained, job.public, plan.augment)


def frames_of(spec: SiteSpec) -> Path:
    """The file of a site's frames: the one it brings, or the current one of those it extracted.

    Raises:
        DataError: it has extracted none.
    """
    return spec.features or current(spec.folder).file(spec.folder)


def named(spec: SiteSpec, wanted: Wanted) -> str:
    """SHA-256 of what the site learns from; errors as in `material_digest`."""
    return material_digest(frames_of(spec), wanted.public)


def material(spec: SiteSpec, net: CryNet, base_digest: str, wanted: Wanted) -> Material:
    """The site's material.

    Raises:
        DataError: the frames cannot be read or used.
        OutputError: the site's folder cannot be written.
    """
    return _memory.get(spec, net, base_digest, wanted)


def load(spec: SiteSpec, net: CryNet, base_digest: str, wanted: Wanted) -> Material:
    """Read it; errors as in `material`."""
    frames = frames_of(spec)
    if wanted.augment is None:
        digest = material_digest(frames, wanted.public)
        return load_site_tokens(frames, spec.folder, net, base_digest, digest, wanted.public)
    if wanted.public is None:
        raise ConfigError("the gate's own phase needs frames of public noise: give the job `public`")
    return load_gate_frames(frames, wanted.public, net, wanted.augment)


class _Memory:
    """Recently used sites' material in this process, bounded by bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: OrderedDict[tuple[str, ...], Material] = OrderedDict()

    def get(self, spec: SiteSpec, net: CryNet, base_digest: str, wanted: Wanted) -> Material:
        key = (_stamp(frames_of(spec)), _stamp(wanted.public), base_digest, str(wanted.augment))
        if key not in self._held:
            self._held[key] = load(spec, net, base_digest, wanted)
        self._held.move_to_end(key)
        while len(self._held) > 1 and sum(m.nbytes for m in self._held.values()) > self._limit:
            self._held.popitem(last=False)
        return self._held[key]


def _stamp(path: Path | None) -> str:
    """A path with its file's time and size."""
    if path is None or not path.is_file():
        return f"{path} absent"
    stat = path.stat()
    return f"{path} {stat.st_mtime_ns} {stat.st_size}"


_memory = _Memory(_CACHE_BYTES)
