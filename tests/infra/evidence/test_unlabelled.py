"""Clips without a label: put to networks that never met them, and counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from infra.evidence.panel import Judge
from infra.evidence.unlabelled import unlabelled_document, unlabelled_rows
from models.calibration import SiteCalibration
from models.config import SAMPLE_RATE


@pytest.fixture
def clips(tmp_path: Path) -> pd.DataFrame:
    """Four devices of one corpus, two recordings of another, one of them silent; the value of a file's samples is its level."""
    rows = []
    for k, level in enumerate([0.1, 0.2, 0.3, 0.4, 0.5, 0.0]):
        path = f"{k}.wav"
        soundfile.write(tmp_path / path, np.full(SAMPLE_RATE * 2, level, np.float32), SAMPLE_RATE, "FLOAT")
        corpus, label = ("uploads", "unknown") if k < 4 else ("sounds", "crying_baby")
        rows.append({"path": path, "role": "unlabelled", "corpus": corpus, "label": label, "group": f"g{k}"})
    return pd.DataFrame([*rows, {**rows[0], "path": "a cry", "role": "cry"}])


def judge(asked: list[float]) -> Judge:
    def answers(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        asked.extend(sorted({round(float(v), 2) for v in frames[:, 0]}))
        return np.where(frames[:, 0] > 0.15, 4.0, -4.0), np.zeros(len(frames))

    return Judge(answers, SiteCalibration("", gate_threshold=0.5))


def test_they_are_put_to_the_network_that_never_met_their_device(clips: pd.DataFrame, tmp_path: Path) -> None:
    rows = unlabelled_rows(
        clips, pd.DataFrame({"group": ["g0", "g1", "g2", "x"]}), np.array([1, 1, 0, 0], np.int8)
    )
    assert rows["path"].tolist() == [f"{k}.wav" for k in range(6)]
    assert rows["fold"].tolist() == [1, 1, 0, -1, -1, -1]
    asked: tuple[list[float], list[float]] = ([], [])
    sounds, uploads = unlabelled_document([judge(asked[0]), judge(asked[1])], rows, tmp_path, 50)
    assert asked == ([0.5, 0.3], [0.1, 0.2, 0.4])  # the first corpus first; who is in no fold takes turns
    assert (sounds["corpus"], sounds["label"], sounds["clips"]) == (
        "sounds",
        "crying_baby",
        1,
    )  # silence is left out
    assert sounds["cry"]["value"] == 1.0
    assert (uploads["clips"], uploads["groups"], uploads["abstains"]) == (4, 4, 0)
    assert uploads["cry"]["value"] == 0.75
    assert uploads["cry"]["low"] < 0.75 < uploads["cry"]["high"]


def test_a_manifest_without_such_clips_has_no_table(clips: pd.DataFrame, tmp_path: Path) -> None:
    rows = unlabelled_rows(clips[clips["role"] == "cry"], clips[:1], np.zeros(1, np.int8))
    assert unlabelled_document([judge([])], rows, tmp_path) == []
