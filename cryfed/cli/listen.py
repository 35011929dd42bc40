"""`cryfed listen`: a release on a stream. Its process imports neither torch nor Prefect nor Ray."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from models.errors import ConfigError

if TYPE_CHECKING:
    from infra.edge.listen.run import Sink
    from infra.edge.listen.sources import Item, Pcm
    from infra.edge.scorer import Scorer


def register(app: typer.Typer) -> None:
    """Add the command to the top level."""
    app.command()(listen)


def listen(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE…|-|mic", help="Recordings, `-` for raw samples on standard input, or `mic`."
        ),
    ],
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="Folder of a release or a run. Default: the latest run.")
    ] = None,
    site: Annotated[
        str | None,
        typer.Option(help="Use this site's calibration and thresholds. Default: those pooled over sites."),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="JSON lines on standard output, which is the default where that is no terminal."
        ),
    ] = False,
    frames: Annotated[
        bool, typer.Option("--frames", help="JSON lines: also the score of every frame, twice a second.")
    ] = False,
    serve: Annotated[
        bool, typer.Option("--serve", help="Show a live page, and answer requests, on 127.0.0.1.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the live page; 0 picks a free one.")] = 8730,
    real_time: Annotated[
        bool, typer.Option("--real-time", help="Play files at their own speed, as a microphone would.")
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="ALSA's name of the microphone (`arecord -L` lists them).")
    ] = None,
    rate: Annotated[int, typer.Option(help="Of `-` and `mic`, in Hz.")] = 16_000,
    channels: Annotated[int, typer.Option(help="Of `-` and `mic`: 1 or 2.")] = 1,
    encoding: Annotated[
        Literal["s16", "s32", "f32"], typer.Option(help="Of `-` and `mic`: little-endian integers or floats.")
    ] = "s16",
    stall: Annotated[
        float,
        typer.Option(
            min=0.0, help="Seconds without samples from `-` or `mic` that count as lost; 0: wait for ever."
        ),
    ] = 2.0,
    smooth: Annotated[
        float, typer.Option(help="Decide on the mean of so many seconds: longer is steadier, and later.")
    ] = 4.0,
    pause: Annotated[
        float, typer.Option(help="Breaths and pauses shorter than this do not end a bout.")
    ] = 3.0,
    least: Annotated[float, typer.Option(help="Shorter bouts are not told.")] = 1.5,
) -> None:
    """Listen for hours: when an infant cries, for how long, and why, or that the model had better not say.

    Sources are files (WAV, FLAC, …; read in blocks, so of any length), raw samples from a pipe, or the microphone:

    ```
    cryfed listen mic                                    # until Ctrl-C
    cryfed listen mic --serve                            # … with a live page on http://127.0.0.1:8730
    cryfed listen night.flac                             # as fast as it goes
    cryfed listen night.flac > night.jsonl               # one JSON object an event
    ffmpeg -i cam.mp4 -ac 1 -ar 16000 -f s16le - | cryfed listen -
    ssh ward arecord -q -t raw -f S16_LE -r 16000 | cryfed listen - --site ward-3
    ```

    Events: **bout** (crying; begin and end, with reasons), **abstain** (passes for crying, but is unlike what the model
    learned from: listen yourself), **gap** (samples were lost: nothing is known about that time), **quality** (clipping, a dead
    microphone), **stream** (begin and end), and with `--frames` every **frame**.

    A bout is told about two seconds after it began. Nothing is recorded or sent anywhere. It is no medical device.
    """
    from infra.edge.bundle import load_bundle
    from infra.edge.listen.config import ListenConfig
    from infra.edge.listen.detector import Detector
    from infra.edge.listen.run import about
    from infra.edge.listen.run import listen as run
    from infra.edge.listen.sources import Pcm
    from infra.edge.scorer import Scorer
    from infra.settings import load_settings

    cfg = ListenConfig(smooth_s=smooth, pause_s=pause, least_s=least)
    live = sources[0] in ("-", "mic")
    if len(sources) > 1 and {"-", "mic"} & set(sources):
        raise ConfigError(
            "`-` and `mic` do not end, so nothing can come before or after them: give one alone"
        )
    pcm = Pcm(rate, channels, encoding)
    release = load_bundle(bundle if bundle is not None else load_settings().runs_dir / "latest")
    scorer = Scorer(release, site=site)
    stop = threading.Event()
    with _ending(stop) as stack:
        opened = (
            _open_live(sources[0], pcm, device, stall, stack, stop) if live else _files(sources, real_time)
        )
        person = sys.stdout.isatty() and not as_json
        sink: Sink = _screen(stack, clock_times=live or real_time) if person else _lines(frames=frames)

        def work(to: Sink) -> bool:
            """Whether every source ended by itself and without an error; the others are heard all the same."""
            fine = True
            for name, items in opened:
                if not stop.is_set():
                    detector = Detector.of(scorer, cfg)
                    fine &= run(_until(stop, items), detector, to, source=name, release=about(scorer, site))
            return fine

        fine = _serve(work, sink, scorer, port, stop, stays=not live) if serve else work(sink)
    if not fine:
        raise typer.Exit(1)


@contextmanager
def _ending(stop: threading.Event) -> Iterator[ExitStack]:
    """Ctrl-C, or a service manager's SIGTERM, is how listening ends: what is open is told first."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        with ExitStack() as stack:
            yield stack
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    finally:
        stop.set()
        signal.signal(signal.SIGTERM, before)


