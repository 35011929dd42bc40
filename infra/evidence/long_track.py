"""A long recording heard once: the gate's logit every half second, kept with the truth, so that alarms can be replayed at no
cost.

Frames and segmentation are those of a device (`infra.edge.listen.framer`): a frame that holds nothing worth scoring has no logit.
The recording itself passes through in blocks and is never held.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.data.audio import write_bytes
from infra.edge.listen.config import ListenConfig
from infra.edge.listen.framer import Framer
from infra.evidence.soundscape import SLOT_S, Soundscape, TrueBout
from infra.federation.files import decode_arrays, encode_arrays
from models.config import FRAME_SAMPLES, SAMPLE_RATE
from models.errors import DataError, IntegrityError
from models.segmentation import VadConfig

Scorer = Callable[[npt.NDArray[np.float32]], npt.NDArray]
"""One-second frames (N, 16000) float32 → gate logits (N,)."""

_BATCH = 64


@dataclass(frozen=True)
class Track:
    """What one network made of one recording, and the truth.

    Attributes:
        name: of the recording, e.g. "fold 3, test".
        seconds: its duration.
        hop: samples between frames; frame k covers [k · hop, k · hop + 16000).
        logit: (n,) float64, NaN where the frame was not worth scoring.
        bouts: of crying.
        background: (slots,) index into `groups` for each half second.
        groups: the background's groups.
        kinds: what each of them sounds like.
        materials: every group that could have been heard, of cries too.
    """

    name: str
    seconds: float
    hop: int
    logit: npt.NDArray[np.float64]
    bouts: tuple[TrueBout, ...]
    background: npt.NDArray[np.int32]
    groups: tuple[str, ...]
    kinds: tuple[str, ...]
    materials: frozenset[str]

    @property
    def crying(self) -> npt.NDArray[np.bool_]:
        """(slots,) whether a bout touches the half second."""
        out = np.zeros(len(self.background), bool)
        for bout in self.bouts:
            out[int(bout.begin / SLOT_S) : int(np.ceil(bout.end / SLOT_S))] = True
        return out

    @property
    def quiet_hours(self) -> float:
        """Hours without crying."""
        return float((~self.crying).sum()) * SLOT_S / 3600.0


def listen(
    soundscape: Soundscape,
    scorer: Scorer,
    name: str,
    materials: frozenset[str],
    *,
    vad: VadConfig | None = None,
    cfg: ListenConfig | None = None,
    on_seconds: Callable[[float, float], None] = lambda _done, _of: None,
) -> Track:
    """Run a scorer over a recording.

    Args:
        soundscape: the recording.
        scorer: a network, an ONNX graph or a baseline.
        name: what to call the recording.
        materials: `Materials.groups` that it was made of.
        vad, cfg: segmentation of the release and of the device.
        on_seconds: told how many seconds are done, of how many.

    Raises:
        DataError: a logit is not finite.
    """
    vad, cfg = vad or VadConfig(), cfg or ListenConfig()
    framer = Framer(vad, cfg)
    logits: list[float] = []
    waiting = np.zeros((_BATCH, FRAME_SAMPLES), np.float32)
    places: list[int] = []

    def flush() -> None:
        if not places:
            return
        # a copy: what a scorer does with its frames is its own business
        found = np.asarray(scorer(waiting[: len(places)].copy()), np.float64)
        if found.shape != (len(places),) or not np.isfinite(found).all():
            raise DataError(
                f"{name}: the scorer gave no finite logit for each frame; check what it was trained on"
            )
        for place, value in zip(places, found, strict=True):
            logits[place] = float(value)
        places.clear()

    for block in soundscape.blocks():
        for cut in framer.feed(block, np.abs(block) >= 1.0):
            if cut.kept:
                waiting[len(places)] = cut.wave[0]
                places.append(len(logits))
            logits.append(float("nan"))
            if len(places) == _BATCH:
                flush()
        on_seconds(framer.now / SAMPLE_RATE, soundscape.seconds)
    flush()
    return Track(
        name=name, seconds=soundscape.seconds, hop=round(vad.hop_s * SAMPLE_RATE), logit=np.array(logits),
        bouts=soundscape.bouts, background=soundscape.background, groups=soundscape.groups,
        kinds=soundscape.kinds, materials=materials,
    )  # fmt: skip


def of_network(net: Any) -> Scorer:
    """A `models.network.CryNet` as a scorer."""
    import torch

    net.eval()

    def score(frames: npt.NDArray[np.float32]) -> npt.NDArray:
        with torch.inference_mode():
            return net(torch.from_numpy(frames)).gate_logit.numpy()

    return score


def of_graph(run: Callable[[npt.NDArray[np.float32]], Mapping[str, npt.NDArray]]) -> Scorer:
    """An exported graph (`infra.edge.runtime.Graph.run`) as a scorer; it takes one frame at a time, as on a device."""

    def score(frames: npt.NDArray[np.float32]) -> npt.NDArray:
        return np.array([float(run(frame[None])["gate_logit"][0]) for frame in frames])

    return score


def of_baseline(cries: Sequence[npt.NDArray], others: Sequence[npt.NDArray], seed: int = 0) -> Scorer:
    """Logistic regression on the MFCC statistics of one-second frames, fitted on training waves (T,), as a scorer."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from infra.data.mfcc import statistics_of
    from models.segmentation import frames

    parts = [[statistics_of(frames(w)) for w in waves] for waves in (cries, others)]
    x = np.concatenate([*parts[0], *parts[1]]).astype(np.float64)
    y = np.repeat([1, 0], [sum(map(len, p)) for p in parts])
    model = make_pipeline(
        StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=5000, random_state=seed)
    )
    model.fit(x, y)
    return lambda batch: model.decision_function(statistics_of(batch).astype(np.float64))


def save_track(track: Track, path: Path) -> None:
    """One file; see `load_track`.

    Raises:
        OutputError: the folder cannot be written.
    """
    meta = {
        "name": track.name, "seconds": track.seconds, "hop": track.hop, "groups": list(track.groups),
        "kinds": list(track.kinds),
        "bouts": [asdict(b) for b in track.bouts], "materials": sorted(track.materials),
    }  # fmt: skip
    arrays: dict[str, npt.NDArray] = {
        "logit": track.logit,
        "background": track.background,
        "meta": np.frombuffer(json.dumps(meta).encode(), np.uint8),
    }
    write_bytes(path, encode_arrays(arrays))


def load_track(path: Path) -> Track:
    """Inverse of `save_track`.

    Raises:
        DataError: it is no track.
    """
    try:
        arrays = decode_arrays(path.read_bytes(), str(path))
        meta = json.loads(arrays["meta"].tobytes())
        return Track(
            name=meta["name"], seconds=meta["seconds"], hop=meta["hop"], logit=arrays["logit"],
            bouts=tuple(TrueBout(**b) for b in meta["bouts"]), background=arrays["background"],
            groups=tuple(meta["groups"]), kinds=tuple(meta["kinds"]), materials=frozenset(meta["materials"]),
        )  # fmt: skip
    except (OSError, KeyError, TypeError, ValueError, IntegrityError) as err:
        raise DataError(
            f"{path} is no track of a long recording ({err}): delete it and listen again"
        ) from None
