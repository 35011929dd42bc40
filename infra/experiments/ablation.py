"""What each component is worth: the recipe with one thing changed at a time, and the recipe on harder and easier corpora.

    corpora                                     once for each difficulty
    a corpus, a seed, what is pretrained        one *world*: denoiser, tokenizer and backbone learn anew
    a world, an arm                             one training of adapters and heads by the federation's plain loop

What is trained before the federation (denoiser, tokenizer) needs a world of its own; what is trained in it (control variates,
proximal term, codec, rank) shares one. A seed redraws pretraining, partition, adapters, reason head and batches. One learning
rate serves all: it is the recipe's, tuned for none of the changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from infra.data.features import FeatureConfig
from infra.data.synth.config import SynthConfig
from infra.digest import digest_json
from infra.experiments.cells import Arm, Cell, Plan, Setting
from infra.experiments.world import WorldConfig
from models.config import ModelConfig, preset
from models.errors import ConfigError
from models.pretrain import BackboneConfig, DenoiserConfig

NOISY_DB = 0.0
"""The SNR that the worlds' held-out clips are rendered at once more, under noise of classes that training never heard."""


@dataclass(frozen=True)
class Base:
    """What is pretrained: with or without the denoiser, and which tokenizer."""

    denoiser: bool = True
    channels: float = 1.0  # the tokenizer's, as a multiple of the preset's
    n_mels: int = 64  # 128 bins are two bands, and twice the tokens a second

    def network(self, name: str) -> ModelConfig:
        """The preset with this tokenizer."""
        cfg = preset(name, n_mels=self.n_mels)
        c1, c2, c3 = (max(1, round(self.channels * c)) for c in cfg.tokenizer_channels)
        return replace(cfg, tokenizer_channels=(c1, c2, c3))


@dataclass(frozen=True)
class Change:
    """The recipe with one thing changed: in the arm, or in what is pretrained."""

    component: str
    title: str
    arm: Arm
    base: Base = field(default_factory=Base)


@dataclass(frozen=True)
class Training:
    """One training: a change on a corpus with a seed."""

    change: Change
    difficulty: float
    seed: int


@dataclass(frozen=True)
class AblationPlan:
    """All that is trained."""

    recipe: Change
    changes: tuple[Change, ...]
    difficulties: tuple[float, ...]  # the recipe alone; 1 is the benchmark's own, and the changes'
    plan: Plan  # of its fields: local, sites, rounds, preset
    world: WorldConfig
    lr: float
    setting: Setting
    seeds: tuple[int, ...] = (1, 2, 3)
    difficulty_seeds: int = 2
    resamples: int = 1000
    quick: bool = False

    def __post_init__(self) -> None:
        names = [change.arm.name for change in (self.recipe, *self.changes)]
        if len(set(names)) != len(names):
            raise ConfigError("an ablation needs changes of distinct names")

    @property
    def command(self) -> str:
        """What a person types to run it."""
        return "cryfed experiments --plan ablation" + (" --quick" if self.quick else "")

    def synth(self, difficulty: float) -> SynthConfig:
        """The corpus of a difficulty."""
        return replace(self.world.synth, difficulty=difficulty)

    def world_of(self, training: Training) -> WorldConfig:
        """The world that a training needs."""
        base = training.change.base
        denoiser = self.world.denoiser or DenoiserConfig()
        return replace(
            self.world,
            preset=base.network(self.plan.preset).to_dict(),
            synth=self.synth(training.difficulty),
            denoiser=replace(denoiser, seed=training.seed) if base.denoiser else None,
            backbone=replace(self.world.backbone, seed=training.seed),
        )

    def cell(self, training: Training) -> Cell:
        """The training as the experiments know it."""
        return Cell("measure", training.change.arm, self.setting, self.lr, training.seed)

    def plan_of(self, training: Training) -> Plan:
        """The plan with the network of a training's base."""
        return replace(self.plan, network=training.change.base.network(self.plan.preset).to_dict())

    def key(self, training: Training) -> str:
        """What a training's result is filed under: known before its world is made."""
        return self.plan_of(training).key(self.cell(training), digest_json(self.world_of(training).to_dict()))

    def trainings(self) -> Iterator[Training]:
        """All of them, every change of a seed before the next seed: a run that is broken off can still be read."""
        for seed in self.seeds:
            for change in (self.recipe, *self.changes):
                yield Training(change, 1.0, seed)
        for seed in self.seeds[: self.difficulty_seeds]:
            for difficulty in self.difficulties:
                if difficulty != 1.0:
                    yield Training(self.recipe, difficulty, seed)


def small_world(pretraining_steps: tuple[int, int], **corpus: Any) -> WorldConfig:
    """A world whose held-out clips come at `NOISY_DB` too; (denoiser, backbone) steps, and what its corpus differs in."""
    default = WorldConfig(preset("tiny").to_dict())
    denoiser, backbone = pretraining_steps
    return replace(
        default,
        synth=replace(default.synth, **corpus),
        pool=replace(default.pool, sites=2, infants_per_site=16, noncries_per_site=24),
        features=FeatureConfig(train_views=1, test_snrs=(NOISY_DB,)),
        denoiser=DenoiserConfig(steps=denoiser, threads=1),
        backbone=BackboneConfig(steps=backbone, threads=1),
    )
