"""The plans that the command runs: everything, or a quick look at the machinery."""

from __future__ import annotations

from dataclasses import replace

from infra.data.features import FeatureConfig
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
