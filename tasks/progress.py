"""The terminal and Prefect sides of progress: a bar or a line a stage, and a progress artifact."""

from __future__ import annotations

import time
from contextlib import suppress
from types import TracebackType
from uuid import UUID

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

_LINE_SECONDS = 15.0  # between two lines of one stage where there is no terminal
_API_SECONDS = 1.0  # at most one update of Prefect's artifact in this time


class StageProgress:
    """Progress of one running stage; use as a context manager, call `update(fraction, note)`."""

    def __init__(self, board: Board, stage: str) -> None:
        self._board, self.stage = board, stage
        self._artifact: UUID | None = None
        self._sent = 0.0
        self._bar: TaskID | None = None
        self._note = ""

    def __enter__(self) -> StageProgress:
        self._bar = self._board.begin(self.stage)
        self._started = time.monotonic()
        return self

    def update(self, fraction: float, note: str = "") -> None:
        """`fraction` in [0, 1] of this stage; `note` says what it is doing."""
        self._note = note
        self._board.move(self._bar, fraction, note)
        now = time.monotonic()
        if now - self._sent >= _API_SECONDS or fraction >= 1.0:
            self._sent = now
            self._send(fraction, note)

    def _send(self, fraction: float, note: str) -> None:
        from prefect.artifacts import create_progress_artifact, update_progress_artifact
        from prefect.context import TaskRunContext

        if TaskRunContext.get() is None:
            return
        percent = round(100 * min(max(fraction, 0.0), 1.0), 1)
        with suppress(Exception):  # the run matters more than its picture: an API hiccup must not end it
            if self._artifact is None:
                made = create_progress_artifact(
                    progress=percent, key=f"{self.stage}-progress", description=note
                )
                self._artifact = made if isinstance(made, UUID) else None
            else:
                update_progress_artifact(self._artifact, progress=percent, description=note)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._board.end(
            self._bar, self.stage, time.monotonic() - self._started, failed=error is not None, note=self._note
        )


class Board:
    """The terminal's side: one board a run."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self.timings: dict[str, float] = {}
        self._printed = 0.0
        self._live: Progress | None = None
        if self.console.is_terminal:
            self._live = Progress(
                SpinnerColumn(),
                TextColumn("{task.description:<12}"),
                BarColumn(bar_width=28),
                TimeElapsedColumn(),
                TextColumn("[dim]{task.fields[note]}"),
                console=self.console,
                transient=True,
            )

    def begin(self, stage: str) -> TaskID | None:
        """Show a stage as running."""
        if self._live is None:
            self._printed = time.monotonic()
            self.console.print(f"  … {stage}")
            return None
        if not self._live.live.is_started:
            self._live.start()
        return self._live.add_task(stage, total=1.0, note="")

    def move(self, bar: TaskID | None, fraction: float, note: str) -> None:
        """Advance a bar; without a terminal, a line now and then."""
        if self._live is not None and bar is not None:
            self._live.update(bar, completed=fraction, note=note)
        elif self._live is None and 0 < fraction < 1 and time.monotonic() - self._printed >= _LINE_SECONDS:
            self._printed = time.monotonic()
            self.console.print(f"    {fraction:4.0%}  {note}")

    def end(self, bar: TaskID | None, stage: str, seconds: float, *, failed: bool, note: str) -> None:
        """Replace the bar by one line."""
        self.timings[stage] = self.timings.get(stage, 0.0) + seconds
        if self._live is not None and bar is not None:
            self._live.remove_task(bar)
            if not self._live.tasks:
                self._live.stop()
        mark, style = ("✗", "red") if failed else ("✓", "green")
        self.console.print(f"  [{style}]{mark}[/] {stage:<12} {seconds:7.1f} s  [dim]{note}[/]")

    def hit(self, stage: str) -> None:
        """A stage whose result was already filed."""
        self.timings.setdefault(stage, 0.0)
        self.console.print(f"  [cyan]=[/] {stage:<12} [dim]unchanged, taken from the store[/]")
