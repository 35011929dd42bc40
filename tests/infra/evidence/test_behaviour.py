"""Behaviour of a real network, trained here in seconds on synthetic infants, and of networks that misbehave on purpose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from infra.data.synth.channel import draw_site, record
from infra.data.synth.noises import MAKERS
from infra.evidence import behaviour as b
from infra.evidence.behaviour import Bars, Cry, behaviour_document, synthetic_cries
from infra.evidence.panel import Judge, of_network
from infra.evidence.probe_sounds import PROBES, probe
from models.calibration import SiteCalibration, calibrate_site
from models.config import SAMPLE_RATE, preset
from models.errors import ConfigError, DataError
from models.frames import TRAIN, VAL, SiteFrames
from models.gate_batches import GateBatches
from models.gate_step import GateConfig
from models.gate_training import train_gate
from models.log_mel import LogMel
from models.network import CryNet
from models.predict import predict
from models.segmentation import frames

CFG = preset("tiny")
SECONDS = 2.0
KINDS = sorted(MAKERS)


def site_frames(name: str, clips: list[tuple[np.ndarray, int, int]]) -> SiteFrames:
    """(wave, gate, part) → the frames that a site trains on."""
    front = LogMel(CFG.log_mel).eval()
    mel, clip = [], []
    with torch.inference_mode():
        for k, (wave, _, _) in enumerate(clips):
            kept = frames(wave)
            mel.append(front(torch.from_numpy(kept)).numpy().astype(np.float16))
            clip += [k] * len(kept)
    gate = np.array([g for _, g, _ in clips], np.int8)
    ids = np.array([f"{name}{k:04d}" for k in range(len(clips))])
    return SiteFrames(
        site=name, reasons=("hungry", "tired"), log_mel=np.concatenate(mel), clip=np.array(clip, np.int32),
        view=np.zeros(len(clip), np.int16), snr_db=np.full(len(clip), np.nan, np.float32), gate=gate,
        reason=np.where(gate == 1, np.arange(len(gate)) % 2, -1).astype(np.int16),
        part=np.array([p for _, _, p in clips], np.int8), group=ids, clip_id=ids, label=ids,
    )  # fmt: skip


def others(n: int, seed: int) -> list[np.ndarray]:
    out = []
    for k in range(n):
        rng = np.random.default_rng([seed, k])
        wave = MAKERS[KINDS[k % len(KINDS)]](rng, round(SECONDS * SAMPLE_RATE))
        out.append(record(wave, draw_site(rng), rng).astype(np.float32))
    return out


@pytest.fixture(scope="module")
def trained() -> tuple[CryNet, SiteCalibration]:
    """A tiny network that tells synthetic cries from the synthesiser's other sounds, and its calibration."""
    crying = synthetic_cries(99, infants=20, each=3, seconds=SECONDS)
    clips = [(c.wave, 1, VAL if k % 3 == 2 else TRAIN) for k, c in enumerate(crying)]
    clips += [(w, 0, VAL if k % 3 == 2 else TRAIN) for k, w in enumerate(others(75, 1))]
    site = site_frames("ward", clips)
    public = site_frames("", [(w, 0, TRAIN) for w in others(60, 2)])
    net = CryNet(CFG, ("hungry", "tired"), seed=1)
    batches = GateBatches([site.select(site.part[site.clip] == TRAIN)], public, CFG.log_mel)
    train_gate(net, batches, GateConfig(steps=150, batch_size=8, lr=3e-3, energy_weight=0.1), seed=0)
    judged = predict(net, site.select(site.part[site.clip] == VAL))
    return net, calibrate_site(judged, site="ward")


@pytest.fixture(scope="module")
def document(trained):
    net, calibration = trained
    return behaviour_document(
        [Judge(of_network(net), calibration)],
        3,
        cries=synthetic_cries(3, infants=8, each=2),
        probes=24,
        resamples=300,
    )


def checks(document, name: str) -> dict:
    return {c["what"]: c for c in document["checks"] if c["check"] == name}


def test_the_network_knows_a_cry(document) -> None:
    assert document["cries"]["confidence"]["value"] > 0.7
    assert document["calibration"]["energy_threshold"] is not None


def test_gain_changes_nothing(document) -> None:
    found = checks(document, "gain")
    assert set(found) == {"-12 dB", "-6 dB", "+6 dB", "+12 dB"}
    # by construction: every frame is scaled to one level, but for the floor that keeps silence silent
    assert max(c["measured"] for c in found.values()) < 0.02
    assert all(c["passed"] for c in found.values())


def test_polarity_changes_not_a_bit(document) -> None:
    (check,) = checks(document, "polarity").values()
    assert check["measured"] == 0.0
    assert check["passed"]


def test_small_shifts_change_little(document) -> None:
    for check in checks(document, "shift").values():
        assert 0.0 < check["change"]["value"] < 0.1
        assert check["flips"]["value"] < 0.15


def test_noise_does_not_make_it_surer(document) -> None:
    for check in checks(document, "noise").values():
        assert check["passed"], check["worst"]
        p = [row["confidence"]["value"] for row in check["curve"]]
        assert p[-1] < p[0]


def test_what_is_no_cry_is_refused(document) -> None:
    found = checks(document, "refusal")
    assert set(found) == set(PROBES)
    for kind, check in found.items():
        assert check["refused"]["low"] <= check["measured"] <= check["refused"]["high"]
        assert check["measured"] == (check["by_gate"] + check["by_energy_alone"]) / check["clips"]
        assert check["measured"] >= 0.7, (kind, check)
    assert found["hum"]["measured"] == 1.0


