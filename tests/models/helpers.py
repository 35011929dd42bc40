"""Small made-up sites whose classes can be learned from their tokens."""

from __future__ import annotations

import numpy as np

from models.config import preset
from models.frames import SiteFrames
from models.local_step import TokenSet
from models.network import CryNet

REASONS = ("a", "b", "c")


def tiny_net(seed: int = 0) -> CryNet:
    return CryNet(preset("tiny"), REASONS, seed=seed)


def made_up_tokens(seed: int, n: int = 60, classes: int = 3) -> TokenSet:
    """Cries of reason k carry pattern k; non-cries carry none."""
    cfg = preset("tiny")
    patterns = np.random.default_rng(99).standard_normal((classes, cfg.n_tokens, cfg.d_model))
    rng = np.random.default_rng(seed)
    gate = (rng.random(n) < 0.6).astype(np.int8)
    reason = np.where(gate == 1, rng.integers(0, classes, n), -1).astype(np.int16)
    tokens = 0.5 * rng.standard_normal((n, cfg.n_tokens, cfg.d_model))
    tokens[gate == 1] += patterns[reason[gate == 1]]
    return TokenSet(tokens.astype(np.float16), gate, reason, np.ones(n, dtype=np.float32))


def made_up_frames(seed: int = 0, clips: int = 6, site: str = "s1") -> SiteFrames:
    """Three frames a clip: two of view 0, one of view 1 at 5 dB."""
    rng = np.random.default_rng(seed)
    gate = np.arange(clips) % 2
    return SiteFrames(
        site=site,
        reasons=REASONS,
        log_mel=(rng.standard_normal((3 * clips, 64, 98)) - 4).astype(np.float16),
        clip=np.repeat(np.arange(clips), 3).astype(np.int32),
        view=np.tile([0, 0, 1], clips).astype(np.int16),
        snr_db=np.tile([np.nan, np.nan, 5.0], clips).astype(np.float32),
        gate=gate.astype(np.int8),
        reason=np.where(gate == 1, np.arange(clips) % 3, -1).astype(np.int16),
        part=(np.arange(clips) % 3).astype(np.int8),
        group=np.array([f"g{i}" for i in range(clips)]),
        clip_id=np.array([f"{i:016x}" for i in range(clips)]),
        label=np.array(["cry" if g else "fan" for g in gate]),
    )
