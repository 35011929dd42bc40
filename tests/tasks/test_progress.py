"""What a run says on the terminal, with and without one, and that its picture never ends the run."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tasks import progress
from tasks.progress import Board, StageProgress


def plain() -> tuple[Board, io.StringIO]:
    out = io.StringIO()
    return Board(Console(file=out, width=120, highlight=False)), out


def test_a_stage_is_one_line_at_its_start_and_one_at_its_end() -> None:
    board, out = plain()
    with StageProgress(board, "pretrain") as running:
        running.update(0.5, "halfway")
        running.update(1.0, "62,639 parameters")
    first, last = out.getvalue().splitlines()
    assert first == "  … pretrain"
    assert last.startswith("  ✓ pretrain ")
    assert last.endswith("62,639 parameters")
    assert set(board.timings) == {"pretrain"}


def test_a_failed_stage_is_marked_and_its_error_goes_on() -> None:
    board, out = plain()
    with pytest.raises(ZeroDivisionError), StageProgress(board, "export"):
        1 / 0  # noqa: B018
    assert out.getvalue().splitlines()[-1].startswith("  ✗ export ")


def test_a_stage_that_was_filed_costs_nothing_and_says_so() -> None:
    board, out = plain()
    board.hit("federate")
    assert out.getvalue() == "  = federate     unchanged, taken from the store\n"
    assert board.timings == {"federate": 0.0}


def test_the_parts_of_a_stage_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    board, _ = plain()
    for seconds in (1.5, 2.0):
        board.end(None, "gate", seconds, failed=False, note="")
    board.hit("gate")
    assert board.timings == {"gate": 3.5}


def test_without_a_terminal_a_long_stage_speaks_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    board, out = plain()
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with StageProgress(board, "federate") as running:
        for step in range(1, 10):
            now += progress._LINE_SECONDS / 2
            running.update(step / 10, f"round {step}")
    told = [line for line in out.getvalue().splitlines() if "%" in line]
    assert told == ["     20%  round 2", "     40%  round 4", "     60%  round 6", "     80%  round 8"]


def test_on_a_terminal_the_bar_makes_room_for_its_line() -> None:
    out = io.StringIO()
    board = Board(Console(file=out, width=120, force_terminal=True, force_interactive=True, highlight=False))
    with StageProgress(board, "pretrain") as running:
        running.update(0.5, "halfway")
        assert board._live is not None
        assert board._live.live.is_started
    assert not board._live.live.is_started
    assert "✓" in out.getvalue()


def test_prefect_is_told_once_a_second_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[float] = []
    monkeypatch.setattr(StageProgress, "_send", lambda self, fraction, note: sent.append(fraction))
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    board, _ = plain()
    with StageProgress(board, "central") as running:
        for step in range(11):
            running.update(step / 10)
            now += 0.3
    assert sent == [0.0, 0.4, 0.8, 1.0]


def test_outside_a_task_nobody_is_told() -> None:
    """Where no Prefect is, an update would otherwise start one."""
    board, _ = plain()
    with StageProgress(board, "corpus") as running:
        running.update(0.5)
        assert running._artifact is None