def test_the_same_seed_gives_the_same_document(trained, document) -> None:
    net, calibration = trained
    again = behaviour_document(
        [Judge(of_network(net), calibration)],
        3,
        cries=synthetic_cries(3, infants=8, each=2),
        probes=24,
        resamples=300,
    )
    assert again == document


CALM = SiteCalibration("ward")
FEW = synthetic_cries(5, infants=3, each=1, seconds=1.6)


def answers(rule):
    """A network whose logit is a function of a frame's samples."""

    def answer(wave: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logit = rule(wave)
        return logit, np.zeros(len(logit))

    return answer


@pytest.mark.parametrize(
    ("check", "rule"),
    [
        ("gain", lambda x: 20 * np.sqrt(np.mean(x**2, axis=1)) - 1),
        ("polarity", lambda x: 3 * np.sign(np.mean(x**3, axis=1))),
        ("shift", lambda x: 300 * (x[:, 0] + x[:, 7])),
        # surer of the louder noise: high frequencies stand for crying
        ("noise", lambda x: 8 * np.mean(np.diff(x) ** 2, axis=1) / (np.mean(x**2, axis=1) + 1e-9) - 2),
        ("refusal", lambda x: np.full(len(x), 2.0)),
    ],
)
def test_a_network_that_misbehaves_is_found_out(check: str, rule) -> None:
    document = behaviour_document([Judge(answers(rule), CALM)], 1, cries=FEW, probes=6, resamples=100)
    assert not all(c["passed"] for c in checks(document, check).values())
    assert not document["passed"]


def test_energy_can_refuse_what_the_gate_lets_through() -> None:
    sure = answers(lambda x: np.full(len(x), 2.0))
    wary = replace(CALM, energy_threshold=-1.0)
    found = checks(behaviour_document([Judge(sure, wary)], 1, cries=FEW, probes=6, resamples=50), "refusal")
    assert all(c["by_energy_alone"] == 6 and c["by_gate"] == 0 and c["passed"] for c in found.values())


def test_bars_decide_verdicts() -> None:
    jumpy = answers(lambda x: 0.2 * np.sign(np.mean(x**3, axis=1)))
    strict, lax = (
        checks(
            behaviour_document([Judge(jumpy, CALM)], 1, cries=FEW, bars=bars, probes=4, resamples=50),
            "polarity",
        )
        for bars in (Bars(), Bars(polarity=0.5))
    )
    assert not strict["inverted"]["passed"]
    assert lax["inverted"]["passed"]


@pytest.mark.parametrize("wave", [np.zeros(2 * SAMPLE_RATE, np.float32), np.ones(SAMPLE_RATE, np.float32)])
def test_a_silent_or_short_cry_is_refused(wave: np.ndarray) -> None:
    with pytest.raises(DataError, match="leave it out"):
        behaviour_document([Judge(answers(lambda x: x[:, 0]), CALM)], cries=[Cry(wave, "a")])


def test_no_cry_and_no_finite_answer_are_refused() -> None:
    with pytest.raises(DataError, match="at least one cry"):
        behaviour_document([Judge(answers(lambda x: x[:, 0]), CALM)], cries=[])
    with pytest.raises(DataError, match="finite"):
        behaviour_document([Judge(answers(lambda x: np.full(len(x), np.inf)), CALM)], cries=FEW, probes=2)


@pytest.mark.parametrize("kind", sorted(PROBES))
def test_probes_are_what_they_say(kind: str) -> None:
    waves = [probe(kind, 1, k) for k in range(8)]
    assert all(w.shape == (4 * SAMPLE_RATE,) and w.dtype == np.float32 for w in waves)
    np.testing.assert_array_equal(waves[0], probe(kind, 1, 0))
    assert not np.array_equal(waves[1], probe(kind, 2, 1))
    level = [20 * np.log10(np.sqrt(np.mean(w**2)) + 1e-9) for w in waves]
    if kind == "silence":
        assert max(level) < -59
        return
    assert min(level) > -45
    assert max(np.max(np.abs(w)) for w in waves) <= 0.5
    if kind == "hum":
        for w in waves:
            spectrum = np.abs(np.fft.rfft(w * np.hanning(len(w)))) ** 2
            f = np.fft.rfftfreq(len(w), 1 / SAMPLE_RATE)
            near = (np.abs((f + 25) % 50 - 25) < 2.5) | (np.abs((f + 30) % 60 - 30) < 2.5)
            assert spectrum[near].sum() > 0.9 * spectrum.sum()
    if kind == "speech":  # syllables: the envelope swings slower than 8 Hz, and faster than a drone's
        for w in waves:
            envelope = np.sqrt(np.mean(w.reshape(-1, 160) ** 2, axis=1))
            swing = np.abs(np.fft.rfft(envelope - envelope.mean())) ** 2
            hz = np.fft.rfftfreq(len(envelope), 0.01)
            assert swing[(hz >= 0.5) & (hz <= 8)].sum() > 0.5 * swing.sum()


def test_an_unknown_probe_is_refused() -> None:
    with pytest.raises(ConfigError, match="choose one of"):
        probe("opera", 0, 0)


def test_shifts_move_sound_in_and_out() -> None:
    wave = np.arange(3200, dtype=np.float32)
    assert b._middle(wave)[0] == 800
    assert b._middle(wave, 160)[0] == 960
    assert len(b._middle(wave, -800)) == len(b._middle(wave, 800)) == 1600
