"""The baselines, on audio that they can and cannot tell apart."""

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from infra.baselines import clip_table, fit_svm, logistic_regression, majority, support_vector_machine
from infra.data.audio import encode_wav
from infra.data.mfcc import N_STATISTICS, mfcc_statistics, read_statistics, statistics_of
from models import metrics
from models.errors import AudioError, DataError
from models.frames import TEST, TRAIN, SiteFrames

REASONS = ("a", "b", "c")


def tone(f, rng, seconds=1.0):
    t = np.arange(int(16000 * seconds)) / 16000
    return (0.3 * np.sin(2 * np.pi * f * t) + 0.05 * rng.normal(size=t.size)).astype(np.float32)


@pytest.fixture(scope="module")
def table():
    """Reasons are pitches, non-cries are noise; every third clip is in the test part."""
    rng = np.random.default_rng(0)
    waves, sites, index = [], [], 0
    for site in ("ward1", "ward2", ""):
        gate, reason = [], []
        for k in range(30):
            cry = site != "" and k < 20
            gate.append(int(cry))
            reason.append(k % 3 if cry else -1)
            waves.append(
                tone(400 + 500 * (k % 3), rng) if cry else rng.normal(size=16000).astype(np.float32) * 0.2
            )
        n = len(gate)
        ids = np.array([f"{index + i:016x}" for i in range(n)])
        index += n
        sites.append(
            SiteFrames(
                site, REASONS, np.zeros((0, 64, 98), np.float16), np.zeros(0, np.int32), np.zeros(0, np.int16),
                np.zeros(0, np.float32), np.array(gate, np.int8), np.array(reason, np.int16),
                np.where(np.arange(n) % 3 == 2, TEST, TRAIN).astype(np.int8) if site else np.full(n, TRAIN, np.int8),
                np.array([f"{site}{i // 5}" for i in range(n)]), ids, np.repeat("x", n),
            )
        )  # fmt: skip
    x = statistics_of(waves)
    return clip_table(sites, {f"{i:016x}": row for i, row in enumerate(x)})


def test_logistic_regression_hears_pitch_and_noise(table):
    # the test part of a pitch k % 3 == 2 alone would leave one reason: score all parts here
    scores = logistic_regression(table)
    cries = table.gate == 1
    assert metrics.auroc(scores.gate_logit, cries) > 0.99
    predicted = scores.reason_logits[cries].argmax(1)
    assert set(predicted) == {0, 1}  # reason 2 is in the test part only, so it is never learned
    assert (predicted == table.reason[cries])[table.part[cries] == TRAIN].all()
    assert (scores.view == 0).all()


def test_the_svm_hears_pitch_and_noise_too(table):
    scores = support_vector_machine(table)
    cries = table.gate == 1
    assert metrics.auroc(scores.gate_logit, cries) > 0.99
    predicted = scores.reason_logits[cries].argmax(1)
    assert set(predicted) == {0, 1}
    assert (predicted == table.reason[cries])[table.part[cries] == TRAIN].all()
    assert (support_vector_machine(table).reason_logits == scores.reason_logits).all()


def test_margins_choose_what_the_svm_itself_chooses():
    """One margin a class, two classes or more, and the largest is scikit-learn's own decision."""
    rng = np.random.default_rng(3)
    for classes in (2, 4):
        y = rng.integers(classes, size=120)
        x = rng.normal(size=(120, 6)) + np.eye(6)[y]
        out = fit_svm(x, y)(x)
        own = make_pipeline(StandardScaler(), SVC(gamma="auto", class_weight="balanced")).fit(x, y)
        assert out.shape == (120, classes)
        assert (out.argmax(1) == own.predict(x)).all()


def test_logistic_regression_is_repeatable(table):
    assert (logistic_regression(table).reason_logits == logistic_regression(table).reason_logits).all()


def test_majority_is_the_training_parts(table):
    scores = majority(table)
    train = (table.part == TRAIN) & (table.gate == 1)
    most = np.bincount(table.reason[train]).argmax()
    assert (scores.reason_logits.argmax(1) == most).all()
    assert metrics.auroc(scores.gate_logit, table.gate == 1) == 0.5


def test_statistics_do_not_hang_on_length_and_survive_short_clips():
    rng = np.random.default_rng(1)
    short, long = mfcc_statistics(tone(500, rng, 1.0)), mfcc_statistics(tone(500, rng, 3.0))
    assert short.shape == (N_STATISTICS,)
    assert np.abs(short[:20] - long[:20]).max() < 8
    assert np.isfinite(mfcc_statistics(np.zeros(10, np.float32))).all()


def test_statistics_of_files(tmp_path):
    wave = tone(500, np.random.default_rng(2))
    (tmp_path / "a.wav").write_bytes(encode_wav(wave))
    x = read_statistics([tmp_path / "a.wav"], max_seconds=10, max_bytes=10**6)
    assert np.abs(x[0] - mfcc_statistics(wave)).max() < 0.5
    with pytest.raises(AudioError):
        read_statistics([tmp_path / "none.wav"], max_seconds=10, max_bytes=10**6)
    assert read_statistics([], max_seconds=10, max_bytes=10**6).shape == (0, N_STATISTICS)


def test_a_clip_without_statistics_is_an_error(table):
    frames = SiteFrames(
        "s", REASONS, np.zeros((0, 64, 98), np.float16), np.zeros(0, np.int32), np.zeros(0, np.int16),
        np.zeros(0, np.float32), np.ones(1, np.int8), np.zeros(1, np.int16), np.zeros(1, np.int8), np.array(["g"]),
        np.array(["feed"]), np.array(["a"]),
    )  # fmt: skip
    with pytest.raises(DataError, match="feed"):
        clip_table([frames], {})
    with pytest.raises(DataError, match="no site"):
        clip_table([], {})
