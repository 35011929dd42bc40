"""A site's frames as tokens: the frozen part of the network, computed once per site and kept in the site's own folder.

    site folder/tokens-<16 hex>.safetensors      key: features file, base model, and what was selected

Log-mel, denoiser and tokenizer are frozen in the federation and all augmentation is done before them, so a round costs only the
Transformer. Tokens are stored as float16 and never leave the site.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from infra.digest import digest_file, digest_json
from infra.federation.files import decode_arrays, encode_arrays, write_atomic
from infra.federation.frames_file import FramesFile
from models.errors import DataError, IntegrityError, OutputError
from models.frames import CALL_SHARE, TRAIN, VAL
from models.local_step import TokenSet, pool_tokens
from models.network import CryNet
from models.predict import frame_tokens

_FORMAT = 1

PUBLIC = -1
"""The infant of frames that are nobody's: public noise."""


@dataclass(frozen=True)
class SiteTokens:
    """What a site learns from, and what it tallies on."""

    train: TokenSet  # every view of the labelled training clips
    val: TokenSet  # labelled validation clips as recorded (view 0)
    val_clip: npt.NDArray[np.int32]  # the clip of each row of `val`
    train_infant: npt.NDArray[
        np.int32
    ]  # the infant (group) of each row of `train`, numbered within the site; or PUBLIC

    def validation(self, _net: CryNet) -> tuple[TokenSet, npt.NDArray[np.int32]]:
        """Validation tokens, and the clip of each."""
        return self.val, self.val_clip

    @property
    def nbytes(self) -> int:
        """Memory of the tokens, bytes."""
        return self.train.tokens.nbytes + self.val.tokens.nbytes


def load_site_tokens(
    features: Path,
    folder: Path,
    net: CryNet,
    base_digest: str,
    features_digest: str,
    public: Path | None = None,
) -> SiteTokens:
    """Tokens of the site's labelled training and validation frames, from the site's cache or computed and cached.

    Args:
        features: the site's frames, safetensors with the arrays of `models.frames.SiteFrames`.
        folder: the site's own folder.
        net: the pretrained network; `base_digest` names it.
        base_digest: see `net`.
        features_digest: `material_digest` of features and public noise.
        public: frames of public noise: training non-cries beside the site's own, as much of a batch as these.

    Raises:
        DataError: the features cannot be read or are not what the network takes.
        OutputError: the site's folder cannot be written.
    """
    own = FramesFile.open(features, net.reasons, net.cfg.log_mel)
    rows = _select(own)
    if not len(rows["train"]):
        raise DataError(f"{features} has no labelled training frame: the site cannot take part")
    files = {"train": own, "val": own}
    if public is not None:
        noise = FramesFile.open(public, net.reasons, net.cfg.log_mel)
        files["public"], rows["public"] = noise, _select(noise)["train"]
    key = digest_json({"format": _FORMAT, "features": features_digest, "base": base_digest})[:16]
    cache = folder / f"tokens-{key}.safetensors"
    arrays = _read_cache(cache, set(files))
    if arrays is None:
        arrays = {name: _tokens(net, file, rows[name]) for name, file in files.items()}
        _write_cache(cache, arrays)
    sets = {name: _token_set(arrays[name], file, rows[name]) for name, file in files.items()}
    clip, infant = own.labels["clip"], own.labels["infant"]
    train, infants = sets["train"], infant[clip[rows["train"]]]
    if public is not None:
        calls = noise.labels["call"][noise.labels["clip"][rows["public"]]]
        train = _beside(train, _share_of_calls(sets["public"], calls))
        infants = np.concatenate([infants, np.full(len(sets["public"]), PUBLIC, np.int32)])
    return SiteTokens(train, sets["val"], clip[rows["val"]], infants)


def _beside(own: TokenSet, public: TokenSet) -> TokenSet:
    """Both sets in one; of the non-cries drawn, half are public (all, where the site has none of its own)."""
    mine = float(own.weight[own.gate == 0].sum())
    share = mine / float(public.weight.sum()) if mine > 0 and len(public) else 1.0
    return pool_tokens([own, replace(public, weight=(share * public.weight).astype(np.float32))])


def _share_of_calls(public: TokenSet, calls: npt.NDArray[np.bool_]) -> TokenSet:
    """Synthetic calls weigh `CALL_SHARE` of the set, however many there are, as in `models.gate_batches`."""
    loud, others = float(public.weight[calls].sum()), float(public.weight[~calls].sum())
    if loud == 0.0 or others == 0.0:
        return public
    factor = CALL_SHARE * others / ((1.0 - CALL_SHARE) * loud)
    return replace(public, weight=np.where(calls, factor * public.weight, public.weight).astype(np.float32))


def features_digest(features: Path) -> str:
    """SHA-256 of a site's features file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return digest_file(features)
    except OSError as err:
        raise DataError(f"cannot read the site's features {features}: {err.strerror}") from None


def material_digest(features: Path, public: Path | None) -> str:
    """What a site learns from, as one SHA-256: its features file's, with that of the public noise where there is any.

    Raises:
        DataError: a file cannot be read.
    """
    own = features_digest(features)
    return own if public is None else digest_json({"features": own, "public": features_digest(public)})


def _select(file: FramesFile) -> dict[str, npt.NDArray[np.intp]]:
    """Frame numbers of the training frames and of the clean validation frames, labelled clips only."""
    return {
        "train": np.flatnonzero(file.known & (file.part == TRAIN)),
        "val": np.flatnonzero(file.known & (file.part == VAL) & (file.labels["view"] == 0)),
    }


def _token_set(tokens: npt.NDArray[np.float16], file: FramesFile, picked: npt.NDArray[np.intp]) -> TokenSet:
    """As `models.local_step.select_tokens`, from tokens of the selected frames alone."""
    if len(tokens) != len(picked):
        raise IntegrityError(
            f"the token cache of {file.path} holds {len(tokens)} frames instead of {len(picked)}: delete it"
        )
    labels = file.labels
    clip = labels["clip"][picked]
    count = np.bincount(clip, minlength=len(labels["gate"]))
    return TokenSet(
        tokens,
        labels["gate"][clip].astype(np.int8),
        labels["reason"][clip].astype(np.int16),
        (1.0 / count[clip]).astype(np.float32),
    )


def _tokens(net: CryNet, file: FramesFile, picked: npt.NDArray[np.intp]) -> npt.NDArray[np.float16]:
    tokens = np.empty((len(picked), net.cfg.n_tokens, net.cfg.d_model), np.float16)
    at = 0
    for rows in file.blocks(picked):
        tokens[at : at + len(rows)] = frame_tokens(net, file.read(rows), batch=len(rows))
        at += len(rows)
    if not np.isfinite(tokens).all():
        raise DataError(
            f"{file.path}: some frames give tokens that are not finite; extract the features again"
        )
    return tokens


def _read_cache(path: Path, names: set[str]) -> dict[str, npt.NDArray[np.float16]] | None:
    """The cached arrays, or None where there are none to trust (then they are computed again)."""
    try:
        arrays = decode_arrays(path.read_bytes(), str(path))
    except (OSError, IntegrityError):
        return None
    return arrays if set(arrays) == names else None


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
