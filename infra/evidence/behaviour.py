"""Behaviour: what must not change a network's answer, what must not make it surer, and what it must refuse.

Every check compares answers about a clip with answers about the same clip, altered, or asks for a refusal; its bar is stated
before it is measured. Answers are calibrated: p(cry) of the pooled logit over a clip's one-second frames, as a release gives
them. Changes have percentile intervals over resampled groups (an infant with all of its clips). Probe sounds are independent
draws, so a share of refusals has the exact binomial interval.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from infra.data.synth.channel import draw_site, record
from infra.data.synth.prosody import draw_infant, plan_cry
from infra.data.synth.voice import render_cry
from infra.evidence.probe_sounds import PROBES, probe
from models.augment import mix_at_snr
from models.bootstrap import group_bootstrap, group_bootstrap_many
from models.calibration import SiteCalibration
from models.config import FRAME_SAMPLES, SAMPLE_RATE
from models.errors import DataError
from models.seeds import derive_seed

Json = dict[str, Any]
Wave = npt.NDArray[np.float32]
_Floats = npt.NDArray[np.float64]

Answers = Callable[[Wave], tuple[npt.NDArray, npt.NDArray]]
"""One-second frames (N, 16000) float32 → gate logits (N,) and energies (N,)."""

GAINS_DB: Final = (-12.0, -6.0, 6.0, 12.0)
SHIFTS_MS: Final = (-50, -20, -10, 10, 20, 50)
SNRS_DB: Final = (30.0, 20.0, 15.0, 10.0, 5.0, 0.0, -5.0, -10.0)

_MARGIN = SAMPLE_RATE // 20  # 50 ms on either side, for shifts
_PEAK = 0.2  # before the gains: 12 dB more still fit
_LEAST_RMS = 10.0 ** (-40.0 / 20.0)  # and 12 dB less are still far above the front end's floor


@dataclass(frozen=True)
class Bars:
    """What a network has to keep."""

    gain: float = 0.02  # largest change of p(cry) at any gain: the front end scales every frame to one level
    polarity: float = 1e-6  # largest change of p(cry): power has no sign
    shift: float = 0.05  # mean change of p(cry), upper end of its interval
    flips: float = 0.05  # share of decisions that a shift turns, upper end of its interval
    noise: float = 0.01  # rise of mean p(cry) with more noise, lower end of its interval
    refused: float = 0.95  # share of each kind of probe, as measured


@dataclass(frozen=True)
class Cry:
    """A clip of crying to alter: `wave` (T ≥ 1.1 s,), and the infant or device that it is of."""

    wave: Wave
    group: str


def of_network(net: Any) -> Answers:
    """A `models.network.CryNet` as answers."""
    import torch

    net.eval()

    def answer(frames: Wave) -> tuple[npt.NDArray, npt.NDArray]:
        with torch.inference_mode():
            out = net(torch.from_numpy(np.ascontiguousarray(frames)))
        return out.gate_logit.numpy(), out.energy.numpy()

    return answer


def synthetic_cries(seed: int, infants: int = 12, each: int = 3, seconds: float = 3.2) -> list[Cry]:
    """Infants that no corpus holds, for where real cries cannot be had."""
    out = []
    for i in range(infants):
        rng = np.random.Generator(np.random.PCG64(derive_seed("behaviour", seed, "infant", i)))
        infant, site = draw_infant(rng, 1.0), draw_site(rng)
        for _ in range(each):
            dry = render_cry(plan_cry(rng, infant, None, seconds, 1.0), seconds, rng)
            out.append(Cry(record(dry, site, rng).astype(np.float32), f"behaviour-{seed}-{i:02d}"))
    return out


def behaviour_document(
    net: Answers,
    calibration: SiteCalibration,
    seed: int = 0,
    *,
    cries: Sequence[Cry] | None = None,
    noises: Mapping[str, Sequence[Wave]] | None = None,
    bars: Bars | None = None,
    probes: int = 40,
    resamples: int = 1000,
    command: str = "",
) -> Json:
    """Every check with its numbers, its bar and its verdict.

    Args:
        net: `of_network`, or an exported graph's answers.
        calibration: the release's, or a site's.
        seed: of synthetic cries, noises and probes.
        cries: that the network was not trained on; by default synthetic infants.
        noises: to mix in, by name, neither in training; by default white and pink.
        bars: what has to be kept.
        probes: clips of each kind that must be refused.
        resamples: of the bootstrap.
        command: what makes these numbers.

    Raises:
        DataError: there is no cry, or one is too short or silent.
    """
    bars = bars or Bars()
    clips = _prepare(synthetic_cries(seed) if cries is None else cries)
    asker = _Asker(net, calibration)
    checks = [
        *_gain(asker, clips, bars, resamples),
        _polarity(asker, clips, bars, resamples),
        *_shift(asker, clips, bars, resamples),
        *_noise(asker, clips, noises or _coloured(seed), bars, seed, resamples),
        *_refusals(asker, seed, probes, bars),
    ]
    return {
        "protocol": (__doc__ or "").split("\n\n", 1)[1].replace("\n", " ").strip(),
        "command": command,
        "cries": {
            "clips": len(clips), "groups": len({c.group for c in clips}), "synthetic": cries is None,
            "confidence": _mean(asker.confidence([_middle(c.wave) for c in clips]), clips, resamples),
        },
        "calibration": {
            "site": calibration.site, "gate_threshold": calibration.gate_threshold,
            "gate_temperature": calibration.gate_temperature, "energy_threshold": calibration.energy_threshold,
        },
        "checks": checks,
        "passed": all(c["passed"] for c in checks),
    }  # fmt: skip


class _Asker:
    """Clips in, calibrated answers out."""

    def __init__(self, net: Answers, calibration: SiteCalibration) -> None:
        self._net, self.calibration = net, calibration

    def scores(self, waves: Sequence[Wave]) -> tuple[_Floats, _Floats]:
        """Mean gate logit and energy of each clip; frames lie half a second apart."""
        cut = [_frames(w) for w in waves]
        of = np.repeat(np.arange(len(cut)), [len(f) for f in cut])
        every = np.concatenate(cut)
        parts = [self._net(every[i : i + 128]) for i in range(0, len(every), 128)]
        counts = np.bincount(of)
        logit, energy = (np.concatenate([np.asarray(p[k], np.float64) for p in parts]) for k in (0, 1))
        if not (np.isfinite(logit).all() and np.isfinite(energy).all()):
            raise DataError("the network's answers are not finite: behaviour cannot be checked")
        return np.bincount(of, logit) / counts, np.bincount(of, energy) / counts

    def confidence(self, waves: Sequence[Wave]) -> _Floats:
        """p(cry) of each clip."""
        return self.calibration.gate_probability(self.scores(waves)[0])


def _frames(wave: Wave) -> Wave:
    starts = range(0, len(wave) - FRAME_SAMPLES + 1, FRAME_SAMPLES // 2)
    return np.stack([wave[s : s + FRAME_SAMPLES] for s in starts])


def _prepare(cries: Sequence[Cry]) -> list[Cry]:
    out = []
    for cry in cries:
        wave = np.asarray(cry.wave, np.float32)
        if len(wave) < FRAME_SAMPLES + 2 * _MARGIN or not wave.any():
            raise DataError(f"a cry of {cry.group} is silent or shorter than 1.1 s: leave it out")
        rms = float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))
        peak = float(np.max(np.abs(wave)))
        # as loud as 12 dB more allow: checks of gain are about the network, not about a recorder's clipping
        wave = wave * np.float32(max(_LEAST_RMS / rms, 1.0))
        wave = wave * np.float32(min(1.0, _PEAK / max(peak * max(_LEAST_RMS / rms, 1.0), 1e-9)))
        out.append(Cry(wave, cry.group))
    if not out:
        raise DataError("behaviour needs at least one cry")
    return out


def _middle(wave: Wave, shift: int = 0) -> Wave:
    """All but 50 ms on either side, moved by `shift` samples: what enters is sound, not silence."""
    return wave[_MARGIN + shift : len(wave) - _MARGIN + shift]


def _gain(asker: _Asker, clips: Sequence[Cry], bars: Bars, resamples: int) -> list[Json]:
    base = asker.confidence([_middle(c.wave) for c in clips])
    out = []
    for gain in GAINS_DB:
        factor = np.float32(10.0 ** (gain / 20.0))
        change = np.abs(asker.confidence([_middle(c.wave) * factor for c in clips]) - base)
        out.append(
            _check(
                "gain",
                f"{gain:+g} dB",
                float(change.max()),
                bars.gain,
                change=_mean(change, clips, resamples),
            )
        )
    return out


def _polarity(asker: _Asker, clips: Sequence[Cry], bars: Bars, resamples: int) -> Json:
    base = asker.confidence([_middle(c.wave) for c in clips])
    change = np.abs(asker.confidence([-_middle(c.wave) for c in clips]) - base)
    return _check(
        "polarity", "inverted", float(change.max()), bars.polarity, change=_mean(change, clips, resamples)
    )


def _shift(asker: _Asker, clips: Sequence[Cry], bars: Bars, resamples: int) -> list[Json]:
    threshold = asker.calibration.gate_threshold
    base = asker.confidence([_middle(c.wave) for c in clips])
    out = []
    for ms in SHIFTS_MS:
        moved = asker.confidence([_middle(c.wave, ms * SAMPLE_RATE // 1000) for c in clips])
        change = _mean(np.abs(moved - base), clips, resamples)
        flips = _mean(((moved >= threshold) != (base >= threshold)).astype(np.float64), clips, resamples)
        worst = _upper(change)
        check = _check("shift", f"{ms:+d} ms", worst, bars.shift, change=change, flips=flips)
        out.append(
            {**check, "passed": check["passed"] and _upper(flips) <= bars.flips, "flips_bar": bars.flips}
        )
    return out


def _noise(
    asker: _Asker,
    clips: Sequence[Cry],
    noises: Mapping[str, Sequence[Wave]],
    bars: Bars,
    seed: int,
    resamples: int,
) -> list[Json]:
    """Mean confidence over the SNR grid: of no two points may the noisier be surer, so far as the interval can tell."""
    grid = [None, *SNRS_DB]
    pairs = [(i, j) for j in range(len(grid)) for i in range(j)]
    out = []
    group = np.array([c.group for c in clips])
    for name, waves in noises.items():
        columns = [asker.confidence([_middle(c.wave) for c in clips])]
        drawn = []
        for k in range(len(clips)):
            rng = np.random.Generator(np.random.PCG64(derive_seed("behaviour", seed, "noise", name, k)))
            noise = waves[int(rng.integers(len(waves)))]
            drawn.append(np.roll(noise, -int(rng.integers(len(noise)))))
        for snr in SNRS_DB:
            mixed = [mix_at_snr(_middle(c.wave), n, snr) for c, n in zip(clips, drawn, strict=True)]
            columns.append(asker.confidence(mixed))
        p = np.stack(columns, 1)
        both = np.concatenate([p, *(p[:, [j]] - p[:, [i]] for i, j in pairs)], 1)

        def mean(w: _Floats | None, both: _Floats = both) -> _Floats:
            return both.mean(0) if w is None else (w @ both) / w.sum(1, keepdims=True)

        intervals = [i.to_dict() for i in group_bootstrap_many(mean, group, seed=seed, resamples=resamples)]
        rises: list[Json] = [
            {"from_db": grid[i], "to_db": grid[j], "change": change}
            for (i, j), change in zip(pairs, intervals[len(grid) :], strict=True)
        ]
        worst = max(rises, key=lambda r: _lower(r["change"]))
        check = _check("noise", name, _lower(worst["change"]), bars.noise)
        rows = [{"snr_db": s, "confidence": i} for s, i in zip(grid, intervals, strict=False)]
        out.append({**check, "curve": rows, "worst": worst})
    return out


def _refusals(asker: _Asker, seed: int, probes: int, bars: Bars) -> list[Json]:
    from scipy.stats import binomtest

    calibration, out = asker.calibration, []
    for kind in PROBES:
        logit, energy = asker.scores([probe(kind, seed, k) for k in range(probes)])
        p = calibration.gate_probability(logit)
        by_gate = p < calibration.gate_threshold
        by_energy = calibration.abstains(energy)
        refused = int((by_gate | by_energy).sum())
        ends = binomtest(refused, probes).proportion_ci(0.95)
        out.append(
            {
                "check": "refusal", "what": kind, "measured": refused / probes, "bar": bars.refused,
                "passed": refused / probes >= bars.refused, "clips": probes, "by_gate": int(by_gate.sum()),
                "by_energy_alone": int((by_energy & ~by_gate).sum()), "mean_confidence": float(p.mean()),
                "highest_confidence": float(p.max()),
                "refused": {
                    "value": refused / probes, "low": float(ends.low), "high": float(ends.high), "groups": probes,
                },
            }
        )  # fmt: skip
    return out


def _check(name: str, what: str, measured: float, bar: float, **more: Any) -> Json:
    """A check that passes when what was measured is at most the bar."""
    return {"check": name, "what": what, "measured": measured, "bar": bar, "passed": measured <= bar, **more}


def _mean(values: _Floats, clips: Sequence[Cry], resamples: int) -> Json:
    def mean(w: _Floats | None) -> _Floats:
        return values.mean() if w is None else (w @ values) / w.sum(1)

    return group_bootstrap(mean, np.array([c.group for c in clips]), seed=0, resamples=resamples).to_dict()


def _upper(interval: Json) -> float:
    """Its upper end; with a single group, the value."""
    return float(interval["value"] if interval["high"] is None else interval["high"])


def _lower(interval: Json) -> float:
    return float(interval["value"] if interval["low"] is None else interval["low"])


def _coloured(seed: int) -> dict[str, list[Wave]]:
    """White and pink noise, five seconds each."""
    out = {}
    for name, exponent in (("white", 0.0), ("pink", 0.5)):
        rng = np.random.Generator(np.random.PCG64(derive_seed("behaviour", seed, "coloured", name)))
        f = np.fft.rfftfreq(5 * SAMPLE_RATE, 1.0 / SAMPLE_RATE)
        spectrum = np.fft.rfft(rng.standard_normal(5 * SAMPLE_RATE)) * np.maximum(f, 20.0) ** -exponent
        wave = np.fft.irfft(spectrum, 5 * SAMPLE_RATE)
        out[name] = [(0.1 * wave / np.sqrt(np.mean(wave**2))).astype(np.float32)]
    return out
