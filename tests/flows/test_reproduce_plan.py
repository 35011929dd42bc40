"""What `cryfed reproduce` makes, what it reads and what it calls absent: the flow with its parts replaced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows import reproduce as module
from flows.parameters import ReproduceParameters
from flows.reproduce import reproduce


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """`told(**parameters)` runs the flow; what was called, and what the table is made from."""
    monkeypatch.setenv("CRYFED_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.setenv("CRYFED_DATA", str(tmp_path / "clips"))
    called: list[Any] = []

    def retrain(parameters: Any) -> dict[str, str]:
        called.append(("retrain", parameters.preset, parameters.manifest and parameters.manifest.name))
        return {"folder": str(tmp_path / "runs" / "made")}

    def part(name: str) -> Callable[..., str]:
        def run(*arguments: Any, **options: Any) -> str:
            called.append(
                (name, *(a.name if isinstance(a, Path) else a for a in arguments), *options.values())
            )
            return ""

        return run

    def tabulate(*arguments: Any, quick: bool) -> str:
        called.append(arguments)
        return "page" + str(quick)

    known: dict[str, str] = {}
    monkeypatch.setattr(module, "retrain", retrain)
    monkeypatch.setattr(module, "find_run", lambda parameters: known.get(str(parameters["manifest"])))
    monkeypatch.setattr(module, "time_graphs", lambda _runs, *, paper_size: {"paper": paper_size})
    monkeypatch.setattr(module, "tabulate", tabulate)
    for name in ("ablation", "experiments", "evidence"):
        monkeypatch.setattr(module, name, part(name))

    def run(found: dict[str, str] | None = None, **parameters: Any) -> dict[str, Any]:
        called.clear()
        known.clear()
        known.update(found or {})
        page = reproduce.fn(ReproduceParameters(**parameters))
        runs, documents, missing, how, latency, out = called.pop()
        return {
            "page": page, "called": list(called), "runs": runs, "documents": documents, "missing": missing,
            "how": {h["name"]: h["how"] for h in how}, "latency": latency, "out": out,
        }  # fmt: skip

    return run


def put(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")


def test_without_real_clips_that_column_is_absent(told: Callable[..., dict[str, Any]]) -> None:
    found = told()
    assert found["called"] == [
        ("retrain", "compact", None), ("ablation", "ablation", False), ("experiments", "experiments", False, True),
    ]  # fmt: skip
    assert "CRYFED_DATA" in found["missing"]["real"]
    assert "cryfed evidence" in found["missing"]["evidence"]
    assert set(found["documents"]) == {"ablation", "experiments"}
    assert "small plan" in found["how"]["experiments"]
    assert found["latency"] == {"paper": True}


def test_what_is_there_is_read(told: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    put(tmp_path / "clips" / "manifest.csv")
    put(tmp_path / "runs" / "experiments" / "experiments.json")
    put(tmp_path / "runs" / "evidence" / "evidence.json")
    found = told({"None": "/runs/one", str(tmp_path / "clips" / "manifest.csv"): "/runs/two"})
    assert found["called"] == [("ablation", "ablation", False)]
    assert found["runs"] == {"synthetic": "/runs/one", "real": "/runs/two"}
    assert found["missing"] == {}
    assert found["how"]["real clips"].startswith("read")
    again = told({"None": "/runs/one"}, again=True)
    assert ("retrain", "compact", "manifest.csv") in again["called"]
    assert again["runs"]["synthetic"].endswith("made")


def test_all_of_it(told: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    put(tmp_path / "clips" / "manifest.csv")
    names = [c[0] for c in told(full=True)["called"]]
    assert names == ["retrain", "retrain", "ablation", "experiments", "experiments", "evidence"]


def test_a_quick_look_reads_nothing_of_the_real_thing(
    told: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    put(tmp_path / "clips" / "manifest.csv")
    put(tmp_path / "runs" / "experiments" / "experiments.json")
    put(tmp_path / "runs" / "evidence" / "evidence.json")
    found = told(quick=True)
    assert found["called"][0] == ("retrain", "tiny", None)
    assert all(Path(p).is_relative_to(found["out"]) for p in found["documents"].values())
    assert {"real", "evidence"} == set(found["missing"])
    assert found["page"] == "pageTrue"
    assert found["latency"] == {"paper": False}
