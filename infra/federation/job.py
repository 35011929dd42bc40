"""The job document: everything a federation needs to know, as one JSON file that the simulation reads.

    job = FederationJob(sites=(SiteSpec(name="ward1", features=…, folder=…), …), base_model=…, network=cfg.to_dict(), …)
    job.save(path);  job = load_job(path)

Its *content* (not its paths, timeouts or core counts) has a digest together with the digests of the sites' features; the journal
is filed under it, so a run resumes only what it would have computed itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from infra.digest import canonical_json, digest_json
from infra.federation.files import write_atomic
from infra.federation.secagg.context import MIN_SITES, default_threshold
from infra.federation.training import TrainingPlan
from models.config import ModelConfig
from models.errors import ConfigError
from models.gate_batches import AugmentConfig
from models.gate_step import GateConfig
from models.local_step import LocalConfig
from models.quantise import QuantiserConfig
from models.server_step import ServerConfig

_MAX_JOB_BYTES = 4 * 2**20


class SiteSpec(BaseModel):
    """One site: its name, the folder that is its own, and what it brings: ready frames, or recordings.

    A site with a manifest gates, extracts and calibrates in its own process, into its own folder. A site with neither says itself
    what it brings, in the configuration of its node.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=120)
    features: Path | None = Field(None, description="its frames, safetensors")
    manifest: Path | None = Field(None, description="its recordings' table, with public noise beside them")
    folder: Path
    override: str | None = Field(None, description="its own reason to train although its gate fails")
    identity: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="its Ed25519 verification key, pinned: other sites and the server accept no other",
    )
    privacy: dict[str, Any] | None = Field(
        None,
        description="infant-level DP-SGD at the site: fields of PrivacyConfig, and `epsilon`, its budget over all runs",
    )
    steps: int = Field(0, ge=0, description="its own number of local steps; 0 takes the job's")
    smallest_cohort: int = Field(
        MIN_SITES, ge=MIN_SITES, description="it masks nothing for a sum over fewer sites than this"
    )
    secure_only: bool = Field(
        False, description="it answers no round in which its update would travel unmasked"
    )

    @model_validator(mode="after")
    def _one_source(self) -> SiteSpec:
        if self.features is not None and self.manifest is not None:
            raise ValueError("a site brings ready frames (features) or recordings (manifest), not both")
        return self

    def resolved(self, folder: Path) -> SiteSpec:
        """The same site with every path absolute."""
        paths = {name: getattr(self, name) for name in ("features", "manifest", "folder")}
        return self.model_copy(
            update={name: folder / path for name, path in paths.items() if path is not None}
        )


