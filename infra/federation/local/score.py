"""A site's scores and its calibration: the trained network over the site's own validation and test clips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from infra.data.features import load_frames
from infra.evaluation.storage import save_scores
from infra.federation.base import load_base
from infra.federation.files import decode_arrays
from models.adapters import set_vector
from models.calibration import calibrate_site
from models.config import ModelConfig
from models.errors import IntegrityError
from models.frames import TEST, VAL
from models.predict import predict
from models.threads import one_thread

SCORES: Final = "scores.safetensors"
CALIBRATION: Final = "calibration"  # name of the stage's value


@dataclass(frozen=True)
class Trained:
    """A trained network: the base model's file, what it is, and θ's file (the array `theta`, float32 (P,))."""

    network: Mapping[str, Any]  # ModelConfig.to_dict()
    reasons: tuple[str, ...]
    base: Path
    theta: Path
    clean_only: bool = (
        False  # score clips as recorded alone: enough for a yardstick, and a fraction of the work
    )


def config(trained: Trained) -> dict[str, Any]:
    """What decides the scores beside the digests of frames, base and θ."""
    return {
        "network": dict(trained.network),
        "reasons": list(trained.reasons),
        "clean_only": trained.clean_only,
    }


def compute(out: Path, frames: Path, trained: Trained, site: str | None) -> dict[str, Any]:
    """Write `scores.safetensors`; returns the calibration of `site`, fitted on its validation clips (None: public audio).

    Raises:
        IntegrityError: θ's file is not one.
        DataError: the frames are not readable, or not the network's.
    """
    net, _ = load_base(trained.base, ModelConfig.from_dict(dict(trained.network)), trained.reasons)
    arrays = decode_arrays(trained.theta.read_bytes(), str(trained.theta))
    if set(arrays) != {"theta"}:
        raise IntegrityError(f"{trained.theta} holds {sorted(arrays)}, not one vector `theta`")
    set_vector(net, arrays["theta"].astype(np.float32))
    read = load_frames(frames)
    with one_thread():
        part, clean = read.part[read.clip], read.view == 0
        rows = (part == TEST) | ((part == VAL) & clean)  # calibration hears clips as recorded
        if trained.clean_only:
            rows &= clean
        scores = predict(net, read.select(rows))
    save_scores(scores, out / SCORES)
    if site is None:
        return {CALIBRATION: None}
    return {CALIBRATION: calibrate_site(scores.of_part(VAL), site=site).to_dict()}
