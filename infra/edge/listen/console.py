"""Events for people: a line that lives, and one that stays for whatever began or ended."""

from __future__ import annotations

from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from infra.edge.listen.state import Json, State

_WORDS = {
    "starting": ("starting", "dim"),
    "quiet": ("quiet", "dim"),
    "sound": ("no cry", "default"),
    "cry": ("CRYING", "bold green"),
    "abstain": ("UNSURE", "bold yellow"),
    "no signal": ("NO SIGNAL", "bold red"),
    "ended": ("ended", "dim"),
    "failed": ("FAILED", "bold red"),
}
_FLOOR_DB = -70.0
_WIDTH = 24


class Screen:
    """A sink for `infra.edge.listen.run.listen` on a terminal. Use it as a context."""

    def __init__(self, console: Console | None = None, *, clock_times: bool = False) -> None:
        self.console = console or Console()
        self._clock_times = clock_times
        self._began: datetime | None = None
        self._state = State()
        self._live = Live(
            console=self.console, refresh_per_second=8, transient=True, get_renderable=self._line
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def __call__(self, row: Json) -> None:
        """Take in one event."""
        self._state.apply(row)
        if row["event"] == "stream" and row["phase"] == "begin":
            self._began = datetime.fromisoformat(row["time"]).astimezone()
        if (said := self._say(row)) is not None:
            self.console.print(said)

    def _line(self) -> Text:
        now = self._state.snapshot()
        word, style = _WORDS[now["word"]]
        level = (now["level"] or {}).get("rms_dbfs", _FLOOR_DB)
        filled = round(_WIDTH * min(max((level - _FLOOR_DB) / -_FLOOR_DB, 0.0), 1.0))
        frame = now["frame"] or {}
        line = Text.assemble(
            ("▕", "dim"), ("█" * filled, "cyan"), (" " * (_WIDTH - filled), ""), ("▏", "dim"),
            f"{level:6.1f} dB  ", (f"{word:<10}", style),
        )  # fmt: skip
        if frame.get("confidence") is not None:
            line.append(f"p(cry) {frame['confidence']:.2f}  ")
        line.append(_reasons(frame))
        return line

    def _say(self, row: Json) -> Text | None:
        event, phase = row["event"], row.get("phase")
        if event == "stream":
            return self._stream(row)
        if event not in ("bout", "abstain", "gap", "quality"):
            return None
        when = self._when(row["begin"] if "begin" in row else row["at"])
        if event == "bout" and phase == "begin":
            return Text.assemble(when, ("crying", "bold green"), f"  {_reasons(row)}")
        if event == "bout":
            reason = _reasons(row)
            return Text.assemble(when, ("cried ", "green"), f"for {row['seconds']:.1f} s  {reason}")
        if event == "abstain" and phase == "begin":
            why = "sounds like crying, but unlike the cries it learned from: listen yourself"
            return Text.assemble(when, ("unsure", "bold yellow"), f"  {why}")
        if event == "abstain":
            return Text.assemble(when, ("unsure", "yellow"), f" for {row['seconds']:.1f} s")
        if event == "gap" and phase == "begin":
            return Text.assemble(when, ("no signal", "bold red"), f"  {row['why']}")
        if event == "gap":
            return Text.assemble(when, ("signal is back", "red"), f"  {row['seconds']:.1f} s were lost")
        said = row["why"] if phase == "begin" else f"{row['problem']}: {row['why']}"
        return Text.assemble(when, ("recording", "yellow"), f"  {said}")

    def _stream(self, row: Json) -> Text:
        if row["phase"] == "begin":
            learned = "SYNTHETIC recordings" if row["trained_on_synthetic"] else "real recordings"
            site = row["site"] or "pooled"
            return Text(
                f"{row['source']} · release {row['release'][:12]} · trained on {learned} · calibration: {site} "
                "· not a medical device",
                "dim",
            )
        said = (
            f"{_clock(row['seconds'])} heard in {row['wall_seconds']:.1f} s: {row['bouts']} bouts of crying, "
            f"{row['abstentions']} unsure, {row['lost_s']:.1f} s lost"
        )
        if row["error"]:
            return Text.assemble((f"error: {row['error']}\n", "red"), (said, "dim"))
        return Text(said, "dim")

    def _when(self, seconds: float) -> str:
        if self._clock_times and self._began is not None:
            return f"{self._began + timedelta(seconds=seconds):%H:%M:%S}  "
        return f"{_clock(seconds):>9}  "


def _clock(seconds: float) -> str:
    whole = int(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}.{int(10 * (seconds - whole))}"


def _reasons(row: dict[str, Any]) -> str:
    """The likeliest reason, and the runner-up where it is close."""
    ranked = sorted((row.get("reasons") or {}).items(), key=lambda item: -item[1])
    if not ranked:
        return ""
    said = [f"{name} {p:.0%}" for name, p in ranked[:2] if p >= ranked[0][1] / 2]
    return " or ".join(said)
