"""The table rules, each on a table small enough to judge by eye."""

from __future__ import annotations

import pandas as pd
import pytest

from validation.expectations import counts, leakage
from validation.expectations.base import TableExpectation


def table(*rows: str) -> pd.DataFrame:
    """Rows as "site group part role label [digest]"; "-" is empty."""
    split = [[*row.split(), "-"][:6] for row in rows]
    frame = pd.DataFrame(split, columns=["site", "group", "part", "role", "label", "file_sha256"]).replace(
        "-", ""
    )
    frame["path"] = [f"{i}.wav" for i in range(len(frame))]
    frame["audio_sha256"] = ""
    return frame


def hits(rule: TableExpectation, frame: pd.DataFrame) -> list[int]:
    mask, found = rule.offending(frame)
    assert mask.dtype == bool
    assert bool(found) or not mask.any(), "rows without a word on them"
    return [int(i) for i in frame.index[mask]]


def test_group_in_two_parts_is_named_with_its_rows() -> None:
    frame = table(
        "w g1 train cry a", "w g1 test cry a", "w g2 train cry a", "w g2 train cry a", "w g1 - unlabelled x"
    )
    rule = leakage.ExpectGroupsToStayTogether(within="part")
    assert hits(rule, frame) == [0, 1]
    assert "g1 in test and train" in rule.offending(frame)[1]


def test_group_at_two_sites() -> None:
    frame = table("w1 g1 train cry a", "w2 g1 train cry a", "- g2 train noise a", "w2 g2 train cry a")
    assert hits(leakage.ExpectGroupsToStayTogether(within="site"), frame) == [0, 1]


def test_duplicates_across_and_within_parts_are_told_apart() -> None:
    frame = table(
        "w g1 train cry a h1", "w g2 test cry a h1",  # across
        "w g3 train cry a h2", "w g4 train cry a h2",  # within
        "w g5 train cry a h3", "w g6 - unlabelled a h3",  # the other copy is in no part
        "w g7 train cry a -", "w g8 test cry a -",  # unread: unknown
    )  # fmt: skip
    assert hits(leakage.ExpectRecordingsToBeUnique(across_parts=True), frame) == [0, 1]
    assert hits(leakage.ExpectRecordingsToBeUnique(across_parts=False), frame) == [2, 3, 4, 5]


def test_duplicate_by_samples_is_reported_once() -> None:
    frame = table("w g1 train cry a h1", "w g2 test cry a h1", "w g3 test cry a h2")
    frame["audio_sha256"] = ["s", "s", "s"]
    rule = leakage.ExpectRecordingsToBeUnique(across_parts=True)
    assert hits(rule, frame) == [0, 1, 2]
    frame["audio_sha256"] = ["s", "s", "t"]
    assert "1 recording(s)" in rule.offending(frame)[1]


@pytest.mark.parametrize("role", ["ood_noncry", "noise"])
def test_site_with_both_sides_passes(role: str) -> None:
    assert (
        hits(counts.ExpectSitesToHoldBothGateSides(), table("w g train cry a", f"w g train {role} b")) == []
    )


def test_one_sided_sites() -> None:
    frame = table(
        "w1 g train cry a", "w2 g train noise b", "w3 g train unlabelled c", "w3 g train cry a", "- g train noise n"
    )  # fmt: skip
    rule = counts.ExpectSitesToHoldBothGateSides()
    assert hits(rule, frame) == [0, 1, 2, 3]
    assert "w2 has 0 cries and 1 other sounds" in rule.offending(frame)[1]


def test_parts_need_both_sides_of_sites_not_of_public_noise() -> None:
    full = [f"w1 g{p} {p} {role} a" for p in ("train", "val", "test") for role in ("cry", "noise")]
    assert hits(counts.ExpectPartsToHoldBothGateSides(), table(*full)) == []
    spoilt = [*full[:-1], "- n test noise a"]
    assert hits(counts.ExpectPartsToHoldBothGateSides(), table(*spoilt)) == [4]
    frame = table(*full, "w2 g9 train cry a")
    assert hits(counts.ExpectPartsToHoldBothGateSides(per_site=False), frame) == []
    assert hits(counts.ExpectPartsToHoldBothGateSides(per_site=True), frame) == [6]


def test_one_reason_alone() -> None:
    frame = table(
        "w1 g train cry a", "w1 g train cry a", "w1 g train noise b", "w2 g train cry a", "w2 g train cry b"
    )
    assert hits(counts.ExpectSitesToHoldReasons(), frame) == [0, 1]


def test_few_groups_at_a_site_and_of_a_reason() -> None:
    frame = table("w1 g1 train cry a", "w1 g2 train cry a", "w2 g3 train cry b", "w2 g3 train cry b")
    assert hits(counts.ExpectSitesToHoldGroups(min_groups=2), frame) == [2, 3]
    assert hits(counts.ExpectReasonsToHaveGroups(min_groups=2), frame) == [2, 3]
    assert hits(counts.ExpectReasonsToHaveGroups(min_groups=3), frame) == [0, 1, 2, 3]


def test_reason_that_is_scored_but_not_trained() -> None:
    frame = table("w g1 train cry a", "w g2 test cry b", "w g3 test noise c")
    assert hits(counts.ExpectReasonsToBeTrained(), frame) == [1]


def test_no_site_at_all_has_no_row_to_blame() -> None:
    frame = table("- g train noise n", "- g2 train cry a")
    assert counts.ExpectSites().offending(frame)[1] == "no row names a site"
    assert hits(counts.ExpectCriesToHaveSite(), frame) == [1]
