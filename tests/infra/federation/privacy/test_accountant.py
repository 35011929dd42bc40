"""The accountant against the analytic Gaussian mechanism, numbers known beforehand, and what any accountant must obey."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from infra.federation.privacy.accountant import Spend, compose, epsilon, noise_for
from models.errors import ConfigError

Q, STEPS, DELTA = 16 / 300, 500, 1e-4


def analytic_gaussian(sigma: float, delta: float) -> float:
    """ε of one full-batch step (Balle and Wang, arXiv 1805.06530, theorem 8, sensitivity 1).

    δ(ε) = Φ(1/2σ − εσ) − e^ε Φ(−1/2σ − εσ), solved for ε.
    """

    def excess(eps: float) -> float:
        a, b = 1 / (2 * sigma), eps * sigma
        return float(norm.cdf(a - b) - math.exp(eps + norm.logcdf(-a - b)) - delta)

    return 0.0 if excess(0.0) <= 0 else float(brentq(excess, 0.0, 1000.0))


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-6])
def test_one_full_step_is_the_analytic_gaussian_mechanism(sigma: float, delta: float) -> None:
    exact = analytic_gaussian(sigma, delta)
    found = epsilon(1, 1.0, sigma, delta)
    assert exact <= found  # never understated
    assert found == pytest.approx(exact, rel=0.011, abs=0.021)


def test_full_steps_compose_as_less_noise() -> None:
    """K Gaussians of σ are one of σ/√K."""
    assert epsilon(16, 1.0, 8.0, DELTA) == pytest.approx(analytic_gaussian(2.0, DELTA), abs=0.03)
    together = compose([Spend(9, 1.0, 6.0), Spend(1, 1.0, 2.0)], DELTA)  # 9/36 + 1/4 = 1/2
    assert together == pytest.approx(analytic_gaussian(math.sqrt(2), DELTA), abs=0.03)


def test_the_documented_setting() -> None:
    """FEDERATION's numbers, 7.0 and 3.5, are those of privacy-loss variables; Rényi accounting gives 7.8 and 3.9."""
    assert epsilon(STEPS, Q, 1.0, DELTA) == pytest.approx(7.0, abs=0.05)
    assert epsilon(STEPS, Q, 1.5, DELTA) == pytest.approx(3.5, abs=0.05)


def test_where_the_method_fails_the_renyi_bound_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    from infra.federation.privacy import accountant

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("Discrete mean differs from continuous mean significantly.")

    monkeypatch.setattr(accountant, "PRVAccountant", fails)
    accountant._epsilon.cache_clear()
    try:
        assert epsilon(STEPS, Q, 1.0, DELTA) == pytest.approx(7.81, abs=0.01)
    finally:
        accountant._epsilon.cache_clear()


@settings(max_examples=6, deadline=None)
@given(
    steps=st.integers(1, 300),
    rate=st.floats(0.01, 0.5),
    sigma=st.floats(0.7, 4.0),
    delta=st.floats(1e-6, 1e-2),
)
def test_more_steps_more_sampling_less_noise_smaller_delta_cost_more(
    steps: int, rate: float, sigma: float, delta: float
) -> None:
    base = epsilon(steps, rate, sigma, delta)
    assert 0 <= base < math.inf
    slack = 0.02 + 0.02 * base  # the error bound grows with ε
    assert epsilon(2 * steps, rate, sigma, delta) >= base - slack
    assert epsilon(steps, min(1.0, 2 * rate), sigma, delta) >= base - slack
    assert epsilon(steps, rate, 1.5 * sigma, delta) <= base + slack
    assert epsilon(steps, rate, sigma, delta / 10) >= base - slack


def test_parts_add_up_to_the_whole_and_no_further() -> None:
    whole = epsilon(100, Q, 1.0, DELTA)
    assert compose([Spend(60, Q, 1.0), Spend(40, Q, 1.0)], DELTA) == whole
    mixed = [Spend(100, Q, 1.0), Spend(50, 0.1, 2.0)]
    assert compose(mixed, DELTA) == pytest.approx(compose(mixed[::-1], DELTA), rel=1e-9)
    assert whole < compose(mixed, DELTA) < whole + epsilon(50, 0.1, 2.0, DELTA)


def test_nothing_costs_nothing_and_no_noise_costs_everything() -> None:
    assert compose([], DELTA) == 0.0
    assert epsilon(1, Q, 0.0, DELTA) == math.inf
    assert compose([Spend(1, Q, 1.0), Spend(1, Q, 0.0)], DELTA) == math.inf


def test_noise_for_is_the_inverse() -> None:
    sigma = noise_for(3.0, STEPS, Q, DELTA)
    assert epsilon(STEPS, Q, sigma, DELTA) <= 3.0 < epsilon(STEPS, Q, sigma - 0.02, DELTA)
    assert noise_for(100.0, 1, 1.0, DELTA) < 0.2


def test_little_noise_is_accounted_for_without_much_work() -> None:
    """A job may name any σ: the site must not choke on it."""
    assert epsilon(10_000, 0.5, 0.02, DELTA) > 1e4


@pytest.mark.parametrize(
    "wrong",
    [(0, Q, 1.0, DELTA), (1, 0.0, 1.0, DELTA), (1, 1.5, 1.0, DELTA), (1, Q, -1.0, DELTA), (1, Q, math.nan, DELTA),
     (1, Q, math.inf, DELTA), (1, math.nan, 1.0, DELTA), (1, Q, 1.0, 0.0), (1, Q, 1.0, 1.0)],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(wrong: tuple[int, float, float, float]) -> None:
    with pytest.raises(ConfigError, match="privacy accounting"):
        epsilon(*wrong)


def test_noise_that_cannot_be_found_is_refused() -> None:
    with pytest.raises(ConfigError, match="no noise"):
        noise_for(0.0, 1, Q, DELTA)
    with pytest.raises(ConfigError, match="take fewer"):
        noise_for(1e-6, 10**9, 1.0, 1e-9)
