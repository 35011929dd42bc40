"""A world without audio: infants whose tokens carry the pattern of their reason, and a plan that trains in seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from infra.data.synth.config import REASONS
from infra.experiments.cells import Setting
from infra.experiments.plans import QUICK
from infra.experiments.world import World
from infra.federation.files import encode_arrays
from models.config import preset
from models.frames import TEST, TRAIN, VAL
from models.local_step import LocalConfig
from models.network import CryNet
from models.state import to_arrays

PLAN = replace(
    QUICK,
    settings=(Setting(1.0, 0.5),),
    ablation_settings=(Setting(1.0, 0.5),),
    local=LocalConfig(steps=2, batch_size=8),
    rates=(0.05, 0.2),
    sites=4,
    rounds=5,
    tuning_rounds=3,
    seeds=(1, 2),
    ablation_seeds=1,
)


def write_world(path: Path, infants: int = 60, *, noisy: bool = False) -> Path:
    """Each infant has one cry of two frames and one other clip; a third of them are held out. `noisy` adds a view of the same."""
    cfg = preset(PLAN.preset)
    rng = np.random.default_rng(0)
    patterns = rng.standard_normal((len(REASONS), cfg.n_tokens, cfg.d_model))
    clips = 2 * infants
    gate = (np.arange(clips) % 2).astype(np.int8)
    infant = (np.arange(clips) // 2).astype(np.int32)
    reason = np.where(gate == 1, infant % len(REASONS), -1).astype(np.int16)
    part = np.choose(infant % 6, [TRAIN, TRAIN, TRAIN, TRAIN, VAL, TEST]).astype(np.int8)
    clip = np.repeat(np.arange(clips, dtype=np.int32), 2)
    tokens = 0.5 * rng.standard_normal((len(clip), cfg.n_tokens, cfg.d_model))
    cry = gate[clip] == 1
    tokens[cry] += patterns[reason[clip][cry]]
    view = np.zeros(len(clip), np.int16)
    if noisy:
        view = np.repeat(np.array([0, 1], np.int16), len(clip))
        tokens, clip = np.concatenate([tokens, tokens]), np.concatenate([clip, clip])
    weights = {
        f"weight/{name}": a
        for name, a in to_arrays(CryNet(cfg, REASONS, seed=5)).items()
        if "lora_" not in name and not name.startswith("reason_head.")
    }
    arrays = {
        "tokens": tokens.astype(np.float16), "clip": clip, "view": view,
        "gate": gate, "reason": reason, "part": part, "infant": infant,
    }  # fmt: skip
    path.write_bytes(encode_arrays({**arrays, **weights}))
    return path


def infants_of(world: World, part: int) -> set[int]:
    """Infants with a clip in a part."""
    return set(world.infant[world.part == part].tolist())
