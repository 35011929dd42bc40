"""What networks are played: each hears its own fold's clips, calibrated on the others'."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from infra.evidence import hearing as h
from infra.evidence.arms import QUICK
from infra.evidence.cell_files import CellFiles
from infra.evidence.hearing import HearingConfig, Networks, cross_fitted, fold_networks, hear, held_out_cries
from infra.evidence.panel import Judge, Panel
from infra.evidence.world import load_world
from models.calibration import SiteCalibration
from models.config import SAMPLE_RATE, preset
from models.errors import DataError
from models.predict import ClipScores


def by_fold(scores: ClipScores) -> list[ClipScores]:
    return [scores.select(scores.part == fold) for fold in range(5)]


def test_a_calibration_knows_nothing_of_its_own_fold(out_of_fold) -> None:
    scores = by_fold(out_of_fold(snrs=(0.0,)))
    known = cross_fitted(scores, 2)
    wild = [replace(s, gate_logit=-9.0 * s.gate_logit, energy=s.energy + 99.0) for s in scores]
    assert cross_fitted([*scores[:2], wild[2], *scores[3:]], 2) == known
    assert cross_fitted([wild[0], *scores[1:]], 2) != known
    noisy = [replace(s, gate_logit=np.where(s.view > 0, 50.0, s.gate_logit)) for s in scores]
    assert cross_fitted(noisy, 2) == known  # clips as recorded alone
    assert known.gate_fitted
    assert known.energy_fitted
    rows = [s.select(s.view == 0) for k, s in enumerate(scores) if k != 2]
    assert known.n_cries == sum(int((s.gate == 1).sum()) for s in rows)
    assert known.n_noncries == sum(int((s.gate == 0).sum()) for s in rows)


def waves(n: int) -> list[np.ndarray]:
    return [np.full(SAMPLE_RATE * 2, 0.01 * (k + 1), np.float32) for k in range(n)]


def test_each_clip_is_put_to_its_own_judge() -> None:
    asked: dict[int, list[float]] = {0: [], 1: []}

    def judge(k: int, threshold: float) -> Judge:
        def answers(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            asked[k] += sorted({round(float(v), 3) for v in frames[:, 0]})
            return 100.0 * frames[:, 0], np.full(len(frames), float(k))

        return Judge(answers, SiteCalibration("", gate_threshold=threshold, energy_threshold=0.5))

    panel = Panel([judge(0, 0.9), judge(1, 0.5)], [0, 1, 0])
    verdicts = panel.ask(waves(3))
    assert asked == {0: [0.01, 0.03], 1: [0.02]}
    np.testing.assert_allclose(verdicts.confidence, 1 / (1 + np.exp(-np.array([1.0, 2.0, 3.0]))), rtol=1e-5)
    assert verdicts.cry.tolist() == [
        False,
        True,
        True,
    ]  # 0.73 against 0.9, 0.88 against 0.5, 0.95 against 0.9
    assert verdicts.abstains.tolist() == [False, True, False]
    asked[0], asked[1] = [], []
    panel.in_turn(waves(4))
    assert asked == {0: [0.01, 0.03], 1: [0.02, 0.04]}
    assert panel.summary() == {
        "networks": 2, "site": "", "gate_threshold": 0.7, "gate_temperature": 1.0, "gate_bias": 0.0, "energy_threshold": 0.5,
    }  # fmt: skip


def test_a_clip_is_pooled_as_its_judge_was_calibrated() -> None:
    def rising(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.log(np.arange(1.0, len(frames) + 1)), -np.log(np.arange(1.0, len(frames) + 1))

    wave = [np.ones(2 * SAMPLE_RATE, np.float32)]  # three frames
    for bias, expected in ((0.0, np.log(2.0)), (-0.5, np.log(2.0) - 0.5)):
        got = Panel([Judge(rising, SiteCalibration("x", gate_bias=bias))], [0]).confidence(wave)
        assert got[0] == pytest.approx(1 / (1 + np.exp(-expected)))


@pytest.mark.parametrize(("judges", "of"), [(0, [0]), (1, [1]), (2, [0, -1])])
def test_a_clip_without_a_judge_is_refused(judges: int, of: list[int]) -> None:
    with pytest.raises(DataError, match="put to judges"):
        Panel([Judge(lambda x: (x, x), SiteCalibration(""))] * judges, of)


def test_cries_of_every_fold_are_put_to_the_network_that_never_met_them(world: Path, corpus: Path) -> None:
    loaded = load_world(world)
    rows = pd.concat(
        [loaded.rows, loaded.rows[loaded.rows["role"] == "cry"]], ignore_index=True
    )  # two of each
    folds = np.concatenate([loaded.folds, loaded.folds[(loaded.rows["role"] == "cry").to_numpy()]])
    networks = Networks(rows, corpus.parent, folds, (), (), preset("tiny"), loaded.reasons, "")
    once, all_of = held_out_cries(networks, 1), held_out_cries(networks, 9)
    groups = rows["group"][rows["role"] == "cry"]
    assert sorted(c.group for c in once) == sorted(set(groups))
    assert len(all_of) == len(groups)
    fold_of = dict(zip(rows["group"], folds.tolist(), strict=True))
    assert all(c.judge == fold_of[c.group] for c in all_of)


def test_networks_that_are_not_there_are_named(world: Path, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="network of federated, fold 0 is not there"):
        fold_networks(load_world(world), corpus, QUICK.kept, tmp_path)


def test_clips_that_do_not_suffice_are_a_reason_and_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0})

    def fail(_networks: Networks, fold: int, *_: object) -> None:
        if fold == 1:
            raise DataError("the test half of fold 1 holds no cries")

    monkeypatch.setattr(h, "_behaviour", lambda *_: {"checks": []})
    monkeypatch.setattr(h, "_tracks", fail)
    files = (CellFiles(tmp_path, tmp_path),) * 2
    networks = Networks(pd.DataFrame(), tmp_path, np.zeros(0, np.int8), files, (), preset("tiny"), (), "")
    heard = hear(networks, HearingConfig(), tmp_path, "cryfed evidence")
    assert heard.documents == {"behaviour": {"checks": []}}
    assert heard.missing == {"long recordings": "the test half of fold 1 holds no cries"}
