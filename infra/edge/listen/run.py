"""The loop: a source through a detector into a sink, with a begin and an end that say how it went."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from infra.edge.listen.detector import Detector
from infra.edge.listen.events import Event
from infra.edge.listen.sources import Block, Item
from infra.edge.scorer import Scorer
from models.errors import CryfedError

Json = dict[str, Any]
Sink = Callable[[Json], None]


def about(scorer: Scorer, site: str | None) -> Json:
    """What a release is, for whoever reads the events."""
    manifest = scorer.bundle.manifest
    return {
        "release": scorer.bundle.digest,
        "site": site,
        "heads": list(manifest.heads),
        "reasons": list(manifest.reasons),
        "trained_on_synthetic": manifest.data.synthetic,
        "gate_threshold": scorer.calibration.gate_threshold,
        "energy_threshold": scorer.calibration.energy_threshold,
    }


def listen(
    items: Iterable[Item],
    detector: Detector,
    sink: Sink,
    *,
    source: str,
    release: Json,
) -> bool:
    """Run a source to its end. Events go to `sink` as JSON types, between one `stream` begin and one end.

    Whatever goes wrong with the source ends the stream, not the program: the end says why. An interrupt
    ends it in the same way, and is raised again.

    Returns:
        Whether it ended without an error.
    """
    counts = {"bouts": 0, "abstentions": 0, "gaps": 0, "lost_s": 0.0}

    def tell(events: Iterable[Event]) -> None:
        for event in events:
            row = event.to_dict()
            if row.get("phase") == "end":
                counts["bouts"] += row["event"] == "bout"
                counts["abstentions"] += row["event"] == "abstain"
                counts["gaps"] += row["event"] == "gap"
                counts["lost_s"] += row["seconds"] if row["event"] == "gap" else 0.0
            sink(row)

    sink({"event": "stream", "phase": "begin", "source": source, "time": _now(), **release})
    error: str | None = None
    stopped = False
    started = time.monotonic()
    try:
        for item in items:
            tell(
                detector.feed(item.samples, item.rate)
                if isinstance(item, Block)
                else detector.lost(item.seconds, item.why)
            )
    except CryfedError as err:
        error = str(err)
    except BaseException as err:
        stopped = isinstance(err, KeyboardInterrupt)
        error = None if stopped else type(err).__name__
        raise
    finally:
        tell(detector.finish())
        sink(
            {
                "event": "stream",
                "phase": "end",
                "source": source,
                "time": _now(),
                "seconds": round(detector.seconds, 3),
                "wall_seconds": round(time.monotonic() - started, 3),
                "frames_scored": detector.frames_scored,
                **{k: round(v, 3) for k, v in counts.items()},
                "stopped": stopped,
                "error": error,
            }
        )
    return error is None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
