"""From a site's recordings to the frames that the network learns from and is tested on.

    decode → render (noise at an SNR, gain) → segment (VAD) → one-second frames → log-mel, float16

Segmentation comes after the noise: that is the order on a device, so a frame lost to noise is lost here too. View 0 is the clip
as recorded. Training clips get further views at random SNRs, validation and test clips one view at each of a few fixed SNRs, each
with public noise of their own part, which holds classes of noise that no other part has.

A pure function of the site's rows and files: the same code runs in the pipeline and inside a site's client.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import safetensors.numpy
import torch

from infra.data.audio import ClipLimits, ReadLimits, read_audio, write_bytes
from models.augment import apply_gain, mix_at_snr
from models.config import LogMelConfig
from models.errors import ConfigError, DataError, ManifestError
from models.frames import TRAIN, UNKNOWN, SiteFrames
from models.log_mel import LogMel
from models.seeds import derive_seed
from models.segmentation import VadConfig, frames
from models.threads import one_thread

Wave = npt.NDArray[np.float32]

GATE: Final = {"cry": 1, "ood_noncry": 0, "noise": 0}
"""The gate's target by role; rows of other roles have none and are left out."""

_META = "cryfed.frames"
_SCHEMA = 1
_ARRAYS: Final = {
    "log_mel": np.float16, "clip": np.int32, "view": np.int16, "snr_db": np.float32,
    "gate": np.int8, "reason": np.int16, "part": np.int8,
}  # fmt: skip


@dataclass(frozen=True)
class FeatureConfig:
    """How many renderings a clip gets, and under which noise."""

    train_views: int = 3
    snr_range: tuple[float, float] = (-5.0, 20.0)  # dB, training views: uniform
    gain_range: tuple[float, float] = (
        -12.0,
        6.0,
    )  # dB, training views: uniform; loud ones clip as a recorder does
    test_snrs: tuple[float, ...] = (
        -5.0,
        0.0,
        5.0,
        10.0,
        20.0,
    )  # dB, one view each for validation and test clips
    max_frames_per_clip: int = 24  # longer clips are thinned evenly
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse ranges that are none.

        Raises:
            ConfigError: a count or range is out of order.
        """
        if self.train_views < 0 or self.max_frames_per_clip < 1:
            raise ConfigError("features: train_views must be at least 0 and max_frames_per_clip at least 1")
        for name, (low, high) in (("snr_range", self.snr_range), ("gain_range", self.gain_range)):
            if not -100.0 <= low <= high <= 100.0:
                raise ConfigError(
                    f"features: {name}=({low}, {high}) is no range in dB: low first, within ±100"
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, for stage keys."""
        return json.loads(json.dumps(asdict(self)))


@dataclass(frozen=True)
class NoiseBank:
    """Public noise by part (TRAIN, VAL, TEST), in the order of the paths. A part without noise has clean views alone."""

    waves: Mapping[int, tuple[Wave, ...]]

    def draw(self, part: int, length: int, rng: np.random.Generator) -> Wave | None:
        """`length` samples of one clip of that part, from a random place on, repeated as needed; None where there is none."""
        choice = self.waves.get(part, ())
        if not choice:
            return None
        wave = choice[int(rng.integers(len(choice)))]
        start = int(rng.integers(len(wave)))
        return np.resize(np.roll(wave, -start), length)


def load_noise_bank(
    table: pd.DataFrame, root: Path, parts: pd.Series | npt.NDArray, limits: ClipLimits | None = None
) -> NoiseBank:
    """Decode the public noise of a manifest: rows of role "noise" without a site.

    Args:
        table: any rows of the manifest; others are passed over.
        root: the manifest's folder.
        parts: part of each row, by position.
        limits: bounds on what is read.

    Raises:
        AudioError: a noise clip cannot be used.
    """
    limits = limits or ReadLimits()
    chosen = table.assign(_part=np.asarray(parts))
    chosen = chosen[(chosen["role"] == "noise") & (chosen["site"] == "")].sort_values("path")
    waves: dict[int, list[Wave]] = {}
    for path, part in zip(chosen["path"], chosen["_part"], strict=True):
        wave = _read(root / path, limits)
        if wave.any():
            waves.setdefault(int(part), []).append(wave)
    return NoiseBank({part: tuple(w) for part, w in waves.items()})


