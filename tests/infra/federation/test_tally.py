"""Counts under masks: what goes in comes out as a sum, and nothing else fits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.federation.tally import MAX_SITES, Tally, Vote, rejected_by_vote, tally_size
from models.errors import UpdateRejected


def one(k: int = 1) -> Tally:
    return Tally(1, 1, 0, {"total": 0.5 * k, "gate": 0.25, "reason": 2.0, "energy": 0.0},
                 np.array([[k, 0], [1, 2]]), np.arange(9).reshape(3, 3))  # fmt: skip


def test_round_trip_and_sum_by_hand() -> None:
    words = one().to_words()
    assert words.dtype == np.uint32
    assert words.shape == (tally_size(3),) == (20,)
    assert words[3] == 2048  # 0.5 in units of 2^-12
    total = Tally.from_words(words.astype(np.uint64) + one(3).to_words(), 3, summands=2)
    assert (total.inside, total.voters, total.objections) == (2, 2, 0)
    assert total.losses["total"] == 2.0
    assert total.mean_losses(2)["total"] == 1.0
    assert total.gate.tolist() == [[4, 0], [2, 4]]
    scores = total.scores()
    assert scores is not None
    assert scores["sites"] == 2
    assert Tally.empty(3).scores() is None


@given(st.lists(st.floats(0, 1e6), min_size=4, max_size=4), st.integers(1, MAX_SITES))
def test_no_loss_overflows_the_sum(losses: list[float], sites: int) -> None:
    tally = replace(one(), losses=dict(zip(("total", "gate", "reason", "energy"), losses, strict=True)))
    total = tally.to_words().astype(np.uint64) * sites
    assert total.max() < 2**32
    Tally.from_words(total, 3, summands=sites)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_not_sent(value: float) -> None:
    with pytest.raises(UpdateRejected, match="sends nothing"):
        replace(one(), losses={"gate": value}).to_words()


def test_what_no_site_can_count_is_refused() -> None:
    words = one().to_words()
    for index, value in ((0, 2), (2, 9), (5, 2**32 - 1)):
        bad = words.copy()
        bad[index] = value
        with pytest.raises(UpdateRejected, match="more than 1 sites can"):
            Tally.from_words(bad, 3)
    with pytest.raises(UpdateRejected, match="20 words"):
        Tally.from_words(words[:-1], 3)
    with pytest.raises(UpdateRejected, match="a count lies outside"):
        replace(one(), gate=np.full((2, 2), 2**30)).to_words()


def test_votes() -> None:
    vote = Vote(ratio=1.5, margin=0.25)
    assert not vote.objects(0.9, None)
    assert not vote.objects(0.99, 0.5)
    assert vote.objects(1.01, 0.5)
    assert vote.objects(float("inf"), None)
    for objections, voters, rejected in (
        (0, 0, False),
        (1, 2, False),
        (2, 3, True),
        (4, 8, False),
        (5, 8, True),
    ):
        assert rejected_by_vote(replace(one(), objections=objections, voters=voters)) is rejected
