"""Shapes and sizes of the network, as frozen dataclasses with three presets.

Shape legend used throughout `models`:
B batch · T samples · M mel bins · F log-mel frames (98 per second) · L tokens · D width · C reasons · P parameters
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from models.errors import ConfigError

SAMPLE_RATE = 16_000
FRAME_SAMPLES = SAMPLE_RATE  # the classifier's unit: one second

Preset = Literal["tiny", "compact", "paper"]


@dataclass(frozen=True)
class LogMelConfig:
    """The front end: 25 ms Hann window, 10 ms hop, HTK mel, natural log of power."""

    sample_rate: int = SAMPLE_RATE
    n_mels: int = 64  # 64 or 128
    win_length: int = 400
    hop_length: int = 160
    f_min: float = 50.0
    f_max: float = 4000.0  # public cry corpora are band-limited to 4 kHz; nothing above may be used
    level: float = (
        0.1  # RMS every input is scaled to: gain does not matter, and power stays far below fp16's 65504
    )
    rms_floor: float = 1e-4  # added to the RMS, so that digital silence stays silent
    floor: float = 1e-4  # added to power before the logarithm: about 42 dB below the frame's mean level
    mean: float = -1.5  # fixed standardisation before the network, so that no statistic of a site is learned
    std: float = 2.8

    @property
    def n_fft(self) -> int:
        """512, or 1024 for 128 bins: below that some mel filters cover no FFT bin at all."""
        return 512 if self.n_mels <= 64 else 1024

    @property
    def n_frames(self) -> int:
        """Log-mel frames per one-second input, without padding: 98."""
        return (FRAME_SAMPLES - self.win_length) // self.hop_length + 1


@dataclass(frozen=True)
class ModelConfig:
    """The whole network. `reasons` is not here: the label set belongs to the manifest."""

    log_mel: LogMelConfig = field(default_factory=LogMelConfig)
    denoiser_channels: int = 16
    tokenizer_channels: tuple[int, int, int] = (16, 32, 32)
    d_model: int = 96
    n_layers: int = 6
    n_heads: int = 3
    d_ff: int = 288
    lora_rank: int = 16
    lora_alpha: float = 32.0
    head_hidden: int = 64
    dropout: float = (
        0.0  # LoRA on a frozen backbone; dropout would also break step-for-step reproducibility tests
    )
    causal: bool = False
    freeze_a: bool = False  # FFA-LoRA: only B travels, averages are exact (mean(B)A = mean(BA))
    energy_temperature: float = 1.0

    @property
    def n_bands(self) -> int:
        """Frequency bands per time step: 64 mel bins make one token per step, 128 make two."""
        return max(1, self.log_mel.n_mels // 64)

    @property
    def n_tokens(self) -> int:
        """Tokens per one-second frame: 24 or 48."""
        return self.n_bands * (self.log_mel.n_frames // 4)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, for manifests and digests."""
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> ModelConfig:
        """Inverse of `to_dict`."""
        raw = dict(raw)
        raw["log_mel"] = LogMelConfig(**raw["log_mel"])
        raw["tokenizer_channels"] = tuple(raw["tokenizer_channels"])
        return cls(**raw)


_PRESETS: dict[str, ModelConfig] = {
    "tiny": ModelConfig(
        denoiser_channels=8, tokenizer_channels=(8, 8, 16), d_model=32, n_layers=2, n_heads=2, d_ff=64,
        lora_rank=4, lora_alpha=8.0, head_hidden=16,
    ),
    "compact": ModelConfig(),
    "paper": ModelConfig(
        denoiser_channels=24, tokenizer_channels=(32, 64, 64), d_model=480, n_heads=8, d_ff=1856,
        lora_rank=32, lora_alpha=64.0, head_hidden=234,
    ),
}  # fmt: skip


def preset(name: str, *, n_mels: int = 64, causal: bool = False) -> ModelConfig:
    """Return a preset, with the two options that change its input or its mask.

    Raises:
        ConfigError: the name is not a preset, or `n_mels` is neither 64 nor 128.
    """
    if name not in _PRESETS:
        raise ConfigError(f"unknown model preset {name!r}: choose one of {', '.join(_PRESETS)}")
    if n_mels not in (64, 128):
        raise ConfigError(f"n_mels={n_mels} is not supported: choose 64 or 128")
    base = _PRESETS[name]
    return replace(base, log_mel=replace(base.log_mel, n_mels=n_mels), causal=causal)
