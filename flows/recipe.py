"""What the flow's parameters mean for each stage: every stage's configuration, as plain JSON, in one place."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from flows.parameters import RetrainParameters
from infra.data.calls import CLIPS
from infra.data.features import FeatureConfig
from infra.data.synth.config import SynthConfig
from models.config import preset
from models.gate_batches import AugmentConfig
from models.gate_step import GateConfig
from models.gate_training import GATE_CODEC, GATE_SERVER
from models.local_step import LocalConfig
from models.pretrain import BackboneConfig, DenoiserConfig
from models.quantise import QuantiserConfig
from models.segmentation import VadConfig
from models.server_step import ServerConfig

Json = dict[str, Any]

POOL = SynthConfig(sites=6, seed=77)
"""The public pool for pretraining: other infants, rooms and microphones than any corpus, and no reasons."""

CODEC = QuantiserConfig(bits=8, clip=2.0, adaptive_quantile=0.5)
"""C follows the median site's norm: a fixed C leaves a floor of quantisation noise once updates shrink. It begins where the first
updates of `compact` lie; from 1.0, no site was within C in any of 8 rounds."""

ROUNDS = {"tiny": 6, "compact": 8, "paper": 12}
GATE_ROUNDS = {"tiny": 2, "compact": 20, "paper": 0}
"""Of the gate's own phase. All of `paper` would be 23 MB a round and site: adapters and heads alone, unless it is asked for."""
_TINY_POOL = SynthConfig(
    sites=2, infants_per_site=5, cries_per_infant=2, noncries_per_site=8, public_noise=20, clip_seconds=1.5, seed=77,
)  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """Configuration by stage."""

    synth: Json
    pool: Json
    split: dict[str, int]
    network: Json
    features: Json
    pretrain: Json
    negatives: Json
    cry_gate: Json | None
    federate: Json
    seed: int


def recipe(parameters: RetrainParameters) -> Recipe:
    """Spell the parameters out."""
    cfg = preset(parameters.preset, n_mels=parameters.n_mels, causal=parameters.causal)
    denoiser, backbone, local = DenoiserConfig(), BackboneConfig(), LocalConfig()
    if parameters.preset == "tiny":  # for tests and a quick look: minutes become seconds, and scores fall
        denoiser = replace(denoiser, steps=20, batch_size=16, threads=1)
        backbone = replace(backbone, steps=30, batch_size=16, threads=1)
        local = replace(local, steps=5)
    rounds = parameters.rounds or ROUNDS[parameters.preset]
    return Recipe(
        synth=parameters.synth.model_dump(),
        pool=(_TINY_POOL if parameters.preset == "tiny" else POOL).to_dict(),
        split=parameters.split.model_dump(),
        network=cfg.to_dict(),
        features={
            "log_mel": asdict(cfg.log_mel),
            "vad": asdict(VadConfig()),
            "features": FeatureConfig().to_dict(),
        },
        pretrain={"denoiser": asdict(denoiser), "backbone": asdict(backbone)},
        negatives={
            "log_mel": asdict(cfg.log_mel),
            "vad": asdict(VadConfig()),
            "calls": 16 if parameters.preset == "tiny" else CLIPS,
        },
        cry_gate=_cry_gate(parameters),
        federate={
            "rounds": rounds,
            "local": asdict(local),
            "server": asdict(ServerConfig()),
            "control_variates": True,
            "codec": asdict(CODEC),
        },
        seed=parameters.seed,
    )


def _cry_gate(parameters: RetrainParameters) -> Json | None:
    rounds = GATE_ROUNDS[parameters.preset] if parameters.gate_rounds is None else parameters.gate_rounds
    if rounds == 0:
        return None
    gate = GateConfig(rounds=rounds)
    if parameters.preset == "tiny":
        gate = replace(gate, local_steps=2)
    return {
        "rounds": rounds,
        "gate": asdict(gate),
        "augment": asdict(AugmentConfig()),
        "server": asdict(GATE_SERVER),
        "codec": asdict(GATE_CODEC),
    }
