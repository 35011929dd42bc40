"""Behaviour: what must not change a network's answer, what must not make it surer, and what it must refuse.

Every check compares answers about a clip with answers about the same clip, altered, or asks for a refusal; its bar is stated
before it is measured. Answers are calibrated: p(cry) of a clip's one-second frames, pooled as its network was calibrated.
Changes have percentile intervals over resampled groups (an infant with all of its clips). Probe sounds are independent draws,
so a share of refusals has the exact binomial interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from infra.data.synth.channel import draw_site, record
from infra.data.synth.prosody import draw_infant, plan_cry
from infra.data.synth.voice import render_cry
from infra.evidence.panel import Judge, Panel, Wave
from infra.evidence.probe_sounds import PROBES, probe
from models.augment import mix_at_snr
from models.bootstrap import group_bootstrap_many, mean_interval
from models.config import FRAME_SAMPLES, SAMPLE_RATE
from models.errors import DataError
from models.seeds import derive_seed

Json = dict[str, Any]
_Floats = npt.NDArray[np.float64]

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
    """A clip of crying to alter: `wave` (T ≥ 1.1 s,), the infant or device that it is of, and which judge never met that."""

    wave: Wave
    group: str
    judge: int = 0


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
    judges: Sequence[Judge],
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
        judges: a release alone, or the networks of several folds, each asked about the cries that it never met.
        seed: of synthetic cries, noises and probes.
        cries: that their judge was not trained on; by default synthetic infants.
        noises: to mix in, by name, neither in training; by default white and pink.
        bars: what has to be kept.
        probes: clips of each kind that must be refused, dealt to the judges in turn.
        resamples: of the bootstrap.
        command: what makes these numbers.

    Raises:
        DataError: there is no cry, or one is too short or silent.
    """
    bars = bars or Bars()
    clips = _prepare(synthetic_cries(seed) if cries is None else cries)
    panel = Panel(judges, [c.judge for c in clips])
    checks = [
        *_gain(panel, clips, bars, resamples),
        _polarity(panel, clips, bars, resamples),
        *_shift(panel, clips, bars, resamples),
        *_noise(panel, clips, noises or _coloured(seed), bars, seed, resamples),
        *_refusals(panel, seed, probes, bars),
    ]
    return {
        "protocol": (__doc__ or "").split("\n\n", 1)[1].replace("\n", " ").strip(),
        "command": command,
        "cries": {
            "clips": len(clips), "groups": len({c.group for c in clips}), "synthetic": cries is None,
            "confidence": _mean(panel.confidence([_middle(c.wave) for c in clips]), clips, resamples),
        },
        "calibration": panel.summary(),
        "checks": checks,
        "passed": all(c["passed"] for c in checks),
    }  # fmt: skip


def fits(wave: Wave) -> bool:
    """Whether a clip can be altered: long enough, and not silent."""
    return len(wave) >= FRAME_SAMPLES + 2 * _MARGIN and bool(wave.any())


def _prepare(cries: Sequence[Cry]) -> list[Cry]:
    out = []
    for cry in cries:
        wave = np.asarray(cry.wave, np.float32)
        if not fits(wave):
            raise DataError(f"a cry of {cry.group} is silent or shorter than 1.1 s: leave it out")
        rms = float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))
        peak = float(np.max(np.abs(wave)))
        # as loud as 12 dB more allow: checks of gain are about the network, not about a recorder's clipping
        wave = wave * np.float32(max(_LEAST_RMS / rms, 1.0))
        wave = wave * np.float32(min(1.0, _PEAK / max(peak * max(_LEAST_RMS / rms, 1.0), 1e-9)))
        out.append(replace(cry, wave=wave))
    if not out:
        raise DataError("behaviour needs at least one cry")
    return out


def _middle(wave: Wave, shift: int = 0) -> Wave:
    """All but 50 ms on either side, moved by `shift` samples: what enters is sound, not silence."""
    return wave[_MARGIN + shift : len(wave) - _MARGIN + shift]


def _gain(panel: Panel, clips: Sequence[Cry], bars: Bars, resamples: int) -> list[Json]:
    base = panel.confidence([_middle(c.wave) for c in clips])
    out = []
    for gain in GAINS_DB:
        factor = np.float32(10.0 ** (gain / 20.0))
        change = np.abs(panel.confidence([_middle(c.wave) * factor for c in clips]) - base)
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


def _polarity(panel: Panel, clips: Sequence[Cry], bars: Bars, resamples: int) -> Json:
    base = panel.confidence([_middle(c.wave) for c in clips])
    change = np.abs(panel.confidence([-_middle(c.wave) for c in clips]) - base)
    return _check(
        "polarity", "inverted", float(change.max()), bars.polarity, change=_mean(change, clips, resamples)
    )


def _shift(panel: Panel, clips: Sequence[Cry], bars: Bars, resamples: int) -> list[Json]:
    base = panel.ask([_middle(c.wave) for c in clips])
    out = []
    for ms in SHIFTS_MS:
        moved = panel.ask([_middle(c.wave, ms * SAMPLE_RATE // 1000) for c in clips])
        change = _mean(np.abs(moved.confidence - base.confidence), clips, resamples)
        flips = _mean((moved.cry != base.cry).astype(np.float64), clips, resamples)
        worst = _upper(change)
        check = _check("shift", f"{ms:+d} ms", worst, bars.shift, change=change, flips=flips)
        out.append(
            {**check, "passed": check["passed"] and _upper(flips) <= bars.flips, "flips_bar": bars.flips}
        )
    return out


def _noise(
    panel: Panel,
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
        columns = [panel.confidence([_middle(c.wave) for c in clips])]
        drawn = []
        for k in range(len(clips)):
            rng = np.random.Generator(np.random.PCG64(derive_seed("behaviour", seed, "noise", name, k)))
            noise = waves[int(rng.integers(len(waves)))]
            drawn.append(np.roll(noise, -int(rng.integers(len(noise)))))
        for snr in SNRS_DB:
            mixed = [mix_at_snr(_middle(c.wave), n, snr) for c, n in zip(clips, drawn, strict=True)]
            columns.append(panel.confidence(mixed))
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


def _refusals(panel: Panel, seed: int, probes: int, bars: Bars) -> list[Json]:
    from scipy.stats import binomtest

    out = []
    for kind in PROBES:
        found = panel.in_turn([probe(kind, seed, k) for k in range(probes)])
        p, by_gate, by_energy = found.confidence, ~found.cry, found.abstains
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
    return mean_interval(values, np.array([c.group for c in clips]), seed=0, resamples=resamples).to_dict()


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
