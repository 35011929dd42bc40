"""The flows' parameters: what a person, a schedule or an event may choose. Checked here, once, before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from infra.edge.fleet.abort import AbortRule
from infra.edge.fleet.state import Policy

FleetName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
ReleaseName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]


class _Parameters(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SynthParameters(_Parameters):
    """The embedded default corpus, where no manifest is given. Everything made from it is labelled synthetic."""

    sites: int = Field(8, ge=2, le=64)
    infants_per_site: int = Field(24, ge=5, le=1000)
    cries_per_infant: int = Field(6, ge=1, le=50)
    noncries_per_site: int = Field(48, ge=5, le=5000)
    public_noise: int = Field(120, ge=20, le=5000)
    clip_seconds: float = Field(3.0, ge=1.0, le=60.0)
    difficulty: float = Field(1.0, ge=0.0, le=2.0)
    seed: int = Field(20251213, ge=0)


class SplitParameters(_Parameters):
    """Folds by group; the manifest's own folds are honoured."""

    folds: int = Field(5, ge=3, le=20)
    test_fold: int = Field(0, ge=0)
    val_fold: int = Field(1, ge=0)

    @model_validator(mode="after")
    def _distinct(self) -> SplitParameters:
        if max(self.test_fold, self.val_fold) >= self.folds:
            raise ValueError(f"test_fold and val_fold must be below folds={self.folds}")
        if self.test_fold == self.val_fold:
            raise ValueError("test_fold and val_fold must differ: selection may not touch the test fold")
        return self


class GateParameters(_Parameters):
    """The data-quality gate by itself."""

    manifest: Path = Field(description="CSV or Parquet, one row a clip")
    split: SplitParameters = SplitParameters()
    override: str | None = Field(
        None,
        min_length=10,
        max_length=500,
        description="reason to go on despite a critical failure; recorded",
    )


class RetrainParameters(_Parameters):
    """The whole pipeline, from audio to a published release."""

    manifest: Path | None = Field(
        None, description="CSV or Parquet of one's own clips; default: the synthesiser"
    )
    synth: SynthParameters = SynthParameters()
    split: SplitParameters = SplitParameters()
    preset: Literal["tiny", "compact", "paper"] = "compact"
    n_mels: Literal[64, 128] = 64
    causal: bool = False
    rounds: int | None = Field(None, ge=1, le=1000, description="federated rounds; default: the recipe's")
    gate_rounds: int | None = Field(
        None,
        ge=0,
        le=1000,
        description="rounds of the gate's own phase, in which the whole network learns; 0 leaves it out; default: the recipe's",
    )
    seed: int = Field(7, ge=0)
    override: str | None = Field(None, min_length=10, max_length=500)
    release: ReleaseName = "infant-cry"
    channel: Literal["dev", "staging"] = "dev"


class ReproduceParameters(_Parameters):
    """The paper's table."""

    quick: bool = Field(False, description="the machinery alone; the numbers mean nothing")
    full: bool = Field(False, description="all of the experiments and the evidence, too: many hours")
    again: bool = Field(
        False, description="run the pipeline although a run with the same parameters is there"
    )
    out: Path | None = Field(None, description="folder for table and trainings; default: RUNS/reproduce")

    @model_validator(mode="after")
    def _one_way(self) -> ReproduceParameters:
        if self.quick and self.full:
            raise ValueError("quick and full contradict each other: choose one")
        return self


class RolloutParameters(_Parameters):
    """How a release reaches a fleet, ring by ring."""

    patience_s: float = Field(
        900.0, gt=0, le=7 * 86_400, description="for a ring's devices to answer, and for one to install"
    )
    soak_s: float = Field(0.0, ge=0, le=30 * 86_400, description="that a ring runs before the next one opens")
    quorum: float = Field(
        0.8, gt=0, le=1, description="share of a ring's devices that have to answer before the next one opens"
    )
    base_rate: float = Field(
        0.002, gt=0, lt=0.5, description="share of devices that fail whatever they are given"
    )
    level: float = Field(0.01, gt=0, lt=0.5, description="chance, per ring, of stopping a good release")
    slower: float = Field(1.2, ge=1, le=10, description="tolerated growth of the p95 latency")
    device_slower: float = Field(2.0, ge=1, le=100, description="growth at which one device counts as failed")
    poll_s: float = Field(2.0, gt=0, le=3600, description="seconds between two looks at the reports")
    hold_s: float = Field(600.0, ge=0, description="how long a ring with too few answers is watched")

    @model_validator(mode="after")
    def _consistent(self) -> RolloutParameters:
        self.policy()
        return self

    def policy(self) -> Policy:
        """What is stored with the rollout."""
        rule = AbortRule(self.base_rate, self.level, self.slower, self.device_slower)
        return Policy(rule, self.patience_s, self.soak_s, self.quorum)


class DeployParameters(_Parameters):
    """A release onto a channel, and onto a fleet."""

    channel: Literal["dev", "staging", "prod"] = Field(
        description="where to; prod takes only what staging holds"
    )
    release: ReleaseName = "infant-cry"
    reference: str | None = Field(
        None,
        pattern=r"^([1-9][0-9]{0,8}|latest|dev|staging|prod|[0-9a-f]{64})$",
        description="version number, latest, a channel, or a manifest digest; default: what the channel before holds "
        "(dev → staging → prod), for dev the latest",
    )
    expect: str | None = Field(
        None,
        pattern=r"^(nothing|[0-9a-f]{64})$",
        description="manifest digest that the channel has to point at now, or `nothing`; default: whatever it points at",
    )
    clips: Path | None = Field(
        None,
        description="CSV or Parquet of clips on which it is compared with what the channel points at; default: no comparison",
    )
    margin: float = Field(
        0.05,
        ge=0,
        le=1,
        description="refused where the lower end of the difference, in AUROC or macro-F1, lies below minus this",
    )
    fleet: FleetName | None = Field(
        None, description="devices to take it to before the channel moves; default: no device"
    )
    rollout: RolloutParameters = RolloutParameters()
