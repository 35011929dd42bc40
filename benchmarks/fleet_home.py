"""An operator's home with a simulated fleet: servers up, the fleet's root and key in place, devices that poll for themselves."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.fleet_devices import Behave, SimulatedDevice, World, obedient
from infra.edge.fleet_home import FleetHome
from infra.edge.trust.keys import save_key
from infra.servers import prefect_server
from infra.store import embedded

FLEET = "ward"


class Home:
    """Use as a context manager: servers start with it, and stop at its end."""

    def __init__(self, folder: Path, size: int, behave: Behave = obedient, **changes: Any) -> None:
        self.folder, self._size, self._behave, self._changes = folder, size, behave, changes
        self.work = folder / "home" / ".cryfed"
        self.runs = folder / "home" / "runs"
        self.world: World

    def __enter__(self) -> Self:
        self.work.mkdir(parents=True)
        server = embedded.ensure_running(self.work, keep=True)
        store = server.connect()
        store.ensure_bucket()
        devices = self.folder / "devices"
        devices.mkdir()
        self.world = World(store, server, devices, FLEET, self._size, self._behave, **self._changes)
        keys = self.folder / "keys" / FLEET
        FleetHome(keys).remember(1, self.world.root)
        for key in self.world.keys["fleet"]:
            save_key(keys, key)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        prefect_server.stop_running(self.work)
        embedded.stop_running(self.work)

    def cryfed(self, *arguments: str, keys: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Type `cryfed …` and wait; `keys` is another folder of keys and roots than the operator's."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("CRYFED_", "PREFECT_"))}
        environment["CRYFED_HOME"] = str(self.folder / "home")
        environment["CRYFED_KEYS_DIR"] = str(keys or self.folder / "keys")
        return subprocess.run(
            [sys.executable, "-m", "cryfed", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )


class Polling:
    """Every device polls for itself, from a few threads, while the block runs."""

    def __init__(self, world: World, *, every_s: float, threads: int = 4) -> None:
        self._every, self._done = every_s, threading.Event()
        devices = list(world.devices.values())
        self._threads = [
            threading.Thread(target=self._run, args=(devices[i::threads],), daemon=True)
            for i in range(threads)
        ]

    def _run(self, devices: list[SimulatedDevice]) -> None:
        while not self._done.is_set():
            began = time.monotonic()
            for device in devices:
                device.poll()
                if self._done.is_set():
                    return
            self._done.wait(max(0.0, self._every - (time.monotonic() - began)))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()
