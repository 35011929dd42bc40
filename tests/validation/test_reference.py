"""The reference: what is counted, what is merged so that it may travel, and which files are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from models.errors import DataError
from tests.validation.conftest import Federation
from validation.measure import measure_site
from validation.reference import (
    FILE,
    LEAST,
    MAX_BYTES,
    MEASURED,
    MeasuredFeature,
    NamedFeature,
    make_reference,
    merge_bins,
    observe,
    parse_reference,
    read_reference,
)


def table(n: int = 200, seed: int = 0, **columns: Any) -> pd.DataFrame:
    """Clips as `observe` returns them, one a group, every measurement standard normal unless given."""
    rng = np.random.default_rng(seed)
    made: dict[str, Any] = {"group": [f"infant{i}" for i in range(n)], "role": ["cry"] * n}
    made |= {name: rng.normal(size=n) for name in MEASURED}
    made |= {"reason": rng.choice(["hungry", "tired"], n), "platform": rng.choice(["android", "ios"], n)}
    return pd.DataFrame({**made, **columns})


def feature(clips: pd.DataFrame, name: str) -> MeasuredFeature | NamedFeature:
    return next(f for f in make_reference(clips).features if f.name == name)


def test_ten_bins_of_equal_shares() -> None:
    found = feature(table(), "rms_db")
    assert isinstance(found, MeasuredFeature)
    assert len(found.edges) == 9
    assert sum(found.counts) == 200
    assert found.counts[-1] == 0  # every clip was measured
    assert all(abs(c - 20) <= 2 for c in found.counts[:-1])  # edges are rounded
    assert all(float(f"{e:.3g}") == e for e in found.edges)
    assert found.effective == 199  # as many as there are, less the one that the shares cost


def test_a_value_lies_in_the_bin_that_it_ends() -> None:
    found = MeasuredFeature(name="rms_db", edges=(0.0, 1.0), counts=(5, 5, 5, 0), effective=1.0)
    column = pd.Series([-1, 0.0, 0.5, 1.0, 1.01, np.inf, np.nan])
    assert found.place(column).tolist() == [0, 0, 1, 1, 2, 3, 3]
    assert found.labels() == ["to 0", "0 to 1", "above 1", "not measured"]


def test_a_value_that_most_clips_share_is_a_bin_of_its_own() -> None:
    """A constant sample rate leaves room on both sides, where another one would be seen."""
    found = feature(table(sample_rate=16_000.0), "sample_rate")
    assert isinstance(found, MeasuredFeature)
    assert found.counts == (0, 200, 0, 0)
    assert found.place(pd.Series([8000, 16_000, 44_100])).tolist() == [0, 1, 2]
    assert found.labels() == ["to 16000", "16000", "above 16000", "not measured"]


@pytest.mark.parametrize(
    ("counts", "merged"),
    [
        ([5, 5, 5], [5, 5, 5]),
        ([1, 9, 7], [10, 7]),
        ([9, 4, 7], [9, 11]),
        ([9, 4, 4, 9], [9, 8, 9]),
        ([0, 3, 8], [0, 11]),  # an empty neighbour would not hide them
        ([3, 0, 0], [3]),
        ([2, 1], [3]),
        ([0, 6, 0], [0, 6, 0]),
    ],
)
def test_bins_of_a_few_clips_are_merged(counts: list[int], merged: list[int]) -> None:
    edges, found = merge_bins([float(k) for k in range(len(counts) - 1)], counts)
    assert found == merged
    assert len(edges) == len(merged) - 1


def test_rare_names_are_merged_and_not_told() -> None:
    names = ["hungry"] * 150 + ["tired"] * 40 + ["burping"] * 6 + ["colic"] * 3 + ["zebra"]
    found = feature(table(reason=names), "reason")
    assert isinstance(found, NamedFeature)
    # the four rare ones would be too few together, so the smallest of the others joins them
    assert found.names == ("hungry", "tired")
    assert found.counts == (150, 40, 10)
    assert found.place(pd.Series(["tired", "colic", "never heard", None], dtype=object)).tolist() == [
        1,
        2,
        2,
        -1,
    ]


def test_no_bin_of_a_reference_holds_a_few_clips() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(7, 60))
        clips = table(
            n, seed, reason=rng.choice([*"abcdefgh"], n), clipping_fraction=rng.poisson(0.3, n) / 10
        )
        clips.loc[rng.random(n) < 0.1, "snr_db"] = np.nan
        made = make_reference(clips)
        assert all(c == 0 or c >= LEAST for f in made.features for c in f.counts)
        assert parse_reference(made.to_json(), "here") == made


def test_it_names_no_infant_and_no_file(federation: Federation) -> None:
    clips = observe(federation.table, measure_site(federation.table, federation.root))
    assert len(clips) == 27  # public noise is left out
    text = make_reference(clips).to_json()
    for secret in [*federation.table["path"], *federation.table["group"], *federation.table["sha256"]]:
        assert secret not in text
    for name in MEASURED:
        values = clips[name]
        alone = values[~values.duplicated(keep=False)]
        edges = {e for f in json.loads(text)["features"] if f["name"] == name for e in f["edges"]}
        # an edge that is some clip's exact value has at most the three digits that any edge has
        assert all(float(f"{e:.3g}") == e for e in edges & set(alone))


def test_too_few_clips() -> None:
    with pytest.raises(DataError, match=r"4 clips make no reference.*add recordings"):
        make_reference(table(4))


GOOD = json.loads(make_reference(table()).to_json())
LEVEL = next(k for k, f in enumerate(GOOD["features"]) if f["name"] == "rms_db")


def spoilt(**changes: Any) -> str:
    document = json.loads(json.dumps(GOOD))
    document["features"][LEVEL] |= changes
    return json.dumps(document)


def test_the_one_that_is_spoilt_below_is_good() -> None:
    assert parse_reference(spoilt(), "here").clips == 200


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (spoilt(edges=[*GOOD["features"][LEVEL]["edges"][:-1], float("nan")]), "finite"),
        (spoilt(edges=[*GOOD["features"][LEVEL]["edges"][:-1], float("inf")]), "finite"),
        (spoilt(edges=GOOD["features"][LEVEL]["edges"][::-1]), "edges must rise"),
        (spoilt(edges=[]), "0 edges make 2 counts"),
        (spoilt(counts=[-5, *GOOD["features"][LEVEL]["counts"][1:]]), "greater than or equal to 0"),
        (spoilt(counts=[1, *GOOD["features"][LEVEL]["counts"][1:]]), "should have been merged"),
        (spoilt(counts=[20.5, *GOOD["features"][LEVEL]["counts"][1:]]), "valid integer"),
        (spoilt(counts=[10**12, *GOOD["features"][LEVEL]["counts"][1:]]), "less than or equal"),
        (spoilt(edges=list(range(1000)), counts=[9] * 1002), "at most 64"),
        (spoilt(effective=float("nan")), "finite|greater"),
        (spoilt(effective=0.0), "greater than or equal to 1"),
        (spoilt(effective=201.0), "at most as many"),
        (spoilt(name="heartbeat"), "rms_db"),
        (spoilt(name="peak"), "a feature occurs twice"),
        (spoilt(kind="pickle"), "kind"),
        (spoilt(clips=["a.wav"]), "not permitted"),
        (json.dumps(GOOD | {"schema": 2}), "schema"),
        (json.dumps(GOOD | {"features": []}), "at least 1"),
        ("[" * 100_000, "recursion"),
        ("{", "EOF"),
        ("\x00", "JSON"),
    ],
)  # fmt: skip
def test_a_hostile_reference_is_refused_with_advice(text: str, why: str) -> None:
    with pytest.raises(
        DataError, match=rf"(?s)ref\.json is no drift reference: .*(?:{why}).*--reference-out"
    ):
        parse_reference(text, "ref.json")


def test_a_large_or_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"no drift reference at .*{FILE}.*name the folder of a run"):
        read_reference(tmp_path)
    (tmp_path / FILE).write_text(" " * (MAX_BYTES + 5))
    with pytest.raises(DataError, match=f"{MAX_BYTES + 1} bytes"):
        read_reference(tmp_path)
    (tmp_path / FILE).write_text(json.dumps(GOOD))
    assert read_reference(tmp_path) == read_reference(tmp_path / FILE)