def extract_site(
    rows: pd.DataFrame,
    root: Path,
    noise: NoiseBank,
    parts: pd.Series | npt.NDArray,
    reasons: tuple[str, ...],
    log_mel: LogMelConfig,
    vad: VadConfig | None = None,
    cfg: FeatureConfig | None = None,
    limits: ClipLimits | None = None,
) -> SiteFrames:
    """Frames of one site's labelled clips; rows of role "unlabelled" are left out.

    Args:
        rows: the site's manifest rows; all of one site ("" for public audio, which gets view 0 alone).
        root: the manifest's folder.
        noise: public noise by part.
        parts: part of each row, by position.
        reasons: the federation's label set; a cry with another label has reason -1.
        log_mel: the network's front end.
        vad: the network's segmentation.
        cfg: views.
        limits: bounds on what is read.

    Returns:
        Clips in the order of their paths, views and frames within. Each clip's rendering depends on its content, the
        configuration and the noise alone, not on other rows.

    Raises:
        AudioError: a clip cannot be used.
        ManifestError: the rows are of several sites, or none has a gate label.
    """
    cfg, vad, limits = cfg or FeatureConfig(), vad or VadConfig(), limits or ReadLimits()
    table = rows.assign(_part=np.asarray(parts)).sort_values("path")
    if len(sites := sorted(set(table["site"]))) > 1:
        raise ManifestError(
            f"features of one site were asked for with rows of {len(sites)}: {', '.join(sites)}"
        )
    table = table[table["role"].isin(list(GATE))].reset_index(drop=True)
    if table.empty:
        raise ManifestError(
            f"site {sites[0] if sites else ''!r} has no clip with a gate label (roles {', '.join(GATE)})"
        )
    front = LogMel(log_mel).eval()
    pieces: list[npt.NDArray[np.float16]] = []
    clip, view, snr_db = [], [], []
    with one_thread(), torch.inference_mode():
        for i, (path, sha, part, role) in enumerate(
            zip(table["path"], table["sha256"], table["_part"], table["role"], strict=True)
        ):
            wave = _read(root / path, limits)
            public = role == "noise"
            views = [(0, np.nan, wave)] if public else list(_views(wave, sha, int(part), noise, cfg))
            kept = [_thin(frames(rendered, vad), cfg.max_frames_per_clip) for _, _, rendered in views]
            mel = front(torch.from_numpy(np.concatenate(kept)))
            pieces.append(mel.numpy().astype(np.float16))
            for (number, snr, _), some in zip(views, kept, strict=True):
                clip += [i] * len(some)
                view += [number] * len(some)
                snr_db += [snr] * len(some)
    index = {name: k for k, name in enumerate(reasons)}
    gate = np.array([GATE[role] for role in table["role"]], np.int8)
    reason = [
        index.get(name, UNKNOWN) if g == 1 else UNKNOWN for name, g in zip(table["label"], gate, strict=True)
    ]
    return SiteFrames(
        site=sites[0],
        reasons=tuple(reasons),
        log_mel=np.concatenate(pieces),
        clip=np.array(clip, np.int32),
        view=np.array(view, np.int16),
        snr_db=np.array(snr_db, np.float32),
        gate=gate,
        reason=np.array(reason, np.int16),
        part=table["_part"].to_numpy(np.int8),
        group=table["group"].to_numpy(str),
        clip_id=np.array([sha[:16] for sha in table["sha256"]], dtype=str),
        label=table["label"].to_numpy(str),
    )


