"""What is accepted on the golden clips, by numbers worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infra.edge.agent.errors import Unhealthy
from infra.edge.agent.health import Measured, judge, read_golden
from infra.edge.tensorrt.build import Golden

OUTPUTS: dict[str, Any] = {
    "gate_probability": [0.9, 0.2, 0.7],
    "reason_probabilities": [[0.6, 0.4], [0.1, 0.9], [0.5, 0.5]],
    "energy": [-1.0, 2.0, 0.5],
}


def _golden(gate: list[float], energy: list[float], reasons: list[float] | None = None) -> Golden:
    found = {"gate_probability": gate, "energy": energy}
    return Golden(b"", found if reasons is None else {**found, "reason_probabilities": reasons})


GOLDEN = _golden([0.9, 0.2, 0.7], [-1.0, 2.0, 0.5], [0.6, 0.4, 0.1, 0.9, 0.5, 0.5])


def _measured(gate: Any = None, reasons: Any = None, energy: Any = None, times: Any = (5.0,)) -> Measured:
    outputs = {
        "gate_probability": OUTPUTS["gate_probability"] if gate is None else gate,
        "reason_probabilities": OUTPUTS["reason_probabilities"] if reasons is None else reasons,
        "energy": OUTPUTS["energy"] if energy is None else energy,
    }
    return Measured(outputs, list(times), "x")


def test_the_largest_difference_of_any_probability() -> None:
    health = judge(GOLDEN, _measured([0.905, 0.2, 0.7], [[0.592, 0.408], [0.1, 0.9], [0.5, 0.5]]))
    assert health.max_difference == pytest.approx(0.008)
    assert health.argmax_agreement == 1.0


@pytest.mark.parametrize("delta", [0.0101, -0.0101])
def test_just_too_far(delta: float) -> None:
    with pytest.raises(Unhealthy, match=r"x differs from the reference by 0\.0101"):
        judge(GOLDEN, _measured([0.9 + delta, 0.2, 0.7]))


def test_a_reason_that_changes_within_the_difference() -> None:
    """One of three frames decides otherwise: 66.67 %."""
    with pytest.raises(Unhealthy, match=r"66\.67 % of 3 decisions"):
        judge(GOLDEN, _measured(reasons=[[0.6, 0.4], [0.1, 0.9], [0.495, 0.505]]))


def test_a_gate_that_changes_within_the_difference() -> None:
    golden = _golden([0.502], [0.0])
    with pytest.raises(Unhealthy, match=r"in 0\.00 % of 1 decisions"):
        judge(golden, Measured({"gate_probability": [0.498], "energy": [0.0]}, [1.0], "x"))


def test_one_frame_in_a_thousand_may() -> None:
    gate = [0.9] * 999 + [0.5]
    golden = _golden(gate, [0.0] * 1000)
    found = {"gate_probability": [0.9] * 999 + [0.4999], "energy": [0.0] * 1000}
    assert judge(golden, Measured(found, [1.0], "x")).argmax_agreement == 0.999
    golden = _golden([0.9] * 998 + [0.5, 0.5], [0.0] * 1000)
    found["gate_probability"] = [0.9] * 998 + [0.4999, 0.4999]
    with pytest.raises(Unhealthy, match=r"99\.80 %"):
        judge(golden, Measured(found, [1.0], "x"))


@pytest.mark.parametrize(
    "bent",
    [
        {"gate": [0.9, 0.2]},
        {"gate": [0.9, 0.2, float("nan")]},
        {"gate": [0.9, 0.2, "0.7"]},
        {"gate": {}},
        {"energy": [-1.0, 2.0, float("inf")]},
        {"energy": []},
        {"reasons": []},
        {"reasons": [[0.6], [0.1], [0.5]]},
        {"reasons": [[0.6, 0.4], [0.1, 0.9], [1.0]]},
        {"reasons": [[0.6, 0.4], [0.1, 0.9]]},
        {"times": ()},
        {"times": (float("nan"),)},
        {"times": (-1.0,)},
    ],
    ids=str,
)
def test_outputs_that_cannot_be_compared(bent: dict[str, Any]) -> None:
    with pytest.raises(Unhealthy):
        judge(GOLDEN, _measured(**bent))


def test_times_are_summed_up() -> None:
    """Linear between neighbours: 0.95 · 100 = 95 steps above the first of 1 to 101."""
    health = judge(GOLDEN, _measured(times=[float(i) for i in range(101, 0, -1)]))
    assert (health.p50_ms, health.p95_ms) == (51.0, 96.0)


def test_a_release_without_reasons_has_an_engine_without() -> None:
    with pytest.raises(Unhealthy, match="others than the golden"):
        judge(_golden([0.9, 0.2, 0.7], [0.0] * 3), _measured())


def test_golden_clips_as_they_lie_in_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "golden").mkdir()
    (tmp_path / "golden/inputs.f32").write_bytes(bytes(3 * 64_000))
    (tmp_path / "golden/outputs.json").write_text(json.dumps(OUTPUTS))
    assert read_golden(tmp_path) == GOLDEN._replace(waves=bytes(3 * 64_000))


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        (None, {}),
        (b"", {"gate_probability": [], "energy": []}),
        (bytes(64_001), {"gate_probability": [0.5], "energy": [0.0]}),
        (bytes(64_000), {"gate_probability": [0.5, 0.5], "energy": [0.0, 0.0]}),
        (bytes(64_000), {"gate_probability": [0.5]}),
        (bytes(64_000), [1]),
    ],
)
def test_golden_clips_that_are_none(tmp_path: Path, inputs: bytes | None, outputs: Any) -> None:
    (tmp_path / "golden").mkdir()
    if inputs is not None:
        (tmp_path / "golden/inputs.f32").write_bytes(inputs)
    (tmp_path / "golden/outputs.json").write_text(json.dumps(outputs))
    with pytest.raises(Unhealthy):
        read_golden(tmp_path)
