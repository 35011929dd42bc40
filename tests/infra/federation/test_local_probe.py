"""A site's probe: which clips it hears, what it is filed under, and that counts are all it leaves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from infra.data.audio import ReadLimits
from infra.data.manifest import load_manifest
from infra.data.splits import assign_folds, parts
from infra.federation.local import probe
from infra.federation.local.work import carry_out, probing, site_store
from models.frames import TEST
from models.probe import DRAWS
from tests.infra.federation.recordings import CANARIES, corpus

SITE = "site-0"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("probed"))


@pytest.fixture
def own(manifest: Path) -> tuple[pd.DataFrame, np.ndarray, Path, tuple[str, ...]]:
    """The site's rows, their parts, the root, the label set."""
    loaded = load_manifest(manifest)
    codes = parts(assign_folds(loaded.table, n_folds=5), test_fold=0, val_fold=1).to_numpy(np.int8)
    mine = (loaded.table["site"] == SITE).to_numpy()
    return loaded.table[mine], codes[mine], loaded.root, loaded.reasons


def test_it_hears_cries_of_the_label_set_outside_the_test_part(own) -> None:
    rows, codes, _, reasons = own
    heard = probe.select(rows, codes, reasons[1:])
    assert len(heard)
    assert set(heard["role"]) == {"cry"}
    assert set(heard["label"]) == set(reasons[1:])
    assert not (codes[rows.index.get_indexer(heard.index)] == TEST).any()


def test_counts_are_all_it_leaves(own, tmp_path: Path) -> None:
    rows, codes, root, reasons = own
    made = carry_out(probing(rows, codes, root, ReadLimits(), reasons), tmp_path)
    text = site_store(tmp_path).fetch(made.files[probe.PROBE]).read_text()
    assert not any(word in text for word in CANARIES)
    told = json.loads(text)
    assert set(told) == {"clips", "groups", "observed", "null", "resampled"}
    assert np.array(told["null"]).shape == (DRAWS, len(reasons), len(reasons))
    labels = probe.select(rows, codes, reasons)["label"].value_counts()
    assert np.sum(told["observed"], 1).tolist() == [int(labels.get(r, 0)) for r in reasons]
    assert set(made.files) == {probe.PROBE}


def test_its_key_follows_labels_groups_platforms_and_bytes(own, tmp_path: Path) -> None:
    rows, codes, root, reasons = own

    def key(table: pd.DataFrame, parts: np.ndarray = codes) -> str:
        return probing(table, parts, root, ReadLimits(), reasons).key.digest

    cry = rows.index[(rows["role"] == "cry").to_numpy() & (codes != TEST)][0]
    before = key(rows)
    assert key(rows.copy()) == before
    for column, value in (
        ("label", reasons[0]),
        ("label", reasons[1]),
        ("group", "other"),
        ("platform", "ios"),
    ):
        changed = rows.copy()
        changed.loc[cry, column] = value
        assert (key(changed) == before) is (changed.loc[cry, column] == rows.loc[cry, column])
    assert (
        key(rows, np.where(np.arange(len(codes)) == 0, TEST, codes).astype(np.int8)) != before
        or codes[0] == TEST
    )


def test_a_clip_that_cannot_be_decoded_is_passed_over(own, tmp_path: Path) -> None:
    rows, codes, root, reasons = own
    whole = probe.select(rows, codes, reasons)
    lost = whole.copy()
    lost["path"] = [*lost["path"][:-1], "nothing.wav"]
    told = probe.compute(tmp_path, lost, root, ReadLimits(), reasons)
    assert told["clips"] == len(whole) - 1
    none = lost.assign(path="nothing.wav")
    assert probe.compute(tmp_path, none, root, ReadLimits(), reasons) == {"clips": 0, "groups": 0}


def test_labels_stay_in_their_platform_where_every_cry_names_one() -> None:
    rows = pd.DataFrame({"platform": ["ios", "android"]})
    assert probe._platforms(rows).tolist() == ["ios", "android"]
    assert probe._platforms(pd.DataFrame({"platform": ["ios", ""]})).tolist() == ["", ""]
    assert probe._platforms(pd.DataFrame({"path": ["a", "b"]})).tolist() == ["", ""]
