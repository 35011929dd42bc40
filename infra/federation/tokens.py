"""A site's frames as tokens: the frozen part of the network, computed once per site and kept in the site's own folder.

    site folder/tokens-<16 hex>.safetensors      key: features file, base model, and what was selected

Log-mel, denoiser and tokenizer are frozen in the federation and all augmentation is done before them, so a round costs only the
Transformer. Tokens are stored as float16 and never leave the site.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from infra.digest import digest_file, digest_json
from infra.federation.files import decode_arrays, encode_arrays, write_atomic
from models.errors import DataError, IntegrityError, OutputError
from models.frames import TRAIN, UNKNOWN, VAL
from models.local_step import TokenSet
from models.network import CryNet
from models.predict import frame_tokens

_FORMAT = 1
_META = "cryfed.frames"  # as `infra.data.features` writes it; that module would bring pandas into every actor
_BATCH = 256
_LABELS = ("clip", "view", "gate", "reason", "part")


@dataclass(frozen=True)
class SiteTokens:
    """What a site learns from, and what it tallies on."""

    train: TokenSet  # every view of the labelled training clips
    val: TokenSet  # labelled validation clips as recorded (view 0)
    val_clip: npt.NDArray[np.int32]  # the clip of each row of `val`
    train_infant: npt.NDArray[np.int32]  # the infant (group) of each row of `train`, numbered within the site

    @property
    def nbytes(self) -> int:
        """Memory of the tokens, bytes."""
        return self.train.tokens.nbytes + self.val.tokens.nbytes


def load_site_tokens(
    features: Path, folder: Path, net: CryNet, base_digest: str, features_digest: str
) -> SiteTokens:
    """Tokens of the site's labelled training and validation frames, from the site's cache or computed and cached.

    Args:
        features: the site's frames, safetensors with the arrays of `models.frames.SiteFrames`.
        folder: the site's own folder.
        net: the pretrained network; `base_digest` names it.
        features_digest: SHA-256 of the features file.

    Raises:
        DataError: the features cannot be read or are not what the network takes.
        OutputError: the site's folder cannot be written.
    """
    labels, log_mel_shape = _read_labels(features, net.reasons)
    rows = _select(labels)
    if not len(rows["train"]):
        raise DataError(f"{features} has no labelled training frame: the site cannot take part")
    key = digest_json({"format": _FORMAT, "features": features_digest, "base": base_digest})[:16]
    cache = folder / f"tokens-{key}.safetensors"
    arrays = _read_cache(cache)
    if arrays is None:
        arrays = {name: _tokens(net, features, picked, log_mel_shape) for name, picked in rows.items()}
        _write_cache(cache, arrays)
    train, val = (_token_set(arrays[name], labels, rows[name], features) for name in ("train", "val"))
    clip = labels["clip"]
    return SiteTokens(train, val, clip[rows["val"]], labels["infant"][clip[rows["train"]]])


def features_digest(features: Path) -> str:
    """SHA-256 of a site's features file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return digest_file(features)
    except OSError as err:
        raise DataError(f"cannot read the site's features {features}: {err.strerror}") from None


def _select(labels: dict[str, npt.NDArray]) -> dict[str, npt.NDArray[np.int64]]:
    """Frame numbers of the training frames and of the clean validation frames, labelled clips only."""
    clip, view = labels["clip"], labels["view"]
    known, part = (labels["gate"] != UNKNOWN)[clip], labels["part"][clip]
    return {
        "train": np.flatnonzero(known & (part == TRAIN)),
        "val": np.flatnonzero(known & (part == VAL) & (view == 0)),
    }