class FederationJob(BaseModel):
    """One federated training. Relative paths are relative to the job file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    sites: tuple[SiteSpec, ...] = Field(min_length=1)
    base_model: Path = Field(
        description="all weights of the pretrained network, safetensors; θ starts from its own"
    )
    network: dict[str, Any] = Field(description="ModelConfig.to_dict()")
    reasons: tuple[str, ...]
    rounds: int = Field(ge=1, le=100_000)
    local: dict[str, Any] = Field(default_factory=dict, description="fields of LocalConfig")
    gate: dict[str, Any] | None = Field(
        None,
        description="fields of GateConfig: the gate's own phase, in which tokenizer, backbone and heads learn instead of "
        "adapters and heads, without control variates",
    )
    augment: dict[str, Any] = Field(
        default_factory=dict, description="fields of AugmentConfig, for the gate's own phase"
    )
    public: Path | None = Field(
        None,
        description="frames of public noise, safetensors: every site learns from them that they are no cries",
    )
    codec: dict[str, Any] | None = Field(
        default_factory=dict, description="fields of QuantiserConfig; null sends float32, in the clear"
    )
    control_variates: bool = True
    secure: bool | None = Field(
        None, description="secure aggregation; null: wherever 3 sites and a codec allow it"
    )
    threshold: int | None = Field(
        None, description="sites that a masked sum needs; null: two thirds and one more"
    )
    server: dict[str, Any] = Field(default_factory=dict, description="fields of ServerConfig")
    data: dict[str, Any] | None = Field(
        None,
        description="DataPlan (`split`, `vad`, `features`): sites gate and extract by it first, and calibrate last; "
        "without it they bring ready frames",
    )
    seed: int = 0
    participation: float = Field(
        1.0, gt=0, le=1, description="share of sites asked per round, drawn from the seed"
    )
    min_sites: int = Field(1, ge=1, description="a round with fewer accepted updates stops the job")
    eval_every: int = Field(
        1,
        ge=0,
        description="validation tallies every so many rounds and after the last; 0 for none, and no votes",
    )
    upload_budget_mb: float | None = Field(
        3.3, gt=0, description="10⁶ bytes that a site may upload in a round before an alarm; null for none"
    )
    checkpoint_dir: Path
    out_dir: Path
    # how it runs, not what it computes
    retries: int = Field(
        2, ge=0, description="repeats of an exchange with a site whose process died or timed out"
    )
    timeout_s: float = Field(900.0, gt=0, description="per exchange")
    cpus: int | None = Field(None, ge=1, description="CPUs of the local Ray cluster")
    cpus_per_site: float = Field(
        1.0, gt=0, description="share of a CPU that one site's actor takes; each uses one thread"
    )

    @field_validator("sites")
    @classmethod
    def _ordered(cls, sites: tuple[SiteSpec, ...]) -> tuple[SiteSpec, ...]:
        """Sums are taken in the order of the names, whatever order they were listed in."""
        names = [site.name for site in sites]
        if len(set(names)) != len(names):
            raise ValueError(f"site names repeat: {sorted(n for n in set(names) if names.count(n) > 1)}")
        if len({site.folder for site in sites}) != len(sites):
            raise ValueError("two sites share a folder: each site's files stay in a folder of its own")
        return tuple(sorted(sites, key=lambda site: site.name))

    @model_validator(mode="after")
    def _consistent(self) -> FederationJob:
        if self.min_sites > self.sites_per_round:
            raise ValueError(
                f"min_sites={self.min_sites} can never be met: a round asks {self.sites_per_round} of {len(self.sites)} sites"
            )
        for what, build in (
            ("network", self.model),
            ("local", self.local_config),
            ("server", self.server_config),
            ("codec, gate", self.plan),
        ):
            try:
                build()
            except (TypeError, KeyError, ConfigError) as err:
                raise ValueError(f"{what}: {err}") from None
        least = default_threshold(self.sites_per_round)
        if self.threshold is not None and not least <= self.threshold <= self.sites_per_round:
            raise ValueError(
                f"threshold={self.threshold}: of {self.sites_per_round} sites a round it must lie in "
                f"{least}..{self.sites_per_round}, or two sums of one round could be had"
            )
        if self.secure and self.sites_per_round < MIN_SITES:
            raise ValueError(
                f"secure aggregation needs {MIN_SITES} sites a round, this job asks {self.sites_per_round}: from the sum of two, "
                "each would read the other's update"
            )
        if self.gate is not None and self.public is None:
            raise ValueError("the gate's own phase needs frames of public noise: give the job `public`")
        return self

    @property
    def site_names(self) -> tuple[str, ...]:
        """Names in aggregation order."""
        return tuple(site.name for site in self.sites)

    @property
    def pinned(self) -> dict[str, str | None]:
        """By site, the identity key that the job pins, if it does."""
        return {site.name: site.identity for site in self.sites}

    @property
    def sites_per_round(self) -> int:
        """How many sites are asked in a round."""
        return max(1, round(self.participation * len(self.sites)))

    def site(self, name: str) -> SiteSpec:
        """The site of that name."""
        return next(site for site in self.sites if site.name == name)

    def model(self) -> ModelConfig:
        """The network's configuration."""
        return ModelConfig.from_dict(self.network)

    def local_config(self) -> LocalConfig:
        """The local step's configuration."""
        return LocalConfig(**self.local)

    def plan(self) -> TrainingPlan:
        """How every site trains and sends."""
        codec = None if self.codec is None else QuantiserConfig(**self.codec)
        secure = self.secure
        if secure is None:
            secure = codec is not None and self.sites_per_round >= MIN_SITES
        gate = None if self.gate is None else GateConfig(**{**self.gate, "rounds": self.rounds})
        variates = self.control_variates and gate is None
        augment = None if gate is None else AugmentConfig(**self.augment)
        return TrainingPlan(self.local_config(), codec, variates, secure, gate, augment)

    def server_config(self) -> ServerConfig:
        """The server step's configuration."""
        return ServerConfig(**self.server)

    def evaluates(self, round_number: int) -> bool:
        """Whether the round ends with a validation tally."""
        return self.eval_every > 0 and (round_number % self.eval_every == 0 or round_number == self.rounds)

    def content_digest(self, base: str, features: Mapping[str, str]) -> str:
        """Digest of all that decides θ and the history: configuration, base model, and the sites' features by name."""
        paths = {
            "sites",
            "data",  # what it decides is in the digests of the features
            "base_model",
            "public",  # its digest is part of what the sites call their features
            "checkpoint_dir",
            "out_dir",
            "retries",
            "timeout_s",
            "cpus",
            "cpus_per_site",
        }
        document = self.model_dump(mode="json", exclude=paths)
        steps = {site.name: site.steps for site in self.sites if site.steps}
        return digest_json(
            {
                "job": document,
                "base": base,
                "features": {n: features[n] for n in self.site_names},
                "steps": steps,
            }
        )

    def save(self, path: Path) -> None:
        """Write the document, atomically, with absolute paths.

        Raises:
            OutputError: the folder cannot be written.
        """
        write_atomic(path, canonical_json(self.resolved(Path.cwd()).model_dump(mode="json")) + b"\n")

    def resolved(self, folder: Path) -> FederationJob:
        """The same job with every path absolute."""
        sites = tuple(s.resolved(folder) for s in self.sites)
        paths = {name: getattr(self, name) for name in ("base_model", "public", "checkpoint_dir", "out_dir")}
        own = {name: folder / path for name, path in paths.items() if path is not None}
        return self.model_copy(update={"sites": sites, **own})


def load_job(path: Path) -> FederationJob:
    """Read and check a job document.

    Raises:
        ConfigError: missing, too large, not JSON, or a field is wrong; the message names it.
    """
    try:
        if path.stat().st_size > _MAX_JOB_BYTES:
            raise ConfigError(f"{path} is larger than a federation job can be ({_MAX_JOB_BYTES} bytes)")
        job = FederationJob.model_validate_json(path.read_bytes())
    except OSError as err:
        raise ConfigError(f"cannot read the federation job {path}: {err.strerror}") from None
    except ValidationError as err:
        lines = [f"  {'.'.join(str(p) for p in e['loc']) or 'job'}: {e['msg']}" for e in err.errors()]
        raise ConfigError(f"{path} is not a valid federation job:\n" + "\n".join(lines)) from None
    return job.resolved(path.resolve().parent)
