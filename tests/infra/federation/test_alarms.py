"""The paper's failure signatures, each with its cause, and silence where there is none."""

from __future__ import annotations

from typing import Any

import pytest

from infra.federation.alarms import find_alarms


def record(**changed: Any) -> dict[str, Any]:
    quiet = {"turn": 0.4, "lost_variates": [], "bytes_up": {"a": 200_000}, "voters": 3, "objections": 0}
    return {**quiet, "update_norm": 0.5, **changed}


def test_a_quiet_round_has_none() -> None:
    assert find_alarms([record(turn=None)] * 3, record(), 3.3) == []


@pytest.mark.parametrize(
    ("changed", "kind", "says"),
    [
        ({"lost_variates": ["site 'a' holds …"]}, "variates", "new epoch"),
        ({"bytes_up": {"a": 200_000, "b": 4_000_000}}, "upload over budget", "backbone weights"),
        ({"rolled_back": 3, "objections": 2}, "votes", "harmful update"),
        ({"too_large": True, "update_norm": 9.0, "norm_bound": 1.1}, "sum too large", "does not clip"),
    ],
)
def test_each_names_its_cause(changed: dict[str, Any], kind: str, says: str) -> None:
    (alarm,) = find_alarms([record()] * 3, record(**changed), 3.3)
    assert alarm["kind"] == kind
    assert says in alarm["cause"]


def test_oscillation_takes_several_turns_in_a_row() -> None:
    back = record(turn=-0.5)
    assert find_alarms([record(), back], back, None) == []
    (alarm,) = find_alarms([record(), back, back], back, None)
    assert alarm["kind"] == "oscillation"
    assert "proximal" in alarm["cause"]


def test_no_budget_no_alarm() -> None:
    assert find_alarms([], record(bytes_up={"a": 10**9}, turn=None), None) == []
