"""What a context may say, and what a site makes of one."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.federation.secagg.context import (
    MAX_CONTEXT_BYTES,
    Context,
    Member,
    Roster,
    Section,
    default_threshold,
)
from models.errors import FederationError, UpdateRejected
from tests.infra.federation.secagg.world import make_context, make_roster, public

CONTEXT = make_context()


def test_round_trip() -> None:
    assert Context.from_bytes(CONTEXT.to_bytes()) == CONTEXT


def test_the_digest_is_known() -> None:
    """It binds every message of a federation: two versions that disagree about it cannot work together."""
    assert CONTEXT.digest.hex() == "a4d2447dc30f012ee7f00dad75b1e91f464ac11c4d369ad90bdbbc498a33d1bd"


@pytest.mark.parametrize(
    "change",
    [
        {"run": "e" * 64},
        {"round": 4},
        {"attempt": 1},
        {"cv_epoch": 2},
        {"schema": "e" * 64},
        {"base": "e" * 64},
        {"config": "e" * 64},
        {"clip": 2.0},
        {"sections": (Section(6, 12), Section(2, 32))},
        {"sections": (Section(7, 11), Section(2, 32))},
        {"threshold": 5},
        {"cohort": CONTEXT.cohort[::-1]},
        {"cohort": (replace(CONTEXT.cohort[0], key="e" * 64), *CONTEXT.cohort[1:])},
    ],
)
def test_every_field_is_bound(change: dict[str, object]) -> None:
    assert make_context(**change).digest != CONTEXT.digest  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"run": "x" * 64}, "run is not a SHA-256"),
        ({"base": "A" * 64}, "base is not"),
        ({"round": -1}, "round is not a count"),
        ({"attempt": True}, "attempt is not a count"),
        ({"cv_epoch": 2**31}, "cv_epoch is not a count"),
        ({"clip": 0.0}, "clip C"),
        ({"clip": float("nan")}, "clip C"),
        ({"clip": 1}, "clip C"),
        ({"sections": ()}, "no section"),
        ({"sections": (Section(0, 11),)}, "length"),
        ({"sections": (Section(5, 33),)}, "32 bits"),
        ({"sections": (Section(5, 0),)}, "32 bits"),
        ({"sections": (Section(2**27, 11), Section(1, 32))}, "more than"),
        ({"threshold": 3}, "must lie in 4..5"),
        ({"threshold": 6}, "must lie in 4..5"),
        ({"cohort": CONTEXT.cohort[:2]}, "each learns the other's vector"),
        ({"cohort": (*CONTEXT.cohort[:4], replace(CONTEXT.cohort[0], key="e" * 64))}, "one name"),
        ({"cohort": (*CONTEXT.cohort[:4], Member("x", CONTEXT.cohort[0].key))}, "one identity key"),
        ({"cohort": (*CONTEXT.cohort[:4], Member("", "e" * 64))}, "usable name"),
        ({"cohort": (*CONTEXT.cohort[:4], Member("x", "e" * 63))}, "Ed25519"),
        ({"cohort": tuple(Member(str(i), f"{i:064x}") for i in range(257)), "threshold": 172}, "3 to 256"),
    ],
)
def test_what_no_context_may_say(change: dict[str, object], says: str) -> None:
    with pytest.raises(FederationError, match=says):
        make_context(**change)  # type: ignore[arg-type]


def test_thresholds() -> None:
    """n = 3: 3, 4: 3, 5: 4, 8: 6, 16: 11; two quorums overlap in more than ⌊n/3⌋ sites."""
    assert [default_threshold(n) for n in (3, 4, 5, 8, 16)] == [3, 3, 4, 6, 11]
    for n in range(3, 257):
        assert 2 * default_threshold(n) > n + n // 3
        assert default_threshold(n) <= n


@pytest.mark.parametrize(("n", "colluders"), [(3, 1), (4, 1), (5, 2), (8, 3), (9, 4), (16, 5)])
def test_colluders(n: int, colluders: int) -> None:
    """n = 8, t = 6: 12 > 8 + 3, and 6 − 3 = 3 honest sites are summed."""
    assert make_context(n).colluders == colluders


def test_a_larger_threshold_may_be_asked_for() -> None:
    assert make_context(8, threshold=8).colluders == 6


@given(st.binary(max_size=400))
def test_noise_is_refused(data: bytes) -> None:
    with pytest.raises(UpdateRejected):
        Context.from_bytes(data)


@given(st.data())
def test_a_damaged_context_is_refused_or_another(data: st.DataObject) -> None:
    raw = bytearray(CONTEXT.to_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(UpdateRejected):
        assert Context.from_bytes(bytes(raw)).digest != CONTEXT.digest


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: d.pop("clip"),
        lambda d: d.update(extra=1),
        lambda d: d.update(cohort={}),
        lambda d: d.update(sections=[[6, 11]]),
        lambda d: d.update(sections=[{"length": 6.0, "bits": 11}]),
        lambda d: d.update(round="3"),
        lambda d: d.update(clip="1"),
        lambda d: d.update(threshold=None),
        lambda d: d["cohort"][0].update(name=7),
        lambda d: d["cohort"][0].update(key=["e"] * 64),
    ],
)
def test_a_context_of_another_shape_is_refused(edit: object) -> None:
    document = json.loads(CONTEXT.to_bytes())
    edit(document)  # type: ignore[operator]
    text = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(UpdateRejected, match="malformed"):
        Context.from_bytes(text)


def test_only_the_canonical_form_and_only_so_much_is_read() -> None:
    with pytest.raises(UpdateRejected, match="canonical"):
        Context.from_bytes(json.dumps(json.loads(CONTEXT.to_bytes())).encode())
    with pytest.raises(UpdateRejected, match="more than"):
        Context.from_bytes(b" " * (MAX_CONTEXT_BYTES + 1))


def test_the_largest_cohort_fits() -> None:
    cohort = tuple(Member(f"{i:0120d}", f"{i:064x}") for i in range(256))
    context = make_context(cohort=cohort, threshold=171)
    assert len(context.to_bytes()) < MAX_CONTEXT_BYTES
    assert Context.from_bytes(context.to_bytes()) == context


def test_a_roster_knows_its_sites_by_their_keys() -> None:
    make_roster(5).check(CONTEXT)
    with pytest.raises(FederationError, match="'ward4' of the cohort is not known"):
        make_roster(4).check(CONTEXT)
    swapped = Roster({**make_roster(5).keys, "ward1": public(9)})
    with pytest.raises(FederationError, match="'ward1' of the cohort has another identity key"):
        swapped.check(CONTEXT)


def test_a_roster_can_ask_for_company() -> None:
    with pytest.raises(FederationError, match="takes part from 6 on"):
        Roster(make_roster().keys, smallest_cohort=6).check(CONTEXT)