def _token_set(
    tokens: npt.NDArray[np.float16],
    labels: dict[str, npt.NDArray],
    picked: npt.NDArray[np.int64],
    features: Path,
) -> TokenSet:
    """As `models.local_step.select_tokens`, from tokens of the selected frames alone."""
    if len(tokens) != len(picked):
        raise IntegrityError(
            f"the token cache of {features} holds {len(tokens)} frames instead of {len(picked)}: delete it"
        )
    clip = labels["clip"][picked]
    count = np.bincount(clip, minlength=len(labels["gate"]))
    return TokenSet(
        tokens,
        labels["gate"][clip].astype(np.int8),
        labels["reason"][clip].astype(np.int16),
        (1.0 / count[clip]).astype(np.float32),
    )


def _read_labels(path: Path, reasons: tuple[str, ...]) -> tuple[dict[str, npt.NDArray], tuple[int, ...]]:
    """Label arrays and the shape of the frames, without reading the frames themselves."""
    try:
        with safe_open(path, framework="numpy") as file:
            labels = {name: file.get_tensor(name) for name in _LABELS}
            described = json.loads((file.metadata() or {}).get(_META, "{}"))
            shape = tuple(file.get_slice("log_mel").get_shape())
    except (OSError, SafetensorError, ValueError) as err:
        raise DataError(f"cannot read the site's features {path}: {err}; extract them again") from None
    if described.get("reasons") != list(reasons):
        raise DataError(
            f"{path} numbers its reasons as {described.get('reasons')}, the network as {list(reasons)}: extract them again"
        )
    n_clips = len(labels["gate"])
    clip, groups = labels["clip"], described.get("group")
    if not isinstance(groups, list) or len(groups) != n_clips:
        raise DataError(f"{path} does not name the group of each of its {n_clips} clips; extract them again")
    labels["infant"] = np.unique(np.array(groups, dtype=str), return_inverse=True)[1].astype(np.int32)
    if (
        len(shape) != 3
        or clip.shape != (shape[0],)
        or (len(clip) and not 0 <= clip.min() <= clip.max() < n_clips)
    ):
        raise DataError(
            f"{path}: its frames {shape} and clips ({n_clips}) do not fit together; extract them again"
        )
    return labels, shape


def _tokens(
    net: CryNet, path: Path, picked: npt.NDArray[np.int64], shape: tuple[int, ...]
) -> npt.NDArray[np.float16]:
    mel = net.cfg.log_mel
    if shape[1:] != (mel.n_mels, mel.n_frames):
        raise DataError(
            f"{path} holds frames of {shape[1:]}, the network takes {(mel.n_mels, mel.n_frames)} (mel bins, frames): "
            "extract the features with the network's own front end"
        )
    tokens = np.empty((len(picked), net.cfg.n_tokens, net.cfg.d_model), np.float16)
    with safe_open(path, framework="numpy") as file:
        frames = file.get_slice("log_mel")
        for start in range(0, len(picked), _BATCH):
            rows = picked[start : start + _BATCH]
            first = int(rows[0])
            # one contiguous read, then the rows wanted of it: the whole file is never in memory
            block = frames[first : int(rows[-1]) + 1][rows - first]
            tokens[start : start + len(rows)] = frame_tokens(net, block, batch=_BATCH)
    if not np.isfinite(tokens).all():
        raise DataError(f"{path}: some frames give tokens that are not finite; extract the features again")
    return tokens


def _read_cache(path: Path) -> dict[str, npt.NDArray[np.float16]] | None:
    """The cached arrays, or None where there are none to trust (then they are computed again)."""
    try:
        arrays = decode_arrays(path.read_bytes(), str(path))
    except (OSError, IntegrityError):
        return None
    return arrays if set(arrays) == {"train", "val"} else None


def _write_cache(path: Path, arrays: dict[str, npt.NDArray[np.float16]]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for old in path.parent.glob("tokens-*.safetensors"):
            old.unlink(missing_ok=True)  # of other features or another base model
    except OSError as err:
        raise OutputError(
            f"cannot write the site's folder {path.parent}: {err.strerror}; choose another"
        ) from None
    write_atomic(path, encode_arrays(arrays))