def _read(path: Path, limits: ClipLimits) -> Wave:
    return read_audio(path, max_seconds=limits.max_clip_seconds, max_bytes=limits.max_file_bytes)


def _views(
    wave: Wave, sha256: str, part: int, noise: NoiseBank, cfg: FeatureConfig
) -> Iterator[tuple[int, float, Wave]]:
    """(view, SNR in dB, wave) of one clip; the clip's hash seeds its randomness, so that no other row has a say in it."""
    yield 0, np.nan, wave
    train = part == TRAIN
    snrs: tuple[float | None, ...] = (None,) * cfg.train_views if train else cfg.test_snrs
    for number, fixed in enumerate(snrs, start=1):
        rng = np.random.Generator(np.random.PCG64(derive_seed("views", cfg.seed, sha256, number)))
        snr = float(rng.uniform(*cfg.snr_range)) if fixed is None else fixed
        background = noise.draw(part, len(wave), rng)
        if background is None:
            if not train:
                continue  # a test view without noise would be view 0 again
            snr, rendered = np.nan, wave
        else:
            rendered = mix_at_snr(wave, background, snr)
        if train:
            rendered = apply_gain(rendered, float(rng.uniform(*cfg.gain_range)))
        yield number, snr, rendered


def _thin(kept: Wave, most: int) -> Wave:
    """At most `most` frames, evenly spaced, first and last included."""
    if len(kept) <= most:
        return kept
    return kept[np.round(np.linspace(0, len(kept) - 1, most)).astype(np.int64)]


def save_frames(site_frames: SiteFrames, path: Path) -> None:
    """Write safetensors; the same frames give the same bytes, and a broken-off write leaves nothing.

    Raises:
        OutputError: the folder cannot be written.
    """
    meta = {
        "schema": _SCHEMA, "site": site_frames.site, "reasons": list(site_frames.reasons),
        "group": site_frames.group.tolist(), "clip_id": site_frames.clip_id.tolist(), "label": site_frames.label.tolist(),
    }  # fmt: skip
    arrays = {name: np.ascontiguousarray(getattr(site_frames, name)) for name in _ARRAYS}
    # one metadata entry: the order of several is not fixed
    write_bytes(path, safetensors.numpy.save(arrays, {_META: json.dumps(meta, sort_keys=True)}))


def load_frames(path: Path) -> SiteFrames:
    """Read what `save_frames` wrote, and check it.

    Raises:
        DataError: missing, altered or not one of ours.
    """
    try:
        with safetensors.safe_open(str(path), framework="numpy") as file:
            meta = json.loads((file.metadata() or {}).get(_META, "{}"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, safetensors.SafetensorError, ValueError) as err:
        raise DataError(f"features {path} cannot be read ({err}); extract them again") from None
    if meta.get("schema") != _SCHEMA or set(arrays) != set(_ARRAYS):
        raise DataError(f"{path} holds no features of this version; extract them again")
    wrong = [name for name, dtype in _ARRAYS.items() if arrays[name].dtype != dtype]
    n_frames, n_clips = len(arrays["clip"]), len(arrays["gate"])
    lengths = {
        name: n_frames if name in ("log_mel", "clip", "view", "snr_db") else n_clips for name in _ARRAYS
    }
    wrong += [name for name, n in lengths.items() if len(arrays[name]) != n]
    wrong += [name for name in ("group", "clip_id", "label") if len(meta[name]) != n_clips]
    if arrays["log_mel"].ndim != 3 or (
        n_frames and not 0 <= arrays["clip"].min() <= arrays["clip"].max() < n_clips
    ):
        wrong.append("clip")
    if wrong:
        raise DataError(
            f"features {path} are inconsistent in {', '.join(sorted(set(wrong)))}; extract them again"
        )
    texts = {name: np.array(meta[name], dtype=str) for name in ("group", "clip_id", "label")}
    return SiteFrames(site=meta["site"], reasons=tuple(meta["reasons"]), **arrays, **texts)
