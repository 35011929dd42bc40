"""The acceptance rule at its borders."""

from __future__ import annotations

import math

import pytest

from infra.edge.tensorrt.errors import Unhealthy
from infra.edge.tensorrt.parity import Parity, compare, require


def outputs(gate: list[float], reasons: list[float] | None = None) -> dict[str, list[float]]:
    return {"gate_probability": gate} | ({} if reasons is None else {"reason_probabilities": reasons})


def test_equal_is_accepted() -> None:
    same = outputs([0.2, 0.9], [0.1, 0.9, 0.6, 0.4])
    assert compare(same, same) == Parity(0.0, 1.0, 2)
    require(compare(same, same))


@pytest.mark.parametrize(("difference", "accepted"), [(0.0099, True), (0.0101, False)])
def test_the_largest_difference_counts(difference: float, accepted: bool) -> None:
    parity = compare(outputs([0.2] * 500 + [0.3]), outputs([0.2] * 500 + [0.3 + difference]))
    assert parity.accepted is accepted
    assert parity.max_difference == pytest.approx(difference)
    assert parity.argmax_agreement == 1.0


@pytest.mark.parametrize(("flips", "accepted"), [(1, True), (2, False)])
def test_one_decision_in_a_thousand_may_differ(flips: int, accepted: bool) -> None:
    """Around one half a difference of 0.002 turns a decision."""
    parity = compare(outputs([0.501] * 1000), outputs([0.499] * flips + [0.501] * (1000 - flips)))
    assert parity.max_difference == pytest.approx(0.002)
    assert parity.argmax_agreement == pytest.approx(1 - flips / 1000)
    assert parity.accepted is accepted


def test_gate_and_reason_must_agree_in_the_same_frame() -> None:
    reference = outputs([0.9, 0.9], [0.5, 0.499, 0.5, 0.499])
    found = outputs([0.9, 0.9], [0.499, 0.5, 0.5, 0.499])
    parity = compare(reference, found)
    assert parity.argmax_agreement == 0.5
    with pytest.raises(Unhealthy, match=r"agrees in 50\.00 % of 2 decisions"):
        require(parity, "the fp16 engine")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    parity = compare(outputs([0.2, 0.3]), outputs([0.2, bad]))
    assert parity.max_difference == math.inf
    assert parity.argmax_agreement == 0.5
    assert not parity.accepted
    # the same on both sides is no agreement either
    assert not compare(outputs([bad]), outputs([bad])).accepted


@pytest.mark.parametrize(
    "found",
    [
        {},
        outputs([0.1]),
        outputs([0.1, 0.2]),
        outputs([0.1, 0.2], [0.5, 0.5]),
        outputs([0.1, 0.2], [0.5] * 5),
    ],
)
def test_other_sizes_are_refused(found: dict[str, list[float]]) -> None:
    with pytest.raises(Unhealthy, match="the reference has"):
        compare(outputs([0.1, 0.2], [0.5] * 4), found)


def test_the_energy_has_to_be_there_and_finite() -> None:
    """It is no probability, so how far it is off says nothing; an abstention hangs on it all the same."""
    reference = {"gate_probability": [0.2], "energy": [-3.0]}
    assert compare(reference, {**reference, "energy": [5.0]}) == Parity(0.0, 1.0, 1)
    for energy in ([math.inf], [math.nan]):
        with pytest.raises(Unhealthy, match="energy is not finite"):
            compare(reference, {**reference, "energy": energy})
    with pytest.raises(Unhealthy, match="energy: missing"):
        compare(reference, {"gate_probability": [0.2]})


def test_nothing_to_compare() -> None:
    with pytest.raises(Unhealthy, match="nothing to compare"):
        compare({}, outputs([0.1]))
    with pytest.raises(Unhealthy, match="nothing to compare"):
        compare(outputs([]), outputs([]))
