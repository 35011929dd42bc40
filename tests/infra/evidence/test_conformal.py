"""Split-conformal sets: the quantile by hand, and the promise on exchangeable clips."""

from __future__ import annotations

import numpy as np
import pytest

from infra.evidence.conformal import MOST, Conformal, fit, holds, threshold


def test_the_quantile_by_hand() -> None:
    """⌈10 · 0.8⌉ = 8th of nine; nine clips cannot promise 95 %."""
    scores = np.arange(1, 10) / 10
    assert threshold(scores[::-1], 0.2) == 0.8
    assert threshold(scores, 0.05) == MOST
    assert threshold([], 0.1) == MOST


def test_sets_and_what_they_hold() -> None:
    sets = Conformal(no_cry=0.3, cry=0.4).sets([0.1, 0.5, 0.7, 0.25])
    assert sets.tolist() == [[True, False], [False, False], [False, True], [True, False]]
    assert Conformal(0.7, 0.7).sets([0.5]).tolist() == [[True, True]]
    assert holds(sets, [0, 1, 1, 1]).tolist() == [True, False, True, False]


@pytest.mark.parametrize("by_class", [False, True])
def test_exchangeable_clips_are_covered_as_promised(by_class: bool) -> None:
    rng = np.random.default_rng(0)
    kept, of_cries = [], []
    for _ in range(60):
        cry = rng.random(600) < 0.3
        p = 1.0 / (1.0 + np.exp(-rng.normal(np.where(cry, 1.5, -1.0), 1.5)))
        sets = fit(p[:300], cry[:300], 0.1, by_class=by_class).sets(p[300:])
        held = holds(sets, cry[300:])
        kept.append(held.mean())
        of_cries.append(held[cry[300:]].mean())
    assert 0.89 < np.mean(kept) < 0.925
    if by_class:
        assert np.mean(of_cries) > 0.89
    else:
        assert abs(np.mean(of_cries) - 0.9) > 0.02, "a promise for all clips is none for the cries among them"
