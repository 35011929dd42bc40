"""The public pool as arrays for pretraining: frames, the synthesiser's truth about them, and noise to mix in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from infra.data.audio import ClipLimits
from infra.data.features import FeatureConfig, NoiseBank, extract_site
from infra.data.manifest import Manifest
from infra.data.synth.prosody import ATTRIBUTES
from models.config import LogMelConfig
from models.errors import ManifestError
from models.frames import TRAIN
from models.log_mel import LogMel
from models.pretrain import PretrainSet
from models.segmentation import VadConfig, frames
from models.threads import one_thread


def load_attributes(path: Path) -> pd.DataFrame:
    """`attributes.csv` beside a synthetic manifest: the columns `ATTRIBUTES` by clip path, float64.

    Raises:
        ManifestError: missing, or with other columns.
    """
    try:
        table = pd.read_csv(path).set_index("path")
    except (OSError, ValueError, KeyError) as err:
        raise ManifestError(
            f"attributes {path} cannot be read ({err}); synthesise the public pool again"
        ) from None
    if list(table.columns) != list(ATTRIBUTES):
        raise ManifestError(
            f"attributes {path} are of another version of the synthesiser; synthesise the pool again"
        )
    return table.astype("float64")


def pretraining_set(
    pool: Manifest,
    noise: NoiseBank,
    log_mel: LogMelConfig,
    vad: VadConfig | None = None,
    limits: ClipLimits | None = None,
) -> PretrainSet:
    """Frames of the public pool as recorded, with gate and attributes, and training noise (no other part's).

    Args:
        pool: the synthesiser's manifest of namespace "public", with `attributes.csv` beside it.
        noise: public noise by part; only TRAIN is used.
        log_mel: the network's front end.
        vad: the network's segmentation.
        limits: bounds on what is read.

    Raises:
        ManifestError: the attributes are missing or of another version, or there is no training noise.
        AudioError: a clip cannot be used.
    """
    attributes = load_attributes(pool.root / "attributes.csv")
    rows = pool.table[(pool.table["site"] != "") & (pool.table["role"] != "unlabelled")].sort_values("path")
    no_noise = NoiseBank({})
    cfg = FeatureConfig(train_views=0)
    gate, targets, mel = [], [], []
    for _, site in rows.groupby("site", sort=True):
        made = extract_site(
            site, pool.root, no_noise, np.full(len(site), TRAIN), (), log_mel, vad, cfg, limits
        )
        truth = attributes.reindex(site["path"]).to_numpy(np.float32)
        mel.append(made.log_mel)
        gate.append(made.gate[made.clip])
        targets.append(truth[made.clip])
    return PretrainSet(
        log_mel=np.concatenate(mel),
        gate=np.concatenate(gate),
        attributes=np.concatenate(targets),
        noise=_noise_log_mel(noise, log_mel, vad),
    )


def _noise_log_mel(noise: NoiseBank, log_mel: LogMelConfig, vad: VadConfig | None) -> np.ndarray:
    waves = noise.waves.get(TRAIN, ())
    if not waves:
        raise ManifestError(
            "there is no public noise in the training part: add rows of role 'noise' without a site"
        )
    front = LogMel(log_mel).eval()
    with one_thread(), torch.inference_mode():
        return np.concatenate(
            [front(torch.from_numpy(frames(w, vad))).numpy().astype(np.float16) for w in waves]
        )
