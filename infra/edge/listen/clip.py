"""One WAV file in memory → the decision on it as a clip, without torch."""

from __future__ import annotations

import io

import numpy as np
import soundfile

from infra.edge.listen.intake import MAX_CHANNELS, Intake, Piece
from infra.edge.scorer import ClipDecision, Scorer, decide
from infra.settings import LimitSettings
from models.errors import AudioError

_FORMATS = ("WAV", "WAVEX")
_MAX_SAMPLES = (
    20_000_000  # of all channels: 10 minutes of 16 kHz stereo, 80 MB; a small device has little more
)


def classify_wav(data: bytes, scorer: Scorer, limits: LimitSettings | None = None) -> ClipDecision:
    """Decode, resample and decide as `cryfed classify` does.

    Raises:
        AudioError: not a WAV file, empty, too long, more than two channels, a rate outside 4–96 kHz, or not finite.
    """
    longest = (limits or LimitSettings()).max_clip_seconds
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            if file.format not in _FORMATS:
                raise AudioError(f"{file.format}; send a WAV file")
            if file.channels > MAX_CHANNELS:
                raise AudioError(f"{file.channels} channels; mix it down to mono or stereo first")
            if file.frames > longest * file.samplerate:
                raise AudioError(f"longer than {longest:.0f} s; cut it into shorter clips")
            if file.frames * file.channels > _MAX_SAMPLES:
                raise AudioError(f"more than {_MAX_SAMPLES} samples; resample it to 16000 Hz, or cut it")
            samples = file.read(dtype="float32", always_2d=True)
            rate = file.samplerate
    except (soundfile.LibsndfileError, RuntimeError, ValueError) as err:
        raise AudioError(f"not readable as a WAV file ({str(err).rstrip('.')})") from None
    intake = Intake()
    parts = [*intake.feed(samples, rate), *intake.finish()]
    if not all(isinstance(p, Piece) for p in parts):
        raise AudioError("NaN or infinite samples; export it again")
    wave = np.concatenate([p.wave for p in parts if isinstance(p, Piece)] or [np.zeros(0, np.float32)])
    if len(wave) == 0:
        raise AudioError("0 s of audio")
    raw = scorer.raw(wave)
    if not np.isfinite([raw.gate_logit, raw.energy]).all():
        raise AudioError("the model gives no finite score for it; check the recording")
    return decide(raw, scorer.calibration, scorer.reasons)
