"""Peak memory of a run: this process and all it started, sampled, because `getrusage` sees only the largest single child."""

from __future__ import annotations

import threading
from contextlib import suppress

import psutil

_SECONDS = 1.0
_peak = 0.0
_started = False


def watch_memory() -> None:
    """Start sampling, once per process."""
    global _started  # noqa: PLW0603 - one sampler a process
    if not _started:
        _started = True
        threading.Thread(target=_sample_forever, name="memory", daemon=True).start()


def peak_memory_mb() -> float | None:
    """Largest sum of proportional set sizes seen so far, in MB (10^6 bytes); None where nothing was sampled."""
    return round(_peak / 1e6, 1) if _peak else None


def _sample_forever() -> None:
    global _peak  # noqa: PLW0603
    own = psutil.Process()
    tick = threading.Event()
    while not tick.wait(_SECONDS):
        total = 0
        for process in [own, *own.children(recursive=True)]:
            with suppress(psutil.Error):
                total += process.memory_full_info().pss
        _peak = max(_peak, float(total))
