"""What a site and the server do within a round, function by function, in one process."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.jobs import World
from benchmarks.timing import Spread
from infra.federation import masked_site, rounds, site, site_round
from infra.federation.journal import Journal
from infra.federation.secagg.server import ServerRound
from infra.federation.secagg.site import SiteRound
from infra.federation.site import open_site
from infra.federation.site_state import SiteStore
from infra.federation.transport import LocalTransport
from models import quantise, rotation
from models.threads import one_thread

# what is timed: name in the table, where it is looked up, attribute
_TIMED: tuple[tuple[str, Any, str], ...] = (
    ("site: whole answer", site.Site, "handle"),
    ("site: local step", site_round, "local_step"),
    ("site: clip, encode, decode", site_round, "encode_update"),
    ("site: variates read", SiteStore, "load"),
    ("site: variates written", SiteStore, "save"),
    ("site: mask, pack, sign", SiteRound, "mask"),
    ("site: keys", SiteRound, "begin"),
    ("site: shares", SiteRound, "share"),
    ("site: attempt read", masked_site.MaskedRounds, "_load"),
    ("site: attempt written", masked_site.MaskedRounds, "_save"),
    ("site: tally", site_round, "tally"),
    ("both: rotation set up", rotation.Rotation, "__init__"),
    ("both: files synced", os, "fsync"),
    ("server: messages judged, vectors added", ServerRound, "receive"),
    ("server: unmask", ServerRound, "total"),
    ("both: decode", quantise.Quantiser, "decode_sum"),
    ("server: step", rounds, "server_step"),
    ("server: journal, stages", Journal, "file_stage"),
    ("server: journal, round closed", Journal, "close_round"),
)


class Stopwatch:
    """Seconds and calls by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            begin = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[name] += time.perf_counter() - begin
                self.calls[name] += 1

        return timed

    def clear(self) -> None:
        """From the start."""
        self.seconds.clear()
        self.calls.clear()


@contextmanager
def watched() -> Iterator[Stopwatch]:
    """Time all of `_TIMED`; what one of them calls counts in both."""
    watch = Stopwatch()
    with ExitStack() as stack:
        for name, owner, attribute in _TIMED:
            raw = vars(owner)[attribute]
            if isinstance(raw, classmethod):
                timed: Any = classmethod(watch.wrap(name, raw.__func__))
            else:
                timed = watch.wrap(name, raw)
            stack.enter_context(patch.object(owner, attribute, timed))
        yield watch


def measure(world: World, folder: Path, count: int, **changes: Any) -> dict[str, tuple[int, Spread]]:
    """Calls in a round, and milliseconds a round over all of them; `count` rounds after one that is not counted."""
    job = world.job(folder, rounds=count + 1, **changes)
    sites = {name: open_site(str(folder / "job.json"), name) for name in job.site_names}
    found: dict[str, list[float]] = defaultdict(list)
    calls: dict[str, int] = {}
    with watched() as watch, one_thread():

        def emit(event: Any) -> None:
            if event["event"] == "round" and event["round"] > 1:
                for name, seconds in watch.seconds.items():
                    found[name].append(1000.0 * seconds)
                    calls[name] = watch.calls[name]
            watch.clear()

        rounds.federate(job, LocalTransport({name: s.handle for name, s in sites.items()}), emit)
    return {name: (calls[name], Spread.of(values)) for name, values in sorted(found.items())}
