"""What one recording must be: GX's own column expectations, with the column and the bounds of this domain as defaults."""

from __future__ import annotations

from typing import Any, Final

from validation.gx import ExpectColumnValuesToBeBetween, ExpectColumnValuesToNotBeInSet

DAMAGED: Final = ("missing", "large", "unreadable", "truncated")
REFUSED: Final = ("channels", "rate", "long")


class ExpectClipsToBeReadable(ExpectColumnValuesToNotBeInSet):
    """The file is there and decodes to as many samples as its header promises."""

    column: str = "error_kind"
    value_set: Any = DAMAGED


class ExpectClipFormatToBeAccepted(ExpectColumnValuesToNotBeInSet):
    """Mono or stereo, 4 to 96 kHz, not longer than the limit: beyond that it is not a recording of one infant."""

    column: str = "error_kind"
    value_set: Any = REFUSED


class ExpectClipHashToMatch(ExpectColumnValuesToNotBeInSet):
    """The bytes are those the manifest describes."""

    column: str = "hash_state"
    value_set: Any = ("mismatch",)


class ExpectClipsToHaveSamples(ExpectColumnValuesToNotBeInSet):
    """Longer than 0 s."""

    column: str = "error_kind"
    value_set: Any = ("empty",)


class ExpectClipsToBeFinite(ExpectColumnValuesToBeBetween):
    """No NaN or infinite sample."""

    column: str = "nan_count"
    max_value: Any = 0


class ExpectClipDuration(ExpectColumnValuesToBeBetween):
    """Between one classifier frame and a minute; shorter is padded, longer is mostly not the cry that the label means."""

    column: str = "duration_s"
    min_value: Any = 1.0
    max_value: Any = 60.0


class ExpectClipSampleRate(ExpectColumnValuesToBeBetween):
    """Between 8 kHz (the 4 kHz band that the network uses) and 48 kHz, in Hz."""

    column: str = "sample_rate"
    min_value: Any = 8000
    max_value: Any = 48000


class ExpectClipsNotToClip(ExpectColumnValuesToBeBetween):
    """At most 1 % of samples at full scale: beyond it the harmonics are the converter's."""

    column: str = "clipping_fraction"
    max_value: Any = 0.01


class ExpectCriesNotToBeSilent(ExpectColumnValuesToBeBetween):
    """At most 80 % of a cry's frames below −60 dBFS."""

    column: str = "silence_ratio"
    max_value: Any = 0.8


class ExpectCrySnr(ExpectColumnValuesToBeBetween):
    """Loud frames of a cry stand at least 6 dB above its quiet ones (an estimate)."""

    column: str = "snr_db"
    min_value: Any = 6.0


class ExpectClipDcOffset(ExpectColumnValuesToBeBetween):
    """Mean within ±0.05 of full scale: beyond it the microphone's bias is broken."""

    column: str = "dc_offset"
    min_value: Any = -0.05
    max_value: Any = 0.05
