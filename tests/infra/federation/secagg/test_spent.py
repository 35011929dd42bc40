"""Rounds and attempts go forward only; one vector and one survivor set per round."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.federation.secagg.spent import Spent
from models.errors import FederationError, RoundSkipped
from tests.infra.federation.secagg.world import make_context

CONTEXT = make_context(round=3, attempt=1)
BEGUN = Spent.begin(CONTEXT, None)
VECTOR, OTHER = b"v" * 32, b"o" * 32


def test_an_attempt_is_entered_once_and_forward() -> None:
    assert Spent("a" * 64, 3, 1) == BEGUN
    for round_number, attempt in [(3, 2), (4, 0), (9, 5)]:
        context = make_context(round=round_number, attempt=attempt)
        assert Spent.begin(context, BEGUN) == Spent("a" * 64, round_number, attempt)
    for round_number, attempt in [(3, 1), (3, 0), (2, 7), (0, 0)]:
        with pytest.raises(FederationError, match="is at round 3, attempt 1 already"):
            Spent.begin(make_context(round=round_number, attempt=attempt), BEGUN)


def test_a_masked_vector_ends_the_attempts_of_its_round() -> None:
    masked = BEGUN.mask(CONTEXT, VECTOR)
    with pytest.raises(RoundSkipped, match="skip the round"):
        Spent.begin(make_context(round=3, attempt=2), masked)
    with pytest.raises(RoundSkipped):
        Spent.begin(make_context(round=3, attempt=2), masked.sign(CONTEXT, OTHER))
    assert Spent.begin(make_context(round=4), masked).masked == ""


def test_one_vector_and_one_survivor_set() -> None:
    masked = BEGUN.mask(CONTEXT, VECTOR)
    assert masked.mask(CONTEXT, VECTOR) == masked
    with pytest.raises(FederationError, match="another vector"):
        masked.mask(CONTEXT, OTHER)
    signed = masked.sign(CONTEXT, VECTOR)
    assert signed.sign(CONTEXT, VECTOR) == signed
    with pytest.raises(FederationError, match="another survivor set"):
        signed.sign(CONTEXT, OTHER)


@pytest.mark.parametrize("change", [{"round": 4}, {"attempt": 2}, {"run": "e" * 64}])
def test_a_state_that_the_site_has_left_is_of_no_use(change: dict[str, object]) -> None:
    left = make_context(**{"round": 3, "attempt": 1, **change})  # type: ignore[arg-type]
    for step in (BEGUN.mask, BEGUN.sign):
        with pytest.raises(FederationError, match="out of date"):
            step(left, VECTOR)


def test_a_record_belongs_to_one_run() -> None:
    with pytest.raises(FederationError, match="of another run"):
        Spent.begin(make_context(run="e" * 64, round=4), BEGUN)


@pytest.mark.parametrize("spent", [BEGUN, BEGUN.mask(CONTEXT, VECTOR).sign(CONTEXT, OTHER)])
def test_round_trip(spent: Spent) -> None:
    assert Spent.from_bytes(spent.to_bytes()) == spent


@given(st.binary(max_size=300))
def test_noise_is_refused(data: bytes) -> None:
    with pytest.raises(FederationError, match="damaged"):
        Spent.from_bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        BEGUN.to_bytes() + b" ",
        BEGUN.to_bytes()[:-1],
        BEGUN.to_bytes().replace(b'"round":3', b'"round":"3"'),
        BEGUN.to_bytes().replace(b'"round":3', b'"round":true'),
        BEGUN.to_bytes().replace(b'"signed":""', b'"signed":"ab"'),
        BEGUN.to_bytes().replace(b'"signed":""', b'"signed":7'),
        BEGUN.to_bytes().replace(b'"masked":""', b'"masked":null'),
        BEGUN.to_bytes().replace(b'"run":"aa', b'"run":"'),
        b" " * 5000,
        b"[" * 900,
    ],
)
def test_a_damaged_record_is_refused(data: bytes) -> None:
    with pytest.raises(FederationError, match="damaged"):
        Spent.from_bytes(data)