def _files(names: list[str], real_time: bool) -> list[tuple[str, Iterator[Item]]]:
    from infra.edge.listen.sources import file_blocks, paced

    blocks = [(name, file_blocks(Path(name))) for name in names]
    return [(name, paced(items)) for name, items in blocks] if real_time else blocks


def _open_live(
    name: str, pcm: Pcm, device: str | None, stall: float, stack: ExitStack, stop: threading.Event
) -> list[tuple[str, Iterator[Item]]]:
    from infra.edge.listen.sources import Microphone, Pipe

    source: Pipe | Microphone
    if name == "mic":
        source = Microphone(device=device, pcm=pcm, stall_s=stall)
    else:
        if sys.stdin.isatty():
            raise ConfigError(
                "`-` hears raw samples on standard input, and that is a terminal: pipe something in"
            )
        source = Pipe(sys.stdin.buffer, pcm, stall_s=stall)
    stack.callback(source.close)
    threading.Thread(target=lambda: (stop.wait(), source.close()), name="listen-stop", daemon=True).start()
    return [(source.name, iter(source))]


def _until(stop: threading.Event, items: Iterator[Item]) -> Iterator[Item]:
    for item in items:
        if stop.is_set():
            return
        yield item


def _lines(*, frames: bool) -> Sink:
    """JSON lines, each written at once."""
    quiet = {"level"} if frames else {"level", "frame"}

    def write(row: dict[str, Any]) -> None:
        if row["event"] not in quiet:
            sys.stdout.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
            sys.stdout.flush()

    return write


def _screen(stack: ExitStack, *, clock_times: bool) -> Sink:
    from infra.edge.listen.console import Screen

    return stack.enter_context(Screen(clock_times=clock_times))


def _serve(
    work: Callable[[Sink], bool], sink: Sink, scorer: Scorer, port: int, stop: threading.Event, *, stays: bool
) -> bool:
    """Listen in a thread, serve in this one. With files the page stays after their end, until interrupted."""
    from infra.edge.listen.hub import Hub
    from infra.edge.listen.server import LocalServer, make_app

    hub = Hub()
    server = LocalServer(make_app(hub, scorer), port=port)
    result: list[bool] = []

    def both(row: dict[str, Any]) -> None:
        sink(row)
        hub.publish(row)

    def listening() -> None:
        try:
            result.append(work(both))
        finally:
            if not (stays and result):
                server.stop()

    thread = threading.Thread(target=listening, name="listen")
    typer.secho(f"live page: {server.url}", fg="cyan", err=True)
    thread.start()
    try:
        server.run()
    finally:
        stop.set()
        thread.join()
    return result == [True]
