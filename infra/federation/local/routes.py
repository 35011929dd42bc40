"""A site that gates, extracts and calibrates beside training: its own stages behind the federation's messages.

The server says what (the data plan, θ); the site's own description says of what and where (its manifest, its folder) and whether
it goes on in spite of a failing gate. No message can name a file or override a gate.

    gate       plan          → rule ids, and whether the site lets its data be trained on
    features   plan          → the frames' digest
    calibrate  θ             → temperatures and thresholds

Imports of the stages wait for their message: a process that only trains needs no pandas and no Great Expectations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from infra.digest import digest_json
from infra.federation.job import SiteSpec
from infra.federation.material import Wanted
from infra.federation.messages import CALIBRATE, FEATURES, GATE, Envelope
from infra.federation.site import Answer, Site, locate_site
from models.errors import ConfigError, FederationError, UpdateRejected
from models.network import CryNet

if TYPE_CHECKING:
    from infra.federation.local.steps import SiteData


class LocalSite(Site):
    """Answers `gate`, `features` and `calibrate` too, where the site brings recordings."""

    def __init__(
        self,
        spec: SiteSpec,
        net: CryNet,
        base_digest: str,
        base: Path,
        pinned: Mapping[str, str | None] | None = None,
        wanted: Wanted | None = None,
    ) -> None:
        super().__init__(spec, net, base_digest, pinned, wanted)
        self._base_file = base

    def routes(self) -> Mapping[str, Callable[[Envelope], Answer]]:
        """See `Site.routes`."""
        own = {GATE: self._gate, FEATURES: self._features, CALIBRATE: self._calibrate}
        return {**super().routes(), **own}

    def _gate(self, request: Envelope) -> Answer:
        from infra.federation.local.steps import check

        return check(self._data(request)).to_body(), b""

    def _features(self, request: Envelope) -> Answer:
        from infra.federation.local.steps import extract

        return extract(self._data(request)).to_body(), b""

    def _calibrate(self, request: Envelope) -> Answer:
        from infra.federation.local.steps import calibrate

        self._manifest()
        reply = calibrate(
            self._spec.name,
            self._spec.folder,
            network=self._net.cfg.to_dict(),
            reasons=self._net.reasons,
            base=self._base_file,
            theta=self._theta(request),
        )
        return reply.to_body(), b""

    def _data(self, request: Envelope) -> SiteData:
        from infra.federation.local.plan import DataPlan
        from infra.federation.local.steps import SiteData

        manifest, raw = self._manifest(), request.body.get("data")
        if not isinstance(raw, dict) or digest_json(raw) != request.header.config:
            raise UpdateRejected("the request must carry the data plan that its header names")
        try:
            plan = DataPlan.from_dict(raw)
        except ConfigError as err:
            raise UpdateRejected(str(err)) from None
        if plan.to_dict() != raw:
            raise UpdateRejected("the data plan must name every value, so that all sites mean the same")
        return SiteData(
            self._spec.name,
            manifest,
            self._spec.folder,
            plan,
            self._net.cfg.log_mel,
            self._net.reasons,
            override=self._spec.override,
        )

    def _manifest(self) -> Path:
        if self._spec.manifest is None:
            raise FederationError(
                f"site {self._spec.name!r} brings ready frames, not recordings: it has no stages of its own"
            )
        return self._spec.manifest


def open_local_site(
    job_path: str,
    which: int | str,
    *,
    manifest: str | None = None,
    folder: str | None = None,
    override: str | None = None,
) -> LocalSite:
    """The site of a job file, as `open_site`, with its own stages.

    Args:
        job_path: the job file.
        which: its place in aggregation order, or its name.
        manifest: the site's own manifest, in place of what the job says it brings.
        folder: the site's own folder, in place of the job's.
        override: the site's own reason to train although its gate fails.

    Raises:
        ConfigError: as `open_site`.
    """
    job, spec, net, digest = locate_site(job_path, which)
    own = spec.model_dump()
    if manifest is not None:
        own.update(manifest=Path(manifest).resolve(), features=None)
    if folder is not None:
        own["folder"] = Path(folder).resolve()
    if override is not None:
        own["override"] = override
    return LocalSite(SiteSpec(**own), net, digest, job.base_model, job.pinned, Wanted.of(job))
