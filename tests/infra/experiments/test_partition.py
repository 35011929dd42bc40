"""Infants dealt to sites: each once, evenly, as unlike as α says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.experiments.partition import dirichlet_partition, label_skew
from models.errors import ConfigError


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def infants(n: int, classes: int = 5) -> dict[str, int]:
    return {f"i{k}": k % classes for k in range(n)}


@given(st.integers(1, 60), st.integers(1, 8), st.sampled_from([0.01, 0.1, 1.0, 100.0]), st.integers(0, 2**31))
def test_every_infant_is_at_one_site_and_sites_are_of_one_size(
    n: int, sites: int, alpha: float, seed: int
) -> None:
    sites = min(sites, n)
    dealt = dirichlet_partition(infants(n), sites, alpha, rng(seed))
    assert sorted(name for names in dealt for name in names) == sorted(infants(n))
    assert {len(names) for names in dealt} <= {n // sites, -(-n // sites)}


def test_the_smaller_alpha_the_more_unlike_the_sites() -> None:
    labels = infants(400)
    skew = [
        np.mean([label_skew(labels, dirichlet_partition(labels, 8, a, rng(s))) for s in range(10)])
        for a in (100.0, 1.0, 0.1)
    ]
    assert skew[0] < 0.15 < skew[1] < skew[2]
    assert skew[2] > 0.45


def test_it_depends_on_the_seed_and_not_on_the_order_of_names() -> None:
    labels = infants(50)
    backwards = dict(reversed(labels.items()))
    first = dirichlet_partition(labels, 4, 0.5, rng(3))
    assert first == dirichlet_partition(backwards, 4, 0.5, rng(3))
    assert first != dirichlet_partition(labels, 4, 0.5, rng(4))


def test_skew_by_hand() -> None:
    """Two sites, one reason each: shares (1, 0) and (0, 1) against (½, ½), total variation ½ at both."""
    labels = {"a": 0, "b": 0, "c": 1, "d": 1}
    assert label_skew(labels, [["a", "b"], ["c", "d"]]) == pytest.approx(0.5)
    assert label_skew(labels, [["a", "c"], ["b", "d"]]) == 0.0


@pytest.mark.parametrize(("n", "sites", "alpha"), [(3, 4, 1.0), (3, 0, 1.0), (3, 2, 0.0)])
def test_what_cannot_be_dealt_is_refused(n: int, sites: int, alpha: float) -> None:
    with pytest.raises(ConfigError, match="cannot deal"):
        dirichlet_partition(infants(n), sites, alpha, rng())
