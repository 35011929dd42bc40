"""Clips whose label looks wrong: the cries that every seed scored lowest, the sites' non-cries that every seed scored highest.

They are listed, with their spectrograms, for someone to listen to; nothing is deleted or relabelled by a score.
"""

from __future__ import annotations

import base64
import io
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from infra.evidence.gate import Seeds
from infra.evidence.world import World
from models.metrics import sigmoid

Json = dict[str, Any]

MOST: Final = 16
_WIDTH_FRAMES: Final = 98


def suspects_document(world: World, scores: Seeds, most: int = MOST) -> Json:
    """The most contradicted clips of either kind, with pictures of the seconds that decided their score.

    Args:
        world: for the clips' rows and frames.
        scores: out-of-fold scores by seed.
        most: clips of each kind.
    """
    clean = {seed: s.select(s.view == 0) for seed, s in scores.items()}
    first = next(iter(clean.values()))
    logit = np.mean([s.gate_logit for s in clean.values()], axis=0)
    spread = np.stack([sigmoid(s.gate_logit) for s in clean.values()])
    paths = dict(zip((sha[:16] for sha in world.rows["sha256"]), world.rows["path"], strict=True))
    out: Json = {"seeds": sorted(clean), "kinds": {}, "pictures": {}}
    for kind, wanted, order in (
        ("cries that do not sound like one", first.gate == 1, logit),
        ("rejected uploads that sound like a cry", (first.gate == 0) & (first.site != ""), -logit),
    ):
        rows = np.flatnonzero(wanted)
        rows = rows[np.argsort(order[rows], kind="stable")][:most]
        out["kinds"][kind] = [
            {
                "clip": str(first.clip_id[i]), "path": str(paths[str(first.clip_id[i])]), "site": str(first.site[i]),
                "group": str(first.group[i]), "label": str(first.label[i]), "p_cry": round(float(sigmoid(logit[i])), 3),
                "p_low": round(float(spread[:, i].min()), 3), "p_high": round(float(spread[:, i].max()), 3),
            }
            for i in rows
        ]  # fmt: skip
        for i in rows:
            out["pictures"][str(first.clip_id[i])] = _picture(
                world, str(first.site[i]), str(first.clip_id[i])
            )
    return out


def _picture(world: World, site: str, clip_id: str) -> str:
    """Log-mel of the clip's judged seconds side by side, as a PNG data URI; 50 Hz at the bottom, 4 kHz at the top."""
    frames = world.frames.judge[site]
    clip = int(np.flatnonzero(frames.clip_id == clip_id)[0])
    rows = np.flatnonzero((frames.clip == clip) & (frames.view == 0))
    hop = max(1, round(len(rows) / 8))
    image = np.concatenate([frames.log_mel[r].astype(np.float32) for r in rows[::hop][:8]], axis=1)
    return png(image)


def png(image_MF: npt.NDArray[np.float32]) -> str:
    """A grey-to-warm picture of a log-mel stretch (M, F), low frequencies at the bottom."""
    import matplotlib as mpl
    from matplotlib.image import imsave

    low, high = np.percentile(image_MF, (2, 99.5))
    scaled = np.clip((image_MF - low) / max(1e-6, high - low), 0.0, 1.0)
    colours = mpl.colormaps["magma"](np.repeat(scaled[::-1], 2, axis=0))
    buffer = io.BytesIO()
    imsave(buffer, (255 * colours[..., :3]).astype(np.uint8), format="png", metadata={"Software": ""})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
