"""The plans that the command runs: everything, or a quick look at the machinery."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from infra.data.features import FeatureConfig
from infra.experiments.ablation import AblationPlan, Base, Change, small_world
from infra.experiments.cells import Arm, Plan, Setting
from infra.experiments.world import WorldConfig
from models.config import preset
from models.local_step import LocalConfig
from models.pretrain import BackboneConfig, DenoiserConfig
from models.quantise import QuantiserConfig

MU = 0.1
"""μ of the proximal arms. The default of a job, 0.01, moves these curves by less than their noise."""

ARMS = (
    Arm("average", "Averaging (FedAvg)"),
    Arm("prox", "+ proximal term", prox_mu=MU),
    Arm("cv", "+ control variates", control_variates=True),
    Arm("cv_prox", "+ both", control_variates=True, prox_mu=MU),
)
ABLATIONS = (
    Arm("cv_8bit", "8 bit", control_variates=True, codec=QuantiserConfig(bits=8), tuned_as="cv"),
    Arm("cv_4bit", "4 bit", control_variates=True, codec=QuantiserConfig(bits=4), tuned_as="cv"),
    Arm("cv_4bit_ffa", "4 bit, A frozen", control_variates=True, codec=QuantiserConfig(bits=4), freeze_a=True),
    Arm("cv_option_1", "Option I", control_variates=True, option="I", tuned_as="cv"),
)  # fmt: skip
QUESTIONS = (
    ("cv", "average", "control variates"),
    ("cv_prox", "prox", "control variates, beside a proximal term"),
    ("prox", "average", "a proximal term"),
    ("cv_8bit", "cv", "8 bit instead of float32"),
    ("cv_4bit", "cv", "4 bit instead of float32"),
    ("cv_4bit_ffa", "cv", "4 bit and frozen A instead of float32"),
    ("cv_option_1", "cv", "option I instead of option II"),
)
SETTINGS = tuple(Setting(alpha, share) for share in (1.0, 0.5) for alpha in (100.0, 1.0, 0.1))

FULL = Plan(
    arms=ARMS,
    ablations=ABLATIONS,
    settings=SETTINGS,
    ablation_settings=(Setting(0.1, 1.0),),
    local=LocalConfig(steps=5, batch_size=16),
    rates=(0.05, 0.1, 0.2, 0.4),
    questions=QUESTIONS,
    tuning_rounds=20,
)
FULL_WORLD = WorldConfig(preset(FULL.preset).to_dict())

SMALL = replace(
    FULL, ablations=(), ablation_settings=(), arms=tuple(a for a in ARMS if a.name in ("average", "cv")), settings=SETTINGS[:3],
    questions=QUESTIONS[:1], rates=(0.1, 0.2), rounds=40, tuning_rounds=10, seeds=(1, 2, 3),
)  # fmt: skip
"""Control variates against averaging alone, where all sites are asked: 18 trainings and 12 short ones instead of 240."""

QUICK = replace(
    FULL, settings=(Setting(0.1, 0.5),), ablation_settings=(Setting(0.1, 0.5),), local=LocalConfig(steps=2, batch_size=8),
    rates=(0.1, 0.4), rounds=6, tuning_rounds=3, seeds=(1, 2), ablation_seeds=1,
)  # fmt: skip
QUICK_WORLD = replace(
    FULL_WORLD,
    synth=replace(FULL_WORLD.synth, sites=2, infants_per_site=30, noncries_per_site=30, public_noise=20, clip_seconds=1.5),
    pool=replace(FULL_WORLD.pool, sites=2, infants_per_site=5, cries_per_infant=2, noncries_per_site=8, clip_seconds=1.5),
    features=FeatureConfig(train_views=0, test_snrs=()),
    denoiser=DenoiserConfig(steps=5, batch_size=8, threads=1),
    backbone=BackboneConfig(steps=10, batch_size=16, threads=1),
)  # fmt: skip

RECIPE = Change(
    "recipe",
    "The recipe",
    Arm(
        "recipe",
        "The recipe",
        control_variates=True,
        prox_mu=0.01,
        codec=QuantiserConfig(bits=8, clip=2.0, adaptive_quantile=0.5),
    ),
)
"""What `retrain` does at the preset `tiny`: control variates, proximal term, 8 bits, rank 4, behind a pretrained denoiser."""


def _changed(name: str, component: str, title: str, base: Base | None = None, **arm: Any) -> Change:
    return Change(component, title, replace(RECIPE.arm, name=name, title=title, **arm), base or Base())


CHANGES = (
    _changed("no_denoiser", "denoiser", "no denoiser", Base(denoiser=False)),
    _changed("no_variates", "control variates", "no control variates", control_variates=False),
    _changed("no_prox", "proximal term", "no proximal term", prox_mu=0.0),
    _changed("float32", "codec", "float32 instead of 8 bit", codec=None),
    _changed("half_channels", "tokenizer", "half of the tokenizer’s channels", Base(channels=0.5)),
    _changed("double_channels", "tokenizer", "twice the tokenizer’s channels", Base(channels=2.0)),
    _changed("two_bands", "tokenizer", "128 mel bins: 48 tokens a second", Base(n_mels=128)),
    _changed("rank_8", "rank", "rank 8 instead of 4", rank=8),
    _changed("rank_16", "rank", "rank 16", rank=16),
    _changed("rank_32", "rank", "rank 32", rank=32),
    _changed("rank_64", "rank", "rank 64", rank=64),
)
ABLATION = AblationPlan(
    recipe=RECIPE,
    changes=CHANGES,
    difficulties=(0.5, 1.0, 1.5, 2.0),
    plan=replace(FULL, rounds=30),
    world=small_world(
        (60, 500), infants_per_site=40, noncries_per_site=16, public_noise=30, clip_seconds=1.5
    ),
    lr=0.2,
    setting=Setting(1.0, 1.0),
)
ABLATION_QUICK = replace(
    ABLATION,
    changes=tuple(c for c in CHANGES if c.arm.name in ("no_denoiser", "no_variates", "rank_8")),
    difficulties=(1.0, 2.0),
    plan=replace(FULL, sites=2, rounds=3, local=LocalConfig(steps=2, batch_size=8)),
    world=small_world((3, 6), sites=2, infants_per_site=20, noncries_per_site=12, public_noise=20, clip_seconds=1.5),
    seeds=(1, 2), difficulty_seeds=1, resamples=100, quick=True,
)  # fmt: skip
